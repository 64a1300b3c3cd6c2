"""Names that users import from transformers 4 and that transformers 5 no longer has, under their old spelling.

    from genmode_strategies.former_names import BeamSearchDecoderOnlyOutput, PhrasalConstraint

The output classes were other names of the four that transformers still has.
"""

from __future__ import annotations

from transformers.generation.utils import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
)

from .beams.constraints import Constraint, DisjunctiveConstraint, PhrasalConstraint

GreedySearchDecoderOnlyOutput = GenerateDecoderOnlyOutput
SampleDecoderOnlyOutput = GenerateDecoderOnlyOutput
ContrastiveSearchDecoderOnlyOutput = GenerateDecoderOnlyOutput

GreedySearchEncoderDecoderOutput = GenerateEncoderDecoderOutput
SampleEncoderDecoderOutput = GenerateEncoderDecoderOutput
ContrastiveSearchEncoderDecoderOutput = GenerateEncoderDecoderOutput

BeamSearchDecoderOnlyOutput = GenerateBeamDecoderOnlyOutput
BeamSampleDecoderOnlyOutput = GenerateBeamDecoderOnlyOutput

BeamSearchEncoderDecoderOutput = GenerateBeamEncoderDecoderOutput
BeamSampleEncoderDecoderOutput = GenerateBeamEncoderDecoderOutput

__all__ = [
    "BeamSampleDecoderOnlyOutput",
    "BeamSampleEncoderDecoderOutput",
    "BeamSearchDecoderOnlyOutput",
    "BeamSearchEncoderDecoderOutput",
    "Constraint",
    "ContrastiveSearchDecoderOnlyOutput",
    "ContrastiveSearchEncoderDecoderOutput",
    "DisjunctiveConstraint",
    "GreedySearchDecoderOnlyOutput",
    "GreedySearchEncoderDecoderOutput",
    "PhrasalConstraint",
    "SampleDecoderOnlyOutput",
    "SampleEncoderDecoderOutput",
]
