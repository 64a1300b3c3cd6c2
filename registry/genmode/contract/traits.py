"""What components state of themselves, and what strategies ask of a session."""

from __future__ import annotations

import enum


class Trait(str, enum.Enum):
    """What a component states of itself in `Component.traits`. Each has a default: absent."""

    PURE = "pure"
    """A processor: `process` is a function of the scores and the parameters alone, without history, state, random
    numbers, or a look at a tensor from the host. A device records a chain of such processors once and replays it."""
    HOST_SYNC = "host_sync"
    """A processor: on a device the host waits in each step for the tokens that were chosen; `explain` says so."""
    FORCES = "forces"
    """A processor: it may leave a row one token alone, so that nothing behind it has a choice."""
    REMOVES_NAN = "removes_nan"
    """A processor: it puts numbers in the place of NaN and infinity, so the model's logits may hold them."""
    PROBES = "probes"
    """A processor or criterion: it asks the model what would follow (`Context.probe`), which costs a forward each time;
    `explain` says so."""
    READS_SCORES = "reads_scores"
    """A criterion: `check(history, scores)` takes the scores that the last token was chosen from, `[rows, vocab]`,
    float32."""
    CHOOSES = "chooses"
    """A watermarker: it draws the token itself and masks all others; strategies that weigh several are refused."""
    KEEPS_DISTRIBUTION = "keeps_distribution"
    """A watermarker: over random keys, sampled text is distributed as without the mark. A verification: text is
    distributed as without drafts."""
    READS_MODEL = "reads_model"
    """A watermarker: `evidence` needs `statistic` of the model's logits, so detection needs the model."""
    COUPLES = "couples"
    """A verification: each token is drawn whatever the draft says there; drafters that draw do so with the same numbers."""
    PROBABILITIES = "probabilities"
    """A drafter: under sampling its drafts say what their tokens were drawn from."""
    WEIGHS = "weighs"
    """A strategy: it takes tokens for other reasons than their scores as well, as contrastive search does."""

    __str__ = str.__str__


class Need(str, enum.Enum):
    """What a strategy asks of the model and the session in `Strategy.needs`; what cannot be met is refused at once."""

    ROLLBACK = "rollback"
    """Rows take back tokens: drafts."""
    REORDER = "reorder"
    """Rows continue other rows of their input: beams. Processors take nothing back then."""
    POPULATION = "population"
    """Rows fork, leave and begin again (`Session.fork`, `drop`, `restart`). A device is then read in each step, and streams
    get what the strategy settles, and the rest at the end. Rows that begin again behind a prefix need "rollback" as well."""
    LEVEL = "level"
    """Rows have one length throughout, as `Step.look` asks for. Processors take nothing back then."""
    HIDDEN_STATES = "hidden_states"
    """`Step.outputs` has the hidden states."""
    ATTENTIONS = "attentions"
    """`Step.outputs` has the attentions."""

    __str__ = str.__str__
