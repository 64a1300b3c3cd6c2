"""Decoding strategies, logits processors, stopping criteria and watermarkers for transformers, as plugins.

Names only, each imported when it is first asked for: `import genmode` imports neither torch, pydantic nor
pluggy, and no plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazily

if TYPE_CHECKING:
    from .api import GenerationMixin, attach, detach, explain, generate, stream
    from .config import GenerationConfig
    from .contract import (
        CONTRACT_VERSION,
        Component,
        Detection,
        Evidence,
        LogitsProcessor,
        Null,
        Params,
        Stage,
        StoppingCriterion,
        Strategy,
        Watermarker,
    )
    from .detection import detect
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
    from .hooks import hookimpl, hookspec
    from .offers import ComponentInfo
    from .plan import Plan
    from .registry import Registry, components, configure, refresh, register
    from .session import History, Session, Step
    from .settings import Settings
    from .tracing import Trace, trace
    from .watermarking import WatermarkingConfig

__version__ = "0.1.0"

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
    # the contract
    "CONTRACT_VERSION",
    "Component",
    "Strategy",
    "LogitsProcessor",
    "StoppingCriterion",
    "Watermarker",
    "Params",
    "Stage",
    "Detection",
    "Evidence",
    "Null",
    "Session",
    "Step",
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
    "watermarking": "WatermarkingConfig",
    "contract": """CONTRACT_VERSION Component Strategy LogitsProcessor StoppingCriterion Watermarker Params
        Stage Detection Evidence Null""",
    "detection": "detect",
    "session": "Session Step History",
    "registry": "register components configure refresh Registry",
    "offers": "ComponentInfo",
    "settings": "Settings",
    "tracing": "Trace trace",
    "hooks": "hookspec hookimpl",
    "errors": """GenmodeError UnknownComponentError ConflictError DisabledError PluginLoadError
        ContractVersionError LockError ParameterError UnsupportedError DecodingError CancelledError""",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
