"""The portable engine: transformers' own forward calls, for every architecture that it generates with.

Rows share one length until a draft is accepted unevenly. From then on each row has a cache of its own and
is run alone: slow, but the same tokens on any model whose cache can forget.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import GenmodeError, UnsupportedError
from ..hf import caches, generate
from .engine import TreeForm
from .outputs import alike, all_picked, join_outputs, last_hidden, pick_outputs

_NO_DRAFTS = "use a strategy without drafting, such as 'greedy_search' or 'sample'"
_compared_models: WeakKeyDictionary[Any, set[bool]] = WeakKeyDictionary()
"""Models whose forwards of several tokens are those of one after the other: without padding, with it."""


class PortableEngine:
    """See `genmode.engines.engine.Engine`.

    Args:
        model: any model with transformers' `generate`.
        input_ids: `[rows, length]`, long; decoder ids where there is an encoder.
        config: the generation config that `generate` prepared.
        kwargs: the model inputs that `generate` prepared.
        rewinds: whether the strategy goes back.
    """

    name = "portable"
    replays = False

    def __init__(self, model: Any, input_ids: Tensor, config: Any, kwargs: dict[str, Any], rewinds: bool) -> None:
        self.model, self.ids, self.config, self.kwargs = model, input_ids, config, dict(kwargs)
        self.outputs: Any = None
        self.length: int | None = input_ids.shape[1]
        self._alone: list[PortableEngine] = []
        self._keep = "logits_to_keep" in self.kwargs
        self._longest = max(int(config.max_length), input_ids.shape[1])
        self._unfed = 0
        self._looked = 0
        self._ways: list[list[list[int]]] = []
        self._again: Tensor | None = None
        mask = self.kwargs.get("attention_mask")
        self._padded = rewinds and isinstance(mask, Tensor) and not bool(mask.all())
        if rewinds:
            self._prepare_rewind()

    def _cache_name(self) -> str | None:
        return next((name for name in caches.CACHE_NAMES if self.kwargs.get(name) is not None), None)

    def _prepare_rewind(self) -> None:
        wrapper = getattr(vars(self.model).get("prepare_inputs_for_generation"), "__self__", self.model)
        if wrapper is not self.model:
            raise UnsupportedError(
                f"{type(wrapper).__name__} prepares what {type(self.model).__name__} reads, and may put tokens of its own "
                "in front, so rows cannot go back; use a strategy without drafting, such as 'greedy_search' or 'sample', "
                "and no processor that takes back what was decoded"
            )
        if not self.kwargs.get("use_cache", True):
            return
        name = self._cache_name()
        cache = caches.rewindable_cache(self.model, self.kwargs.get(name) if name else None)
        if cache is None or name is None:
            raise UnsupportedError(
                f"{type(self.model).__name__} cannot go back: its cache is a recurrent state, or of a kind that "
                "cannot forget tokens (a static or a passed sliding one), and this strategy drafts tokens that it may "
                "have to take back, or a processor takes back what was decoded. Leave out the cache of your own, or "
                "use a strategy without drafting, such as 'greedy_search' or 'sample', and no such processor."
            )
        self.kwargs[name] = cache

    def prefill(self) -> Tensor:
        self.outputs = generate.prefill(self.model, self.ids, self.config, self.kwargs)
        logits: Tensor = self.outputs.logits[:, -1]
        return logits

    def forward(self, tokens: Tensor) -> Tensor:
        if self._alone:
            apart = torch.cat([one._fitting(tokens[i : i + 1]) for i, one in enumerate(self._alone)])
            self.outputs = join_outputs([one.outputs for one in self._alone])
            return apart
        if tokens.shape[1] > 1:
            self._check_selects_none()
            if not self._reads_several():
                return self._compared(tokens)
        return self._forward(tokens)

    def _check_selects_none(self) -> None:
        """Refuse several tokens where each attends to keys that it selects: near ties go otherwise than one by one."""
        most = caches.selected_keys(self.model, self.cache())
        if most is not None and self._longest > most:
            raise UnsupportedError(
                f"{type(self.model).__name__} cannot verify drafts of results of {self._longest} tokens: beyond {most} "
                "each token attends to some that it selects, and a forward of several selects otherwise where scores are "
                f"close. Give max_length={most} or less, or {_NO_DRAFTS}"
            )

    def _reads_several(self) -> bool:
        """Whether forwards of several tokens are known to be those of one after the other."""
        return self._padded in _compared_models.get(self.model, ())

    def _compared(self, tokens: Tensor) -> Tensor:
        """`forward` of several tokens, once for a model both at once and one by one: drafts need the same of both.

        Raises:
            UnsupportedError: they differ, or the model cannot read several.
        """
        count, refused = tokens.shape[1], f"{type(self.model).__name__} cannot verify drafts"
        try:
            together = self._forward(tokens)
        except (GenmodeError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise UnsupportedError(f"{refused}: several tokens in a forward fail ({said}); {_NO_DRAFTS}") from error
        outputs = self.outputs
        self._drop(count)
        apart = torch.cat([self._forward(tokens[:, i : i + 1]) for i in range(count)], dim=1)
        self.outputs = outputs
        if not alike(together, apart):
            raise UnsupportedError(
                f"{refused}: a forward of {count} tokens predicts otherwise than {count} forwards of one; {_NO_DRAFTS}"
            )
        _compared_models.setdefault(self.model, set()).add(self._padded)
        return together

    def _forward(self, tokens: Tensor) -> Tensor:
        count = tokens.shape[1]
        kwargs = generate.extend_inputs(self.model, self.outputs, self.kwargs, count)
        self.ids = torch.cat([self.ids, tokens], dim=-1)
        if self._keep:
            kwargs["logits_to_keep"] = count
        cached = kwargs.get("use_cache", True)
        inputs = self.model.prepare_inputs_for_generation(
            self.ids, next_sequence_length=count if cached else None, **kwargs
        )
        call = generate.decoding_call(self.model, self.config, kwargs) if count == 1 else self.model
        self.outputs = call(**inputs, return_dict=True)
        self.kwargs = kwargs
        if self.length is not None:
            self.length += count
        logits: Tensor = self.outputs.logits[:, -count:]
        if logits.shape[1] < count:
            raise UnsupportedError(
                f"{type(self.model).__name__} reads {logits.shape[1]} of {count} tokens in a forward, as its "
                f"prepare_inputs_for_generation cuts them off, so drafts cannot be verified; {_NO_DRAFTS}"
            )
        return logits

    def _fitting(self, tokens: Tensor) -> Tensor:
        """`forward` of the tokens that the longest result has room for; a model may have no position beyond."""
        count = tokens.shape[1]
        fits = max(0, min(count, self._longest - self.ids.shape[1]))
        self._unfed += count - fits
        logits: Tensor = self.forward(tokens[:, :fits]) if fits else self.outputs.logits
        return torch.cat([logits[:, :fits], logits[:, -1:].expand(-1, count - fits, -1)], dim=1)

    def tree(self, tokens: Tensor, form: TreeForm) -> Tensor:
        """Each way from the root to a leaf is a row of its own, all in one forward."""
        rows, count = tokens.shape
        ways = tree_ways(form.parents.tolist())
        most, longest = max(len(one) for one in ways), max(len(way) for one in ways for way in one)
        fed, places = torch.zeros(rows, most, longest + 1, dtype=torch.long), torch.zeros(rows, count, dtype=torch.long)
        for row, one in enumerate(ways):
            for number, way in enumerate(one):
                fed[row, number, 1 : len(way) + 1] = torch.tensor(way) + 1
                for depth, node in enumerate(way):
                    places[row, node + 1] = number * (longest + 1) + depth + 1
        fed, places = fed.to(tokens.device), places.to(tokens.device)
        self._ways = ways
        self.select(torch.arange(rows, device=tokens.device).repeat_interleave(most), False)
        logits = self.forward(tokens[:, None].expand(-1, most, -1).gather(2, fed).flatten(0, 1))
        logits = logits.reshape(rows, most * (longest + 1), -1)
        return logits.gather(1, places[..., None].expand(-1, -1, logits.shape[2]))

    def keep(self, path: Tensor, counts: Tensor) -> None:
        ways, most = self._ways, max(len(one) for one in self._ways)
        longest = max(len(way) for one in ways for way in one)
        chosen: list[int] = []
        for row, (one, nodes, count) in enumerate(zip(ways, path.tolist(), counts.tolist(), strict=True)):
            number = next(place for place, way in enumerate(one) if way[:count] == nodes[:count])
            chosen.append(row * most + number)
        self._narrow(torch.tensor(chosen, device=path.device))
        self.rewind(longest - path.shape[1])

    def _narrow(self, rows: Tensor) -> None:
        """Rows that a forward had made more of are `rows` of them again, with what the forward said of these."""
        self.select(rows, False)
        if self._alone:
            self.outputs = join_outputs([one.outputs for one in self._alone])

    def look(self, tokens: Tensor, one_by_one: bool) -> tuple[Tensor, Tensor | None]:
        rows, count = tokens.shape
        self._looked = count
        if one_by_one and self._prompt_kept():
            parts = []
            for candidate in range(count):
                parts.append((self.forward(tokens[:, candidate : candidate + 1]), last_hidden(self.outputs)))
                self.rewind(1)
            self._again = tokens
            states = [state[:, -1:] for _, state in parts if state is not None]
            return torch.cat([logits for logits, _ in parts], 1), torch.cat(states, 1) if states else None
        self._again = None
        self.select(torch.arange(rows, device=tokens.device).repeat_interleave(count), False)
        logits = self.forward(tokens.reshape(-1, 1))
        hidden = last_hidden(self.outputs)
        # without a cache a forward returns states of the whole text
        return logits.view(rows, count, -1), None if hidden is None else hidden[:, -1].reshape(rows, count, -1)

    def probe(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._alone:
            parts = [one.probe(tokens[row : row + 1]) for row, one in enumerate(self._alone)]
            states = [hidden for _, hidden in parts if hidden is not None]
            return torch.cat([logits for logits, _ in parts]), torch.cat(states) if states else None
        kept, count = dict(self.__dict__), tokens.shape[1]
        if not self.kwargs.get("use_cache", True) or self._prompt_kept():
            logits, hidden = self.forward(tokens), last_hidden(self.outputs)
            self.rewind(count)
            self.outputs = kept["outputs"]
        else:  # a state that cannot go back: a copy of it goes on
            self.outputs, self.kwargs = copy.deepcopy((self.outputs, self.kwargs))
            parts = []
            for token in tokens.split(1, dim=1):
                parts.append((self._forward(token), last_hidden(self.outputs)))
            states = [hidden[:, -1:] for _, hidden in parts if hidden is not None]
            logits, hidden = torch.cat([one for one, _ in parts], 1), torch.cat(states, 1) if states else None
            self.__dict__.update(kept)
        return logits, None if hidden is None else hidden[:, -count:]

    def refeed(self, tokens: Tensor) -> None:
        for row, one in enumerate(self._alone):
            one.refeed(tokens[row : row + 1])
        if not self._alone:
            outputs = self.outputs
            self._forward(tokens)
            self.outputs = outputs

    def _prompt_kept(self) -> bool:
        """Whether the cache can forget a token, so that candidates may be run one after the other."""
        name = self._cache_name()
        return name is not None and caches.rewindable_cache(self.model, self.cache()) is self.cache()

    def take(self, chosen: Tensor) -> None:
        if self._again is not None:
            self.forward(self._again.gather(1, chosen[:, None]))
            return
        self._narrow(torch.arange(chosen.shape[0], device=chosen.device) * self._looked + chosen)

    def rewind(self, counts: Tensor | int) -> None:
        if self._alone:
            numbers = [counts] * len(self._alone) if isinstance(counts, int) else counts.tolist()
            for one, number in zip(self._alone, numbers, strict=True):
                one._drop(max(0, number - one._unfed))
                one._unfed = max(0, one._unfed - number)  # a model beside the first may be ahead of its longest row
            return
        numbers = [counts] if isinstance(counts, int) else counts.tolist()
        if len(set(numbers)) == 1:
            self._drop(numbers[0])
            return
        self._alone = [self._row(i) for i in range(self.ids.shape[0])]
        self.length = None
        self.rewind(torch.tensor(numbers))

    def _drop(self, count: int) -> None:
        if count == 0:
            return
        self.ids = self.ids[:, :-count]
        if self.length is not None:
            self.length -= count
        for key in ("attention_mask", "decoder_attention_mask", "position_ids", "decoder_position_ids",
                    "token_type_ids", "mm_token_type_ids"):  # fmt: skip
            value = self.kwargs.get(key)
            if isinstance(value, Tensor) and not (key == "attention_mask" and self.model.config.is_encoder_decoder):
                self.kwargs[key] = value[..., :-count]
                if (
                    key.endswith("position_ids") and value.shape[-1] == count
                ):  # nothing that the next could be told from
                    del self.kwargs[key]
        name = self._cache_name()
        if name is not None:
            caches.rewind_cache(self.kwargs[name], count)

    def _row(self, row: int) -> PortableEngine:
        one = object.__new__(PortableEngine)
        one.__dict__.update(self.__dict__)
        index = torch.tensor([row], device=self.ids.device)
        one._alone, one.ids, one.kwargs = [], self.ids[row : row + 1], self._selected(index)
        one.outputs = pick_outputs(self.outputs, index)  # the next inputs may be made of what the last forward returned
        name = self._cache_name()
        if name is not None:
            one.kwargs[name] = one.outputs[name] = caches.split_cache(self.kwargs[name], row)
        return one

    def _selected(self, rows: Tensor) -> dict[str, Any]:
        """The keyword arguments with row i continuing `rows[i]`; the cache is left to the caller."""
        return all_picked(self.kwargs, rows, self.ids.shape[0])

    def select(self, rows: Tensor, within: bool) -> None:
        if self._alone:
            self._alone = [self._alone[i]._row(0) for i in rows.tolist()]
            return
        if not within:
            self.kwargs = self._selected(rows)
            self.outputs = None if self.outputs is None else pick_outputs(self.outputs, rows)
        self.ids = self.ids.index_select(0, rows)
        cache, name, returned = self.cache(), self._cache_name(), self._returned_name()
        if cache is not None:
            cache = caches.reorder_cache(self.model, cache, rows)
            if name is not None:
                self.kwargs[name] = cache
            if returned is not None:
                self.outputs[returned] = cache

    def settle(self, length: int) -> None:
        if not self._alone:
            self.length = length

    def limit(self, length: int) -> None:
        """The portable engine needs no bound."""

    def hide(self, hidden: Tensor) -> None:
        """Masks are the model's own business here, and stay as they are."""

    def replay(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def next_logits(self, logits: Tensor) -> Tensor:
        return logits[:, 0]

    def in_float32(self, logits: Tensor) -> Tensor:
        return logits.to(torch.float32)

    def free(self) -> None:
        """Nothing is kept."""

    def cache(self) -> Any:
        if self._alone:
            return None
        returned, name = self._returned_name(), self._cache_name()
        if returned is not None:
            return self.outputs[returned]
        return self.kwargs.get(name) if name else None

    def _returned_name(self) -> str | None:
        """Under which name the last forward returned the cache; not always that under which the next one takes it."""
        return next((one for one in caches.CACHE_NAMES if (self.outputs or {}).get(one) is not None), None)

    def close(self) -> None:
        self._alone = []


def tree_ways(parents: list[list[int]]) -> list[list[list[int]]]:
    """Of each row the ways from its last token to the leaves of its tree, as nodes; `parents` has -1 for that token."""
    rows: list[list[list[int]]] = []
    for own in parents:
        leaves = set(range(len(own))) - set(own)
        ways: list[list[int]] = []
        for leaf in sorted(leaves):
            way = [leaf]
            while own[way[0]] >= 0:
                way.insert(0, own[way[0]])
            ways.append(way)
        rows.append(ways)
    return rows
