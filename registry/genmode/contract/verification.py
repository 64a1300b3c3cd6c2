"""The contract of verifications: how many tokens of a draft a row takes, and what it takes behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from .draft import Draft
    from .session import Session, Step


class Verification(Component):
    """Decides how a draft is accepted where tokens are drawn; without state.

    It says two things of a draft x_1 .. x_k, given p and q at its positions, both after the call's processors: with what
    probability each of its tokens is taken, and what the token behind those is drawn from. It states
    `Trait.KEEPS_DISTRIBUTION` where text is then distributed as without drafts.

    Shapes: p `[rows, k + 1, vocab]` and q `[rows, k, vocab]` sum to 1; `p[:, i]` and `q[:, i]` are those of the token
    that the draft has at i, `draft[:, i]`; of a drafter without probabilities q is 1 at its token. `draft` is `[rows, k]`,
    long. `counts` `[rows]`, long, says how many of its tokens each row's draft has; columns beyond are filling, and what
    is said of them counts for nothing. Nothing of this may be written.
    """

    def accept(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor) -> Tensor:
        """With what probability each token is taken if those before it are: `[rows, k]`; 1 or more for always."""
        raise TypeError(f"{type(self).__name__} must define accept(p, q, draft, counts)")

    def behind(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor, taken: Tensor) -> Tensor:
        """What the token behind the first `taken` `[rows]`, long, 0 to `counts`, is drawn from: weights `[rows, vocab]`."""
        raise TypeError(f"{type(self).__name__} must define behind(p, q, draft, counts, taken)")

    def verify(self, session: Session, step: Step, draft: Draft) -> tuple[Tensor, Tensor]:
        """Draw what the rows take.

        One number of each row for each drafted token, then one token behind. With torch's generator and one row these are
        the draws of transformers' assisted sampling.

        Args:
            session: the session.
            step: not yet committed; `step.draft` is what of the draft was run, `[rows, k]`.
            draft: with probabilities and counts for these k tokens.

        Returns:
            Tokens `[rows, k + 1]`, long, and how many of the draft each row takes, `[rows]`, long, 0 to k. Of a row's
            tokens the first ones are the draft's, and one more counts.
        """
        tokens, q, counts = draft
        if q is None or counts is None:
            raise ValueError("verify takes a draft with probabilities and counts")
        p = step.each_scores.softmax(-1)
        numbers = session.uniform(tokens.shape[1])
        # below, not up to: a number is 0 once in 2^24 times, and a masked token is never taken
        fits = numbers < self.accept(p, q, tokens, counts)
        taken = fits.long().cumprod(1).sum(1).minimum(counts)
        last = session.multinomial(self.behind(p, q, tokens, counts, taken))
        chosen = tokens.new_zeros(tokens.shape[0], tokens.shape[1] + 1)
        chosen[:, :-1] = tokens
        return chosen.scatter(1, taken[:, None], last), taken
