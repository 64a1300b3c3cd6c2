"""Links of pages that are written to be read in a checkout, made to fit the site. Needs no mkdocs."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import gallery
from table import load_table

ROOT = Path(__file__).parents[2]
MADE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
"""Pages that are files outside of docs/, and their places in the site."""


def for_site(path: str, markdown: str) -> str:
    """A page's Markdown with links between files as links between pages, and components' names linked.

    Args:
        path: the page's place in the site. Those of the gallery are made for it and stay as they are.
    """
    if path.startswith("gallery/"):
        return markdown
    source = next((source for source, target in MADE.items() if target == path), f"docs/{path}")
    parts = re.split(r"(?ms)(^```.*?^```$)", markdown)
    return "".join(part if part.startswith("```") else linked(part, posixpath.dirname(source)) for part in parts)


def linked(markdown: str, folder: str) -> str:
    """Links between files of the repository as links between pages; what is no page becomes plain text.

    Names of components in backticks become links to the gallery, except in headings, code and links.
    """

    def replaced(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        place = posixpath.normpath(posixpath.join(folder, target))
        if place in MADE:
            return f"[{text}]({MADE[place]}{anchor})"
        if place.startswith("docs/"):
            return f"[{text}]({place.removeprefix('docs/')}{anchor})"
        return text if (ROOT / place).exists() else found[0]

    markdown = re.sub(r"\[([^\]]+)\]\((?!https?:|#|gallery/)([^)#\s]+)(#[^)\s]*)?\)", replaced, markdown)
    uses = load_table()
    return "\n".join(
        line if line.startswith(("#", "    ")) else gallery.linked(line, uses, "gallery/")
        for line in markdown.split("\n")
    )
