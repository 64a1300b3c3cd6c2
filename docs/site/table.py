"""The gallery's table, gallery.yml, and the example outputs, examples.json, as typed records."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
OUTPUTS = HERE / "examples.json"
GREEDY = "do_sample=False"


@dataclass(frozen=True)
class Use:
    """What the table says of one component; see the head of gallery.yml.

    Attributes:
        key: kind and name, `strategies/sample`.
        prompt: the prompt itself, which with `chat` is put into the model's chat template.
    """

    key: str
    need: str
    use: str
    call: str = ""
    base: str = GREEDY
    prompt: str = ""
    chat: bool = False
    setup: str = ""
    tokens: int | None = 40
    no_example: str = ""

    @property
    def kind(self) -> str:
        """The kind, in the plural."""
        return self.key.split("/")[0]

    @property
    def arguments(self) -> str:
        """The example's arguments of `genmode.generate`, as Python."""
        alone = self.kind == "strategies" or self.tokens is None
        return self.call if alone or self.base == GREEDY else f"{self.base}, {self.call}"


@dataclass(frozen=True)
class Output:
    """What one call gave.

    Attributes:
        arguments: the call's, as Python.
        texts: one for each result, without the prompt.
        tokens: new tokens of the longest result.
        forwards: how often the model ran, the prompt's forward included.
    """

    arguments: str
    texts: list[str]
    tokens: int
    forwards: int


@dataclass(frozen=True)
class Example:
    """An example that was run: the prompt, and the call without and with the component."""

    prompt: str
    chat: bool
    setup: str
    without: Output
    with_it: Output
    detection: dict[str, Any] = field(default_factory=dict)


def load_table() -> list[Use]:
    """All entries in the table's order."""
    data = yaml.safe_load((HERE / "gallery.yml").read_text(encoding="utf-8"))
    uses: list[Use] = []
    for group in data["needs"]:
        for key, entry in group["components"].items():
            ((form, prompt),) = data["prompts"][entry.pop("prompt", "story")].items()
            uses.append(Use(key=key, need=group["need"], prompt=prompt, chat=form == "chat", **entry))
    return uses


def load_examples() -> dict[str, Example]:
    """The committed outputs by component."""
    examples = {}
    for key, data in json.loads(OUTPUTS.read_text(encoding="utf-8")).items():
        outputs = {name: Output(**data.pop(name)) for name in ("without", "with_it")}
        examples[key] = Example(**outputs, **data)
    return examples


def save_examples(examples: dict[str, Example]) -> None:
    """Write the outputs, sorted by component."""
    data = {key: asdict(examples[key]) for key in sorted(examples)}
    OUTPUTS.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def is_current(use: Use, example: Example | None) -> bool:
    """Whether an output is that of the call that the table states."""
    if example is None:
        return False
    stated = (use.prompt, use.chat, use.setup, *calls(use))
    ran = (example.prompt, example.chat, example.setup, example.without.arguments, example.with_it.arguments)
    return stated == ran


def calls(use: Use) -> tuple[str, str]:
    """The arguments of the call without and with the component, with the length limit."""
    limit = "" if use.tokens is None else f", max_new_tokens={use.tokens}"
    return use.base + limit, use.arguments + limit
