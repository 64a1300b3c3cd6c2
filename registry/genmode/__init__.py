"""Decoding strategies, logits processors, stopping criteria and watermarkers for transformers, as plugins.

Names only, each imported when it is first asked for: `import genmode` imports neither torch, pydantic nor
pluggy, and no plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazily
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .api import GenerationMixin, attach, detach, explain, generate, stream
    from .config import GenerationConfig
    from .contract import (
        CONTRACT_VERSION,
        BacktrackingProcessor,
        Component,
        Context,
        Detection,
        Draft,
        Drafter,
        Evidence,
        History,
        LogitsProcessor,
        Need,
        Null,
        Params,
        Scoring,
        Session,
        Stage,
        StandIn,
        Step,
        StoppingCriterion,
        Strategy,
        Trait,
        Verification,
        Watermarker,
    )
    from .errors import (
        CancelledError,
        ConflictError,
        ContractVersionError,
        DecodingError,
        DisabledError,
        GenmodeError,
        LockError,
        ParameterError,
        PluginLoadError,
        UnknownComponentError,
        UnsupportedError,
    )
    from .plan import Plan
    from .plugins.hooks import hookimpl, hookspec
    from .plugins.registry import Registry, components, configure, refresh, register
    from .plugins.resolution import ComponentInfo
    from .plugins.settings import Settings
    from .tracing import Trace, trace
    from .watermark.config import WatermarkingConfig
    from .watermark.detection import detect

__all__ = [
    # calls
    "generate",
    "stream",
    "detect",
    "explain",
    "attach",
    "detach",
    "Plan",
    "trace",
    "Trace",
    "GenerationMixin",
    # configuration
    "GenerationConfig",
    "WatermarkingConfig",
    "Scoring",
    # the contract
    "CONTRACT_VERSION",
    "Component",
    "Strategy",
    "LogitsProcessor",
    "BacktrackingProcessor",
    "StoppingCriterion",
    "Watermarker",
    "Drafter",
    "Draft",
    "Verification",
    "Params",
    "Stage",
    "Trait",
    "Need",
    "StandIn",
    "Detection",
    "Evidence",
    "Null",
    "Session",
    "Step",
    "Context",
    "History",
    # plugins
    "register",
    "components",
    "ComponentInfo",
    "configure",
    "refresh",
    "Settings",
    "Registry",
    "hookspec",
    "hookimpl",
    # errors
    "GenmodeError",
    "UnknownComponentError",
    "ConflictError",
    "DisabledError",
    "PluginLoadError",
    "ContractVersionError",
    "LockError",
    "ParameterError",
    "UnsupportedError",
    "DecodingError",
    "CancelledError",
]

_MODULES = {
    "api": "generate stream explain attach detach GenerationMixin",
    "plan": "Plan",
    "config": "GenerationConfig",
    "watermark.config": "WatermarkingConfig",
    "contract": """CONTRACT_VERSION Component Strategy LogitsProcessor BacktrackingProcessor StoppingCriterion Watermarker
        Drafter Draft Verification StandIn Params Scoring Stage Trait Need Session Step Context History Detection
        Evidence Null""",
    "watermark.detection": "detect",
    "plugins.registry": "register components configure refresh Registry",
    "plugins.resolution": "ComponentInfo",
    "plugins.settings": "Settings",
    "tracing": "Trace trace",
    "plugins.hooks": "hookspec hookimpl",
    "errors": """GenmodeError UnknownComponentError ConflictError DisabledError PluginLoadError
        ContractVersionError LockError ParameterError UnsupportedError DecodingError CancelledError""",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
