"""A drafter for genmode: what most often followed the last token, in the row so far.

    d_1 = argmax_v count(y_last v in y),  d_i+1 = argmax_v count(d_i v in y)

Of equals the lowest token. A draft ends where a token was never followed by any. It follows from the text, so it has no
probabilities; processors are not asked.
"""

from __future__ import annotations

import torch
from pydantic import Field

import genmode


class Follower(genmode.Drafter):
    """Drafts the most frequent follower of the last token seen. Shapes: drafts `[rows, follower_tokens]`."""

    contract_version = 1
    name = "follower"

    class Params(genmode.Params):
        """Parameters of the follower."""

        follower_tokens: int = Field(4, ge=1, description="tokens drafted for each forward, at most")

    def draft(self, session: genmode.Session) -> genmode.Draft | None:
        count = min(self.params.follower_tokens, session.draft_room)
        if count < 1:
            return None
        history = session.history
        tokens, inside = history.tokens, history.inside
        pairs = inside[:, :-1] & inside[:, 1:]  # [rows, width - 1]: columns whose token and follower are text
        last = history.tail(1)  # [rows, 1]
        known = torch.zeros(len(last), dtype=torch.long, device=last.device)
        going = torch.ones_like(known, dtype=torch.bool)
        drafted: list[torch.Tensor] = []
        for _ in range(count):
            here = (tokens[:, :-1] == last) & pairs
            seen = torch.zeros(len(last), session.vocab_size, device=last.device)
            # beyond a row's end a column may hold anything; it is counted 0 times
            followers = tokens[:, 1:].clamp(0, session.vocab_size - 1)
            seen.scatter_add_(1, followers, here.to(seen.dtype))
            most, best = seen.max(1)
            going = going & (most > 0)
            known = known + going
            last = best[:, None]
            drafted.append(best)
        return genmode.Draft(torch.stack(drafted, dim=1), counts=known)


__all__ = ["Follower"]
