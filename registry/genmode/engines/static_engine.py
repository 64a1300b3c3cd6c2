"""The static engine: rows of their own lengths in one preallocated cache.

Used for decoder-only models that read positions from `position_ids` and visibility from the mask
(`genmode.hf.caches.static_cache_obstacle` says which). While all rows share a length, forwards are the model's own with
a contiguous write. Once rows differ, each new token goes to its row's slot and a 4D mask hides the rest:
`key slot <= query slot`, and neither left padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedError
from ..hf import attention, generate
from .engine import TreeForm
from .outputs import last_hidden, pick_outputs
from .static_cache import StaticRowCache

PLAIN_INPUTS = frozenset(
    {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep",
     "output_attentions", "output_hidden_states"}
)  # fmt: skip
"""Model inputs that the static engine knows how to continue; any other makes the call portable."""

BEYOND = 64
"""So many tokens behind the longest result have positions of their own, for probes."""


class StaticEngine:
    """See `genmode.engines.engine.Engine`.

    Args:
        model: a model without a `static_cache_obstacle`.
        input_ids: `[rows, length]`, long.
        config: the generation config that `generate` prepared.
        kwargs: the model inputs that `generate` prepared, of `PLAIN_INPUTS` only.
        copies: how many neighbouring rows share one prompt; it is run once for them.
        capacity: tokens a row to make room for at once; more is made when needed.
    """

    name = "static"
    replays = False

    def __init__(
        self, model: Any, input_ids: Tensor, config: Any, kwargs: dict[str, Any], copies: int, capacity: int
    ) -> None:
        self.model, self.ids, self.config, self.kwargs = model, input_ids, config, dict(kwargs)
        self.rows, self.prompt = input_ids.shape
        self.outputs: Any = None
        self.length: int | None = self.prompt
        self.bound = self.prompt
        self.last = last_position(model, max(int(config.max_length), self.prompt))
        """Slots behind this one, which only drafts and probes reach, take its position."""
        self.copies = copies
        self.eager = attention.attention_name(model) == "eager"
        layers = model.config.get_text_config(decoder=True).num_hidden_layers
        self.static_cache = self._make_cache(layers, max(capacity, self.prompt + 1))
        self.extra = {k: v for k, v in self.kwargs.items() if k.startswith("output_")}
        self._nodes = 0
        """Of the last tree."""
        self._set_layout()

    def _make_cache(self, layers: int, capacity: int) -> StaticRowCache:
        return StaticRowCache(layers, self.rows, capacity)

    def _set_layout(self) -> None:
        """Derive what is visible, `[rows, capacity]`, and the position of each slot, from the prompt's mask."""
        device = self.ids.device
        mask, positions = self.kwargs.get("attention_mask"), self.kwargs.get("position_ids")
        columns = torch.arange(self.static_cache.capacity, device=device)
        self.columns = columns
        self.padded = mask is not None and not bool(mask.all())
        self.visible: Tensor | None = None
        if self.padded and mask is not None:
            self.visible = torch.ones(self.rows, self.static_cache.capacity, dtype=torch.bool, device=device)
            self.visible[:, : self.prompt] = mask.bool()
        shift = torch.zeros(1, dtype=torch.long, device=device)
        if positions is not None:
            shift = positions[:, -1] - (self.prompt - 1)
            if not self.padded and bool((shift == shift[0]).all()):
                shift = shift[:1]
        self.shift = shift
        self.positions = columns.clamp(max=self.last) + shift[:, None]  # [rows or 1, capacity]
        self.lengths: Tensor | None = None
        self._ahead: Tensor | None = None
        """What candidates see, `[candidates, capacity]`; its end serves any length."""

    def prefill(self) -> Tensor:
        kwargs, ids = dict(self.kwargs), self.ids
        kwargs["past_key_values"] = self.static_cache
        dedupe = self.copies > 1 and not self.extra
        if dedupe:
            ids = ids[:: self.copies]
            for key in ("attention_mask", "position_ids"):
                if isinstance(kwargs.get(key), Tensor) and kwargs[key].shape[0] == self.rows:
                    kwargs[key] = kwargs[key][:: self.copies]
        self.static_cache.put(0, None)
        self.static_cache.stride = self.copies if dedupe else 1
        self.outputs = generate.prefill(self.model, ids, self.config, kwargs)
        logits: Tensor = self.outputs.logits[:, -1]
        if dedupe:
            self.static_cache.stride = 1
            self.static_cache.spread(self.copies, self.prompt)
            logits = logits.repeat_interleave(self.copies, dim=0)
        return logits

    def _grow(self, bound: int) -> None:
        self.static_cache.grow(bound)
        if len(self.columns) >= self.static_cache.capacity:
            return
        extra = self.static_cache.capacity - self.columns.shape[0]
        self.columns = torch.arange(self.static_cache.capacity, device=self.ids.device)
        self.positions = self.columns.clamp(max=self.last) + self.shift[:, None]
        if self.visible is not None:
            self.visible = torch.cat([self.visible, self.visible.new_ones(self.rows, extra)], dim=1)

    def forward(self, tokens: Tensor) -> Tensor:
        count = tokens.shape[1]
        self._grow(self.bound + count)
        mask: Tensor | None
        if self.length is None:
            positions, mask = self._ragged(count)
        else:
            start, end = self.length, self.length + count
            self.static_cache.open(start, count)
            positions = self.positions.narrow(1, start, count)
            mask = self._contiguous_mask(start, end)
            self.length = self.bound = end
        self.outputs = self._call(tokens, positions, mask)
        if self.length is None:
            self._lengthen(count)
        logits: Tensor = self.outputs.logits
        return logits

    def tree(self, tokens: Tensor, form: TreeForm) -> Tensor:
        count, seen, ahead = tokens.shape[1], form.seen(), form.ahead()
        self._nodes = count - 1
        self._grow(self.bound + count)
        lengths = self._begins()
        if self.length is None:
            self._ragged(count)  # where they are written
        else:
            self.static_cache.open(self.length, count)
        mask = tree_mask(self.columns[: self.bound + count], lengths, seen)
        if self.visible is not None:
            mask = mask & self.visible[:, None, : self.bound + count]
        positions = (lengths[:, None] + ahead).clamp(max=self.last) + self.shift[:, None]
        self.outputs = self._call(tokens, positions, self._mask(mask[:, None]))
        self._lengthen(count)
        logits: Tensor = self.outputs.logits
        return logits

    def keep(self, path: Tensor, counts: Tensor) -> None:
        nodes = self._nodes
        begin = self._begins() - nodes  # the slot of the first node
        self.static_cache.gather(begin[:, None] + path, begin if self.length is None else self.length - nodes)
        if self._recorded:
            self.outputs = path_outputs(self.outputs, path)
        self.rewind(nodes - path.shape[1])

    def _begins(self) -> Tensor:
        """How many tokens each row has: `[rows]`, long."""
        if self.length is None:
            return self._row_lengths()
        return torch.full((self.rows,), self.length, device=self.ids.device)

    def _contiguous_mask(self, start: int, end: int) -> Tensor | None:
        """None where the model's own causal mask says all there is to say."""
        if self.visible is None:
            return None
        mask = self.visible[:, None, None, :end]
        if end - start > 1:
            mask = mask & (self.columns[:end] <= self.columns[start:end, None])
        return self._mask(mask)

    def _ragged(self, count: int) -> tuple[Tensor, Tensor]:
        """Positions `[rows, count]` and mask `[rows, 1, count, limit]` of rows that differ in length."""
        slots = self._row_lengths()[:, None] + self.columns[:count]
        limit = self.bound + count
        mask = self.columns[:limit] <= slots[:, None, :, None]
        if self.visible is not None:
            mask = mask & self.visible[:, None, None, :limit]
        self.static_cache.put(self.static_cache.start, slots)
        self.static_cache.limit = limit
        self.static_cache.row_index = torch.arange(self.rows, device=slots.device)[:, None]
        return slots.clamp(max=self.last) + self.shift[:, None], self._mask(mask)

    def _mask(self, mask: Tensor) -> Tensor:
        """Boolean for scaled dot-product attention, additive for eager attention."""
        if not self.eager:
            return mask
        lowest = torch.finfo(self.model.dtype).min
        return torch.zeros((), dtype=self.model.dtype, device=mask.device).masked_fill(~mask, lowest)

    def look(self, tokens: Tensor, one_by_one: bool) -> tuple[Tensor, Tensor | None]:
        """The candidates are tokens of one row at one position, each hidden from the others."""
        count = tokens.shape[1]
        self._grow(self.bound + count)
        if self.length is None:
            return self._look_unevenly(tokens)
        start = self.length
        apart = self._apart(start, count)
        parts = []
        one_by_one = one_by_one and not self._recorded  # what is recorded of a candidate is read off one forward
        for first, last in [(i, i + 1) for i in range(count)] if one_by_one else [(0, count)]:
            self.static_cache.open(start + first, last - first)
            mask = apart[first:last, : start + last]
            if self.visible is not None:
                mask = mask & self.visible[:, None, None, : start + last]
            self.outputs = self._call(
                tokens[:, first:last], self.positions[:, start : start + 1].expand(-1, last - first),
                self._mask(mask.view(-1, 1, *mask.shape[-2:])),
            )  # fmt: skip
            parts.append((self.outputs.logits, last_hidden(self.outputs)))
        if len(parts) == 1:
            return parts[0]
        states = [state for _, state in parts if state is not None]
        return torch.cat([logits for logits, _ in parts], 1), torch.cat(states, 1) if states else None

    def probe(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        outputs, bound = self.outputs, self.bound
        logits, hidden = self.forward(tokens), last_hidden(self.outputs)
        self.rewind(tokens.shape[1])
        self.outputs, self.bound = outputs, bound
        return logits, hidden

    def refeed(self, tokens: Tensor) -> None:
        outputs = self.outputs
        self.forward(tokens)
        self.outputs = outputs

    def _look_unevenly(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same where rows differ in length, in one forward."""
        count = tokens.shape[1]
        positions, _ = self._ragged(count)  # where the candidates are written
        lengths, limit = self._row_lengths()[:, None, None, None], self.bound + count
        slots = lengths + self.columns[:count, None]
        seen = (self.columns[:limit] < lengths) | (self.columns[:limit] == slots)
        if self.visible is not None:
            seen = seen & self.visible[:, None, None, :limit]
        self.outputs = self._call(tokens, positions[:, :1].expand(-1, count), self._mask(seen))
        return self.outputs.logits, last_hidden(self.outputs)

    def _row_lengths(self) -> Tensor:
        """How many tokens each row has, `[rows]`, long, where rows differ."""
        if self.lengths is None:
            raise RuntimeError("rows of their own lengths are not set up")
        return self.lengths

    def _lengthen(self, count: int) -> None:
        """Rows have `count` tokens more."""
        if self.length is not None:
            self.length += count
        elif self.lengths is not None:
            self.lengths = self.lengths + count
        self.bound += count

    def _apart(self, start: int, count: int) -> Tensor:
        """What `count` candidates behind `start` tokens see, the text and themselves: `[count, start + count]`, bool."""
        ahead = self._ahead
        if ahead is None or ahead.shape[0] != count or ahead.shape[1] < start + count:
            ahead = torch.ones(count, self.static_cache.capacity, dtype=torch.bool, device=self.ids.device)
            ahead[:, -count:] = torch.eye(count, dtype=torch.bool, device=self.ids.device)
            self._ahead = ahead
        return ahead[:, ahead.shape[1] - start - count :]

    def take(self, chosen: Tensor) -> None:
        if self.length is None:
            if self._recorded:
                raise UnsupportedError(
                    "hidden states and attentions of candidates are recorded where rows have one length, and these differ; "
                    "leave out output_hidden_states and output_attentions"
                )
            lengths = self._row_lengths()
            self.static_cache.move(lengths + chosen, lengths)
            self._lengthen(1)
            return
        self.static_cache.move(self.length + chosen, self.length)
        if self._recorded:
            self.outputs = chosen_outputs(self.outputs, self.length, chosen)
        self.length += 1
        self.bound = self.length

    @property
    def _recorded(self) -> bool:
        """Whether the call returns hidden states or attentions."""
        config = self.config
        return bool(config.return_dict_in_generate and (config.output_hidden_states or config.output_attentions))

    def _call(self, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Any:
        return self.model(
            input_ids=tokens, position_ids=positions, attention_mask=mask, past_key_values=self.static_cache,
            use_cache=True, logits_to_keep=tokens.shape[1], **self.extra,
        )  # fmt: skip

    def rewind(self, counts: Tensor | int) -> None:
        if self.length is not None and isinstance(counts, int):
            self.length -= counts
            self.bound = self.length
            return
        if self.lengths is None:
            self.lengths = torch.full((self.rows,), self.length or 0, device=self.ids.device)
        self.length = None
        self.lengths = self.lengths - counts

    def settle(self, length: int) -> None:
        self.length = self.bound = length
        self.lengths = None

    def limit(self, length: int) -> None:
        self.bound = min(self.bound, length)

    def select(self, rows: Tensor, within: bool) -> None:
        if within:  # the prompt, its padding and its positions are the same for all rows of an input
            self.static_cache.select(rows, self.prompt, self.bound)
        else:
            self.static_cache.select(rows, 0, self.bound)
            self._select_layout(rows)
        if self.lengths is not None:
            self.lengths = self.lengths.index_select(0, rows)

    def _select_layout(self, rows: Tensor) -> None:
        """What belongs to the rows' prompts follows them, and what the last forward said; `rows` is `[new rows]`, long."""
        self.copies = self.copies if rows.shape[0] == self.rows else 1
        self.rows = rows.shape[0]
        if self.extra and self.outputs is not None:
            self.outputs = pick_outputs(self.outputs, rows)
        if self.visible is not None:
            self.visible = self.visible.index_select(0, rows)
        if self.shift.shape[0] > 1:
            self.shift = self.shift.index_select(0, rows)
            self.positions = self.columns.clamp(max=self.last) + self.shift[:, None]

    def hide(self, hidden: Tensor) -> None:
        if self.visible is None:
            self.visible = torch.ones(self.rows, self.static_cache.capacity, dtype=torch.bool, device=self.ids.device)
        self._grow(hidden.shape[1])
        self.visible[:, self.prompt : hidden.shape[1]] = ~hidden[:, self.prompt :]
        self.visible[:, hidden.shape[1] :] = True

    def replay(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def next_logits(self, logits: Tensor) -> Tensor:
        return logits[:, 0]

    def in_float32(self, logits: Tensor) -> Tensor:
        return logits.to(torch.float32)

    def free(self) -> None:
        """Nothing is kept."""

    def cache(self) -> Any:
        return None if self.length is None else self.static_cache.export(self.length)

    def close(self) -> None:
        self.outputs = None


def tree_mask(columns: Tensor, lengths: Tensor, seen: Tensor) -> Tensor:
    """What the tokens of a tree see: the text, and of each other what `seen` says; `[rows, count, columns]`, bool.

    Args:
        columns: `[columns]`, long: the slots.
        lengths: `[rows]`, long: tokens before the tree, whose slots come behind them.
        seen: `[rows, count, count]`, bool.
    """
    count = seen.shape[1]
    places = columns - lengths[:, None]  # [rows, columns]
    inside = ((places >= 0) & (places < count))[:, None]
    among = seen.gather(2, places.clamp(0, count - 1)[:, None].expand(-1, count, -1))
    return (places < 0)[:, None] | (inside & among)


def path_outputs(outputs: Any, path: Tensor) -> Any:
    """Hidden states of a tree's root and of the nodes on `path` `[rows, m]`, as if they were a chain.

    Raises:
        UnsupportedError: there are attentions, whose columns are the whole tree's.
    """
    if outputs.get("attentions") is not None:
        raise UnsupportedError(
            "attentions are not recorded under drafts that are trees; leave out output_attentions, or draft chains"
        )
    places = torch.cat([path.new_zeros(len(path), 1), path + 1], dim=1)
    states = tuple(one.gather(1, places[..., None].expand(-1, -1, one.shape[2])) for one in outputs["hidden_states"])
    return {**outputs, "hidden_states": states, "logits": outputs["logits"][:, : places.shape[1]]}


def last_position(model: Any, longest: int) -> int:
    """The last position that a forward may use, where rows get `longest` tokens long; a model may have none beyond."""
    known = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return longest - 1 if known is None else max(longest, min(longest + BEYOND, known)) - 1


def chosen_outputs(outputs: Any, start: int, chosen: Tensor) -> dict[str, Any]:
    """Hidden states and attentions of a look's chosen candidates, as if each had been the only one.

    Args:
        start: tokens before the candidates.
        chosen: `[rows]`, long.
    """
    rows = torch.arange(chosen.shape[0], device=chosen.device)
    picked: dict[str, Any] = {}
    if outputs.get("hidden_states") is not None:
        picked["hidden_states"] = tuple(one[rows, chosen][:, None] for one in outputs["hidden_states"])
    if outputs.get("attentions") is not None:
        text = torch.arange(start, device=chosen.device).expand(len(chosen), -1)
        columns = torch.cat([text, start + chosen[:, None]], dim=1)  # what the candidate sees: the text and itself
        picked["attentions"] = tuple(
            one[rows, :, chosen].gather(2, columns[:, None].expand(-1, one.shape[1], -1))[:, :, None]
            for one in outputs["attentions"]
        )
    return picked
