"""Links of pages that are written to be read in a checkout, made to fit the site. Needs no mkdocs."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

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
    return with_gallery(relinked(markdown, posixpath.dirname(source)))


def relinked(markdown: str, folder: str) -> str:
    """Links between files of the repository as links between pages; what is no page becomes plain text."""

    def replaced(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        place = posixpath.normpath(posixpath.join(folder, target))
        if place in MADE:
            return f"[{text}]({MADE[place]}{anchor})"
        if place.startswith("docs/"):
            return f"[{text}]({place.removeprefix('docs/')}{anchor})"
        return text if (ROOT / place).exists() else found[0]

    return outside_code(r"\[([^\]]+)\]\((?!https?:|#|gallery/)([^)#\s]+)(#[^)\s]*)?\)", replaced, markdown)


def with_gallery(markdown: str) -> str:
    """Names of components in backticks as links, except in headings and links."""
    uses = load_table()
    lines = []
    fence = ""
    for line in markdown.split("\n"):
        mark = re.match(r"`{3,}", line)
        if mark and (not fence or line.startswith(fence)):
            fence = "" if fence else mark[0]
        plain = not fence and not mark and not line.startswith(("#", "    "))
        lines.append(gallery.linked(line, uses, "gallery/") if plain else line)
    return "\n".join(lines)


def outside_code(pattern: str, replacement: Any, markdown: str) -> str:
    """`re.sub` on what stands outside of fenced blocks."""
    parts = re.split(r"(?ms)(^```.*?^```$)", markdown)
    return "".join(part if part.startswith("```") else re.sub(pattern, replacement, part) for part in parts)
