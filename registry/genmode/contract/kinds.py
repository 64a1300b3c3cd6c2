"""The kinds of plugin: their names, entry-point groups, and the arguments of a call that name them."""

from __future__ import annotations

import enum


class Kind(str, enum.Enum):
    """A kind of plugin. Equal to its name, so that either may be given."""

    STRATEGIES = "strategies"
    PROCESSORS = "processors"
    CRITERIA = "criteria"
    WATERMARKERS = "watermarkers"
    DRAFTERS = "drafters"
    VERIFICATIONS = "verifications"
    HOOKS = "hooks"

    __str__ = str.__str__

    @property
    def group(self) -> str:
        """The entry-point group."""
        return f"genmode.{self.value}"

    @property
    def noun(self) -> str:
        """What one of the kind is called."""
        return _NOUNS[self.value]

    @property
    def argument(self) -> str:
        """The argument of `genmode.generate` that takes one of the kind; empty for hook plugins."""
        return _ARGUMENTS[self.value]


_NOUNS = {
    "strategies": "strategy", "processors": "processor", "criteria": "criterion", "watermarkers": "watermarker",
    "drafters": "drafter", "verifications": "verification", "hooks": "hook plugin",
}  # fmt: skip
_ARGUMENTS = {
    "strategies": "strategy", "processors": "processors", "criteria": "criteria", "watermarkers": "watermark",
    "drafters": "draft", "verifications": "verify", "hooks": "",
}  # fmt: skip

COMPONENT_KINDS = tuple(kind for kind in Kind if kind is not Kind.HOOKS)
"""The kinds whose plugins are classes derived from `Component`."""
