"""Drafts copied from text that is there already, and how much of it is worth running.

A copied draft costs next to nothing to make; running it does. A step that runs k drafted tokens for each of r
rows takes about as long as

    c(k) = 1 + r (1 + k) / free + 0.15 [k > 0],   free = 14 + 1e7 layers / parameters on a CPU, 256 elsewhere

`free` tokens being what fits into the time that weights and launches take anyway. With a the share of copied
tokens that rows choose as well, among those that follow agreeing ones, and f the share of rows that have
something to copy, such a step gives 1 + f (a + a^2 + .. + a^k) tokens a row. The k that gives the most for the time
is run, of the longest allowed and its halves down to 0.

a is learnt from every step: where no draft was run, the first token that would have been is compared with the
one that was chosen. As long as a is too low for any draft, this is done in one step of four only, and of up to
sixteen while nothing agrees at all. On a device a and f are known one step late.

What is decoded depends on none of this in greedy search and under `seed=`. Where it does, since the verification looks at
the draft, or transformers' draws for one row are to be met, all that there is to copy is run in every step, as far as
tokens follow in the text and none of them ends a row: that is transformers' draft, which also ends before a token that the
call's processors mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.contract import Replay

from .loop import draws_freely

FORGET = 0.9
"""Weight of what was learnt before, at each step."""
PRIOR = (1.5, 2.0)
"""Tokens that agreed, of how many, before anything is known."""
DEVICE_TOKENS = 256
"""Tokens that fit into the time of a device's forward."""
EXTRA = 0.15
"""What verifying takes besides."""
SELDOM = (4, 16)
"""Steps from one look to the next while no draft is worth it, at first and at most."""


class CopyDrafter(genmode.Drafter):
    """Copies what `look` finds; for subclasses, which say where, and give `longest` and `most`."""

    @staticmethod
    def look(tokens: Tensor, lengths: Tensor, starts: Tensor, longest: int, count: int) -> tuple[Tensor, Tensor]:
        """Find a draft of `count` tokens for each row; a function that is replayed.

        Args:
            tokens, lengths, starts: of a `History`.
            longest: longest ending to look for, in tokens.
            count: how many tokens to draft.

        Returns:
            The draft `[rows, count]`, long, and how much of it follows in the text, `[rows]`, long; 0 for no draft.
        """
        raise NotImplementedError

    @property
    def sizes(self) -> tuple[int, int]:
        """The longest ending that is looked for, and the longest draft."""
        raise NotImplementedError

    def begin(self, session: genmode.Session, verification: genmode.Verification | None) -> None:
        longest, most = self.sizes
        self.longest = min(longest, session.max_length)
        self.most = max(1, min(most, session.max_length - session.prompt_length))
        self.lengths = [0] + [self.most >> shift for shift in reversed(range(self.most.bit_length()))]
        self.free = free_tokens(session)
        self.agreed, self.tried = PRIOR
        self.share = 1.0
        self.at_once = host_sync.is_free(session.device)
        self.whole = verification is not None and (
            genmode.Trait.COUPLES not in verification.traits
            or (session.rows == 1 and self.at_once and draws_freely(session))
        )
        self.ends = torch.tensor(session.eos_token_ids, dtype=torch.long, device=session.device)
        self.readback = session.async_readback(4)
        self.replay: Replay | None = session.replay
        self.rest, self.pause = 0, SELDOM[0]
        self.copied: Tensor | None = None  # [rows, most]: the last draft, whether it was run or not
        self.found: Tensor | None = None

    def draft(self, session: genmode.Session) -> genmode.Draft | None:
        if self.rest:
            self.rest, self.copied = self.rest - 1, None
            return None
        history = session.history
        # on a device one shape for all steps, since each is another recording
        tokens = history.tokens if self.at_once else session.replay.buffer(session.max_length + 1)
        copied, counts = session.replay(self.look, tokens, history.lengths, history.starts, self.longest, self.most)
        counts = counts * session.unfinished
        if self.whole:
            return self.all_of(copied, counts)
        found = counts > 0
        self.copied, self.found = copied, found
        if self.at_once:
            running = int(session.unfinished.sum())
            self.share = int(found.sum()) / max(running, 1)
        rate = self.agreed / self.tried
        width = best_length(self.lengths, rate, self.share, session.rows, self.free)
        if width == 0 and best_length(self.lengths, rate, 1.0, session.rows, self.free) == 0:
            self.rest, self.pause = self.pause - 1, min(2 * self.pause, SELDOM[1])
        return genmode.Draft(copied[:, :width]) if width else None

    def all_of(self, copied: Tensor, counts: Tensor) -> genmode.Draft | None:
        """All that there is to copy, up to the end of a text."""
        ended = torch.isin(copied, self.ends).long().cumsum(1) > 0
        counts = torch.minimum(counts, (~ended).sum(1))
        width = int(counts.max()) if self.at_once else copied.shape[1]
        return genmode.Draft(copied[:, :width], counts=counts) if width else None

    def learn(self, step: genmode.Step, chosen: Tensor, agreed: Tensor, running: Tensor) -> None:
        if self.copied is None or self.found is None or self.replay is None:
            return
        width = 1 if step.draft is None else min(step.draft.shape[1], self.copied.shape[1])
        seen = self.readback.exchange(self.replay(compared, self.copied, chosen, self.found, running, width))
        if seen is None:
            return
        numbers = seen.tolist()
        if numbers[0]:
            self.pause = SELDOM[0]
        if numbers[1]:
            self.agreed = FORGET * self.agreed + numbers[0]
            self.tried = FORGET * self.tried + numbers[1]
        self.share = numbers[2] / max(numbers[3], 1)

    def reset(self) -> None:
        self.copied = self.found = self.replay = None


def compared(copied: Tensor, chosen: Tensor, found: Tensor, running: Tensor, width: int) -> Tensor:
    """How many of the first `width` copied tokens agreed, of how many tried, in how many rows, of how many: `[4]`, long."""
    same = (copied[:, :width] == chosen[:, :width]).long().cumprod(1).sum(1)
    tried = (same + 1).clamp(max=width)
    return torch.stack([same * found, tried * found, found.long(), running.long()]).sum(1)


def best_length(lengths: list[int], rate: float, share: float, rows: int, free: float) -> int:
    """Which of `lengths` promises the most tokens for the time; the shortest of equals."""

    def worth(count: int) -> float:
        hoped = sum(rate**i for i in range(1, count + 1))
        return (1 + share * hoped) / (1 + rows * (1 + count) / free + (EXTRA if count else 0))

    return max(lengths, key=worth)


def free_tokens(session: genmode.Session) -> float:
    """How many tokens' arithmetic takes as long as what a forward costs anyway."""
    if not host_sync.is_free(session.device):
        return DEVICE_TOKENS
    layers = session.model.config.get_text_config(decoder=True).num_hidden_layers
    return float(14 + 1e7 * layers / max(1, session.model.num_parameters()))
