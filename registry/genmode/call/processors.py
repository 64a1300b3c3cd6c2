"""The processors of a call, in order: transformers' own or their equals, those of keys, and the caller's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

from ..contract import LogitsProcessor, Watermarker
from ..contract.component import shown
from ..contract.kinds import Kind
from ..errors import ParameterError
from ..plugins.adoption import Adopters, adopted, adopters_of
from ..plugins.call_keys import OWN_ARGUMENTS
from ..plugins.parameters import build_params, named_components, select
from ..session.links import Link, TransformersProcessor, link, ordered
from ..watermark.config import WatermarkingConfig
from .request import Request

OWN_RANK = 1000
"""Rank of processors that transformers does not build: behind those of the same stage that it does."""


def build_links(request: Request, prepared: Sequence[Any]) -> list[Link]:
    """The processors of the call in order: transformers', those that keys switch on, and the caller's."""
    adopters = adopters_of(request.registry, Kind.PROCESSORS, Kind.WATERMARKERS)
    links: list[Link] = []
    for rank, processor in enumerate(prepared):
        origin = "transformers" if type(processor).__module__.startswith("transformers.") else "the caller"
        links.append(link(native(processor, adopters, request.tokenizer), rank, origin))
    for cls in switched_on(request):
        made = as_processor(request, cls)
        # A key of ours beside one of transformers, such as penalty_scope: one processor reads both.
        twin = next((one for one in links if one.name == made.name), None)
        if twin is not None:
            links.remove(twin)
        links.append(link(made, OWN_RANK if twin is None else twin.rank, _origin(request, cls)))
    for hook in ("genmode_processors", "genmode_watermarkers"):
        for contributed, origin in request.registry.hooks().contributions(hook, request):
            links.append(link(as_processor(request, contributed), OWN_RANK, origin))
    for given in request.processors:
        made = as_processor(request, given)
        if isinstance(made, TransformersProcessor):
            made = native(made.call, adopters, request.tokenizer)
        mine = link(made, OWN_RANK, "the caller")
        twins = [one for one in links if _same(one, mine)]
        rank = twins[0].rank if twins else OWN_RANK
        links = [one for one in links if one not in twins]
        links.append(Link(mine.name, mine.stage, rank, mine.processor, mine.origin))
    return ordered(links)


def _same(one: Link, other: Link) -> bool:
    mine, theirs = one.processor, other.processor
    if isinstance(mine, TransformersProcessor) and isinstance(theirs, TransformersProcessor):
        return type(mine.call) is type(theirs.call) and not inspect.isroutine(mine.call)
    return one.name == other.name


def _origin(request: Request, cls: type) -> str:
    info = request.registry.provider(cls)
    return f"{info.distribution} {info.version}".strip() if info is not None else "this program"


def native(processor: Any, adopters: Adopters, tokenizer: Any) -> LogitsProcessor:
    """What stands in for a transformers processor, or that one as it is."""
    return adopted(processor, adopters, tokenizer) or TransformersProcessor(processor)


def switched_on(request: Request) -> list[type[LogitsProcessor]]:
    """Processors that a key of the call or of a config switches on; a watermarker acts only where it is named."""
    chosen: dict[type[LogitsProcessor], None] = {}
    for key in request.plugin_values:
        for info in request.registry.owners(key, request.named):
            cls = request.registry.get(info.kind, info.name)
            if issubclass(cls, LogitsProcessor) and not issubclass(cls, Watermarker):
                chosen[cls] = None
    return list(chosen)


def as_processor(request: Request, given: Any) -> LogitsProcessor:
    """What the caller means by a name, class, object, watermarking config or plain callable."""
    if isinstance(given, str):
        given = request.registry.get(*named_components({"processors": given}, request.registry)[0])
    if isinstance(given, type) and issubclass(given, LogitsProcessor):
        arguments = {key: request.call[key] for key in OWN_ARGUMENTS if key in request.call}
        values = select(given, request.flags, request.plugin_values, arguments)
        return given(build_params(given, values, request.registry.origin(given)))
    if isinstance(given, LogitsProcessor):
        return given
    if isinstance(given, WatermarkingConfig):
        return as_processor(request, given.build())
    if callable(given):
        return TransformersProcessor(cast("Callable[..., Any]", given))
    raise ParameterError(
        f"{shown('processors', given)!r} is no processor; give the name of one, a LogitsProcessor, or a callable "
        "(input_ids, scores) -> scores"
    )
