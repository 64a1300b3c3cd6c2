"""What drafts in a call, and how its drafts are verified.

A drafter is the one that the call or a config names (`draft=`), else the strategy's own (`Strategy.drafts`), else that of
genmode's own whose flags are set (`Drafter.asked_for`). A verification is the one that is named (`verify=`), else

- none where rows take the most probable token: a draft is taken as far as it is that token, whatever is named;
- "coupling" under `seed=`, where a row's result then does not depend on drafts, and for drafters that do not say what
  they drew from;
- "rejection" for those that do. With these two, the draws of one row are those of transformers' assisted sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..contract import Component, Drafter, Strategy, Trait, Verification
from ..contract.component import shown
from ..contract.kinds import Kind
from ..errors import ParameterError
from ..plugins.parameters import build_params, select
from ..plugins.registry import Registry

COUPLING, REJECTION = "coupling", "rejection"


@dataclass
class Drafting:
    """What a call drafts with; nothing where its strategy does not draft."""

    drafter: Drafter | None = None
    verification: Verification | None = None
    """None where rows take the most probable token."""
    named: Verification | None = None
    """The one that the call names, in force or not."""

    @property
    def told(self) -> str:
        """How drafts are verified, in words; empty where there are none."""
        if self.drafter is None:
            return ""
        return "the most probable token" if self.verification is None else repr(self.verification)

    def notes(self) -> Iterator[str]:
        """What a verification changes, or does not act on."""
        one, named = self.verification, self.named
        if one is not None and Trait.KEEPS_DISTRIBUTION not in one.traits:
            yield f"verification {one.name!r} changes what text is distributed as: it is not that of sampling without drafts"
        if one is None and named is not None:
            yield f"verification {named.name!r} has nothing to decide where rows take the most probable token"


def resolve_drafting(
    strategy: type[Strategy], params: Any, call: Mapping[str, Any], seed: Any, host: Registry
) -> Drafting:  # fmt: skip
    """The drafter and the verification of a call, their parameters checked.

    Args:
        strategy: the call's.
        params: its parameters, which a drafter has too.
        call: the flags in force, with `draft` and `verify` as the call or a config has them, and its models.
        seed: as the call gives it.
        host: whose components there are.

    Raises:
        ParameterError: what is named is no drafter or verification, the strategy takes none, or nothing says what drafts.
        UnknownComponentError: no installed plugin provides the name.
    """
    draft, verify = call.get("draft"), call.get("verify")
    if strategy.drafts is None:
        if draft is not None or verify is not None:
            key, value = (Kind.DRAFTERS.argument, draft) if draft is not None else (Kind.VERIFICATIONS.argument, verify)
            raise ParameterError(
                f"{key}={_told(key, value)} is about drafts, and strategy {strategy.name!r} verifies none; name a drafter "
                "with draft= and leave strategy out, or leave it out here"
            )
        return Drafting()
    own = {key: getattr(params, key) for key in params.model_fields_set}
    values = (call, own)
    if draft is None:
        draft = strategy.drafts or _asked_for(strategy, call, host)
    drafter: Any = _made(Kind.DRAFTERS, draft, values, host)
    drafter.validate(drafter.params, call)
    named: Any = None if verify is None else _made(Kind.VERIFICATIONS, verify, values, host)
    if not getattr(params, "do_sample", call["do_sample"]):
        return Drafting(drafter, None, named)
    chosen: Any = named
    if chosen is None:
        rejects = seed is None and Trait.PROBABILITIES in drafter.traits
        chosen = _made(Kind.VERIFICATIONS, REJECTION if rejects else COUPLING, values, host)
    return Drafting(drafter, chosen, named)


def _asked_for(strategy: type[Strategy], call: Mapping[str, Any], host: Registry) -> type[Component]:
    """The drafter of genmode's own whose flags are set."""
    drafters: list[Any] = list(host.own(Kind.DRAFTERS))
    found = [cls for cls in drafters if cls.asked_for(call)]
    if len(found) != 1:
        names = " and ".join(repr(cls.name) for cls in found)
        why = f"flags ask for {names}" if found else "nothing says what drafts"
        raise ParameterError(f"strategy {strategy.name!r}: {why}; name one drafter with draft=")
    one: type[Component] = found[0]
    return one


def _made(kind: Kind, given: Any, values: tuple[Mapping[str, Any], ...], host: Registry) -> Component:
    """The component that a name, class or object stands for."""
    base = Drafter if kind is Kind.DRAFTERS else Verification
    if isinstance(given, base):
        return given
    cls: type[Component] | None = host.get(kind.value, given) if isinstance(given, str) else None
    if isinstance(given, type) and issubclass(given, base):
        cls = given
    if cls is None:
        raise ParameterError(
            f"{kind.argument}={_told(kind.argument, given)}: give a name, a {base.__name__} class or a {base.__name__} object"
        )
    return cls(build_params(cls, select(cls, *values), host.origin(cls)))


def _told(key: str, value: Any) -> str:
    if isinstance(value, Component):
        return repr(value.name)
    return repr(value.name if isinstance(value, type) and issubclass(value, Component) else shown(key, value))
