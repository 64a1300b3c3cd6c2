"""What mkdocs asks of this site: pages that are made at build time, and links that fit the site.

The gallery is made from the components, the front page from README.md, `changelog.md` from CHANGELOG.md. Pages are
written to be read in a checkout as well: links between files are turned into links of the site, and names of
components in backticks into links to the gallery.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import gallery
from links import MADE, ROOT, for_site
from mkdocs.structure.files import File, Files
from table import load_table


def on_config(config: Any) -> Any:
    """Put the gallery's pages into the navigation."""
    uses = load_table()
    kinds = {
        title: sorted(f"gallery/{use.key}.md" for use in uses if use.kind == kind)
        for kind, title in gallery.TITLES.items()
    }
    whole = ["gallery/index.md", *({title: members} for title, members in kinds.items())]
    config.nav = [{"Gallery": whole} if entry == {"Gallery": "gallery/index.md"} else entry for entry in config.nav]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    for source, target in MADE.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    for path, content in gallery.pages().items():
        files.append(File.generated(config, f"gallery/{path}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make a page's links those of the site."""
    return for_site(page.file.src_uri, markdown)
