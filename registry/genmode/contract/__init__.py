"""The contract between the host and its plugins.

A component is a class. It states the version of the contract that it was written for, names its parameters in a pydantic
model, and implements one method: `Strategy.decode`, `LogitsProcessor.process` or `StoppingCriterion.check`; a
`Watermarker` implements `process`, `evidence` and `null`, a `Drafter` `draft`, a `Verification` `accept` and `behind`. Names only, each imported when it is first asked for: what
torch is needed for is not imported with the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .component import CONTRACT_VERSION, OLDEST_CONTRACT, AnyParams, Component, Params, is_secret
    from .context import Context, SideModel
    from .criterion import StoppingCriterion
    from .draft import Draft
    from .drafter import Drafter
    from .history import History
    from .kinds import COMPONENT_KINDS, Kind
    from .processor import BacktrackingProcessor, LogitsProcessor, Stage
    from .scorer import Scorer, Scoring
    from .session import Accepted, AsyncReadback, DraftModel, DraftScorer, Look, Replay, Session, Step
    from .stand_in import StandIn
    from .strategy import Strategy
    from .traits import Need, Trait
    from .verification import Verification
    from .watermarker import Detection, Evidence, Null, Watermarker

__all__ = [
    "CONTRACT_VERSION",
    "OLDEST_CONTRACT",
    "COMPONENT_KINDS",
    "Kind",
    "Component",
    "Params",
    "AnyParams",
    "is_secret",
    "Trait",
    "Need",
    "Strategy",
    "Session",
    "Step",
    "Look",
    "Accepted",
    "Replay",
    "DraftModel",
    "DraftScorer",
    "Scorer",
    "Scoring",
    "AsyncReadback",
    "LogitsProcessor",
    "BacktrackingProcessor",
    "Stage",
    "StandIn",
    "StoppingCriterion",
    "Context",
    "SideModel",
    "History",
    "Drafter",
    "Draft",
    "Verification",
    "Watermarker",
    "Evidence",
    "Null",
    "Detection",
]

_MODULES = {
    "component": "CONTRACT_VERSION OLDEST_CONTRACT AnyParams Component Params is_secret",
    "context": "Context SideModel",
    "criterion": "StoppingCriterion",
    "draft": "Draft",
    "drafter": "Drafter",
    "history": "History",
    "kinds": "COMPONENT_KINDS Kind",
    "processor": "BacktrackingProcessor LogitsProcessor Stage",
    "scorer": "Scorer Scoring",
    "session": "Accepted AsyncReadback DraftModel DraftScorer Look Replay Session Step",
    "stand_in": "StandIn",
    "strategy": "Strategy",
    "traits": "Need Trait",
    "verification": "Verification",
    "watermarker": "Detection Evidence Null Watermarker",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
