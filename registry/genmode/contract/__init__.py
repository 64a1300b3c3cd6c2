"""The contract between the host and its plugins: the four kinds of component and their parameters.

A component is a class. It states the version of the contract that it was written for, names its
parameters in a pydantic model, and implements one method: `Strategy.decode`, `LogitsProcessor.process` or
`StoppingCriterion.check`; a `Watermarker` implements `process`, `evidence` and `null`. Importing this package
imports pydantic, but not torch.
"""

from .component import CONTRACT_VERSION, KINDS, OLDEST_CONTRACT, AnyParams, Component, Kind, Params, is_secret
from .criterion import StoppingCriterion
from .processor import LogitsProcessor, Stage
from .strategy import Strategy
from .watermarker import Detection, Evidence, Null, Watermarker

__all__ = [
    "CONTRACT_VERSION",
    "KINDS",
    "OLDEST_CONTRACT",
    "AnyParams",
    "Component",
    "Detection",
    "Evidence",
    "Kind",
    "LogitsProcessor",
    "Null",
    "Params",
    "Stage",
    "StoppingCriterion",
    "Strategy",
    "Watermarker",
    "is_secret",
]
