"""What is checked: a component, the parameters with which it acts, and what its calls need besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from ...contract import Component, Kind
from ...errors import ParameterError
from ...plugins.loading import kind_of
from ...plugins.registry import registry, use
from ...plugins.settings import hint
from .host import shared_host

if TYPE_CHECKING:
    from torch import Tensor

Given = Mapping[str, Any]


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Case:
    """A component as the checks run it.

    Args:
        component: its class.
        params: parameters with which it acts, by name. By default the first of the `examples` of each field
            of its `Params` that states any.
        call: further arguments of `genmode.generate`, such as `num_beams`; or a function that gives them for
            a family of models.
        skip: names of checks that the component rightly cannot meet, each with the reason. What the class
            itself states as `skip_checks` joins them.
        model: gives the model of a family; `genmode.testing.harness.models.tiny` unless another is needed.
        encoder: whether it works only beside an encoder.
        label: its name in reports; by default the component's.
    """

    component: type[Component]
    params: Given = field(default_factory=_nothing)
    call: Given | Callable[[str], Given] = field(default_factory=_nothing)
    skip: Mapping[str, str] = field(default_factory=dict[str, str])
    model: Callable[[str], Any] | None = None
    encoder: bool = False
    label: str = ""

    @property
    def kind(self) -> Kind:
        """The kind of the component."""
        return cast("Kind", kind_of(self.component))

    @property
    def title(self) -> str:
        """The name in reports."""
        return self.label or self.component.name

    @property
    def family(self) -> str:
        """The family of models that most checks run on."""
        return "t5" if self.encoder else "llama"

    @property
    def reasons(self) -> dict[str, str]:
        """Checks to skip, each with the reason."""
        return {**self.component.skip_checks, **self.skip}

    @property
    def values(self) -> dict[str, Any]:
        """The parameters with which the component acts."""
        fields = self.component.Params.model_fields.items()
        return {**{name: one.examples[0] for name, one in fields if one.examples}, **self.params}

    @property
    def argument(self) -> str:
        """The argument of `genmode.generate` that takes the component."""
        return self.kind.argument

    def make(self) -> Any:
        """A fresh object of the component."""
        return self.component(**self.values)

    def tiny(self, family: str = "") -> Any:
        """The model of a family."""
        from . import models

        return (self.model or models.tiny)(family or self.family)

    def fresh(self) -> Any:
        """A model of the family that is this check's own."""
        from . import models

        return (self.model or models.fresh)(self.family)

    def inputs(self, rows: int = 3, length: int = 9, family: str = "") -> dict[str, Tensor]:
        """Prompts of different lengths, padded."""
        from . import models

        return models.prompt(family or self.family, rows, length)

    def generate(self, inputs: Given | None = None, family: str = "", **flags: Any) -> Any:
        """Decode with the component, on a host that sees no plugin of the environment.

        Args:
            inputs: model inputs; three prompts if not given.
            family: of the model.
            flags: further arguments of `genmode.generate`; they win over the case's own.
        """
        return self.run("generate", inputs, family, **flags)

    def explain(self, **flags: Any) -> Any:
        """The plan of such a call."""
        return self.run("explain", None, "", **flags)

    def run(self, function: str, inputs: Given | None, family: str, **flags: Any) -> Any:
        """Call `genmode.generate` or `genmode.explain` with the component."""
        from ... import api
        from . import models

        family = family or self.family
        call: dict[str, Any] = {"max_new_tokens": 8, **self._way(), **self.further(family), **flags}
        call.setdefault("tokenizer", models.tokenizer())
        call = {key: value for key, value in call.items() if value is not None}
        model = call.pop("model", None) or self.tiny(family)
        inputs = self.inputs(family=family) if inputs is None else inputs
        component: Any = self.component
        with use(shared_host(component)):
            return getattr(api, function)(model, **inputs, **call)

    def further(self, family: str = "") -> Given:
        """The further arguments of its calls."""
        return self.call(family or self.family) if callable(self.call) else self.call

    def _way(self) -> dict[str, Any]:
        if self.kind == "strategies":
            return {self.argument: self.component.name, **self.values}
        beside = {"draft": "prompt_lookup", "do_sample": True} if self.kind == "verifications" else {}
        return {self.argument: self.make(), **beside}


Subject = Case | Component | type[Component] | str


def case_of(subject: Subject, params: Given | None = None) -> Case:
    """The case that a component, its name, its class or a ready case stands for.

    Args:
        subject: a case, a class, an object (whose parameters count), or a name, also as `kind:name`.
        params: parameters that win over those of the subject.

    Raises:
        UnknownComponentError: no component has the name.
        ParameterError: it is no component.
    """
    if isinstance(subject, str):
        kind, colon, name = subject.rpartition(":")
        subject = registry().get(kind if colon else registry().kind_of_name(name), name)
    if isinstance(subject, Component):
        given = {key: getattr(subject.params, key) for key in subject.params.model_fields_set}
        subject = Case(type(subject), given)
    if isinstance(subject, type) and kind_of(subject) is not None:
        subject = Case(subject)
    if not isinstance(subject, Case):
        raise ParameterError(f"{subject!r} cannot be checked; give a component, its class, its name, or a Case")
    if params:
        unknown = next((key for key in params if key not in subject.component.Params.model_fields), None)
        if unknown is not None:
            near = hint(unknown, subject.component.Params.model_fields)
            raise ParameterError(f"{unknown!r} is no parameter of {subject.component.name!r}{near}")
        subject = replace(subject, params={**subject.params, **params})
    return subject
