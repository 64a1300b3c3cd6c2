"""What holds for every test: no network through the Hub, one torch thread, no settings from outside."""

from __future__ import annotations

import os

import hypothesis

# Read when torch and huggingface_hub are imported, hence set before either is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for _name in [name for name in os.environ if name.startswith("GENMODE_") and name != "GENMODE_CACHE"]:
    del os.environ[_name]

hypothesis.settings.register_profile("genmode", deadline=None, derandomize=True)
hypothesis.settings.load_profile("genmode")
