"""Checks of every kind of component: what it declares, and what its parameters take."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import math
import pickle
import sys
from typing import Any, get_args

import pydantic

from ...api import generate
from ...call.request import model_inputs
from ...contract import COMPONENT_KINDS, CONTRACT_VERSION, is_secret
from ...errors import ParameterError
from ...plugins.call_keys import OWN_ARGUMENTS
from ...plugins.discovery import valid_name
from ...plugins.loading import check as check_loadable
from ...plugins.loading import entry_of
from ...plugins.parameters import build_params
from ..harness.case import Case
from ..harness.check import check, fail, inapplicable, require
from ..harness.host import plain_host

PUBLIC = (
    "genmode", "genmode.contract", "genmode.errors", "genmode.host_sync", "genmode.sampling", "genmode.testing",
    "genmode.text", "genmode.watermark",
)  # fmt: skip
"""The modules of the host that plugins may import."""


@check(*COMPONENT_KINDS)
def contract_version(case: Case) -> None:
    """The class states the contract version that it was written for, so that a host of another one can refuse it."""
    stated = case.component.contract_version
    require(
        stated == CONTRACT_VERSION,
        f"contract_version is {stated!r}; write `contract_version = {CONTRACT_VERSION}` in the class",
    )
    check_loadable(case.component, entry_of(case.component, case.kind, case.component.name))


@check(*COMPONENT_KINDS)
def name(case: Case) -> None:
    """The public name is a plain word, and the one that the class itself has: the entry point's name would win over
    another, and messages and the README would then speak of different things.
    """
    own = vars(case.component).get("_own_name", case.component.name)
    require(
        own == case.component.name,
        f"the entry point calls it {case.component.name!r} and the class {own!r}; give both one name",
    )
    require(valid_name(own) and own == own.lower(), f"{own!r} is no plain lower-case name")


@check(*COMPONENT_KINDS)
def found_by_name(case: Case) -> None:
    """On a host with genmode's own components and this one, its name means it: genmode's own would stay in force."""
    kind, own = case.kind, case.component.name
    registry = plain_host()
    if any(info.name == own for info in registry.components(kind)):
        require(
            registry.get(kind, own) is case.component, f"{own!r} is one of genmode's own {kind}; choose another name"
        )
    if kind in ("processors", "watermarkers"):
        other = "processors" if kind == "watermarkers" else "watermarkers"
        taken = any(info.name == own for info in registry.components(other))
        require(not taken, f"{own!r} is one of genmode's own {other}, which calls name in the same place")


@check(*COMPONENT_KINDS)
def documentation(case: Case) -> None:
    """The class says in its docstring what it does, and `paper` is a citation where there is one to give."""
    doc = case.component.__dict__.get("__doc__") or ""
    require(len(doc.split()) >= 3, f"class {case.component.__name__} has no docstring that says what it does")
    paper: Any = case.component.paper
    require(isinstance(paper, str), f"paper is {type(paper).__name__}; it has to be a string")
    require(
        not paper or len(paper.split()) >= 3,
        f"paper={paper!r} is no citation; give authors, year, title and address, or leave it empty",
    )


@check(*COMPONENT_KINDS)
def parameters_documented(case: Case) -> None:
    """Every parameter has a line of help, which `genmode show` prints and errors quote."""
    silent = [key for key, field in case.component.Params.model_fields.items() if not (field.description or "").strip()]
    require(not silent, f"no description: {', '.join(silent)}; write Field(..., description='...')")


@check(*COMPONENT_KINDS)
def parameters_have_defaults(case: Case) -> None:
    """Every parameter has a default, so that the component can be named without any, and its defaults are allowed."""
    required = [key for key, field in case.component.Params.model_fields.items() if field.is_required()]
    require(not required, f"no default: {', '.join(required)}")
    defaults = case.component.Params().model_dump()
    try:
        case.component.Params(**defaults)
    except pydantic.ValidationError as error:
        fail(f"the defaults are outside their own bounds: {error}")


@check(*COMPONENT_KINDS)
def parameters_refuse_nonsense(case: Case) -> str:
    """A number that is none, and a value of the wrong type, are refused with an error that names the parameter."""
    tried = 0
    for key, field in case.component.Params.model_fields.items():
        kinds = set(get_args(field.annotation)) or {field.annotation}
        if not kinds & {int, float} or kinds & {str}:
            continue
        nonsense: tuple[Any, ...] = (math.nan, "no such value", [[]])
        for value in nonsense:
            tried += 1
            try:
                build_params(case.component, {**case.values, key: value})
            except ParameterError as error:
                said = str(error)
                require(key in said, f"{key}={value!r} is refused, but the error does not name it: {said}")
            else:
                more = "; leave allow_inf_nan out, or add bounds" if isinstance(value, float) else ""
                fail(f"{key}={value!r} is taken as allowed{more}")
    if not tried:
        inapplicable("it has no parameter that is a number")
    return f"{tried} values refused"


@check(*COMPONENT_KINDS)
def parameters_refuse_strangers(case: Case) -> None:
    """A misspelt parameter is an error that names it, never ignored."""
    try:
        build_params(case.component, {**case.values, "no_such_parameter": 1})
    except ParameterError as error:
        require("no_such_parameter" in str(error), f"the error does not name the parameter: {error}")
    else:
        fail("Params takes a parameter that it does not have; derive it from genmode.Params and keep extra='forbid'")


@check(*COMPONENT_KINDS)
def parameters_frozen(case: Case) -> None:
    """Parameters cannot be changed once they are made: a call must not change what the next one sees."""
    params: Any = case.component.Params(**case.values)
    for key in case.component.Params.model_fields:
        try:
            setattr(params, key, getattr(params, key))
        except pydantic.ValidationError:
            continue
        fail(f"{key} can be assigned to; keep frozen=True, which genmode.Params sets")


@check(*COMPONENT_KINDS)
def parameters_survive_saving(case: Case) -> None:
    """Parameters written to JSON, as a saved generation config has them, and read again are the same.

    Secrets are not saved. A parameter that is a Python object, such as a function, cannot be.
    """
    params = case.component.Params(**case.values)
    data = {key: value for key, value in params.model_dump().items() if not is_secret(key) and value is not None}
    secrets = {key: value for key, value in case.values.items() if is_secret(key)}
    try:
        saved = json.loads(json.dumps(data))
    except TypeError as error:
        inapplicable(f"its parameters hold Python objects: {error}")
    again = case.component.Params(**saved, **secrets)
    changed = [key for key in data if getattr(again, key) != getattr(params, key)]
    require(not changed, f"another value after saving and loading: {', '.join(changed)}")


@check(*COMPONENT_KINDS)
def parameters_reachable(case: Case) -> None:
    """No parameter is named like an argument of `generate` or an input of models: it would never be reached.

    A processor that stands in for one of transformers' may have that one's arguments.
    """
    taken = {*inspect.signature(generate).parameters, *model_inputs(case.tiny())}
    if not getattr(case.component, "replaces", ()):
        taken.update(OWN_ARGUMENTS)
    lost = sorted(taken & set(case.component.Params.model_fields))
    require(not lost, f"{', '.join(lost)}: generate() takes that name for itself; choose another")


@check(*COMPONENT_KINDS)
def copies_and_pickles(case: Case) -> None:
    """An object can be copied, and pickled where its parameters can, as worker processes do it; with a secret it cannot."""
    made = case.make()
    values = made.params.model_dump()  # without fields that take an object of one call
    require(copy.deepcopy(made).params.model_dump() == values, "a deep copy has other parameters")
    if "<locals>" in case.component.__qualname__ or _elsewhere(case.component):
        return
    if any(is_secret(key) and value is not None for key, value in values.items()):
        _refuses_to_pickle(made)
        return
    try:
        pickle.dumps(made.params)
    except Exception as error:  # a parameter that is a lambda, say: the user's choice
        inapplicable(f"its parameters cannot be pickled: {error}")
    again = pickle.loads(pickle.dumps(made))
    require(again.params.model_dump() == values, "what comes back from pickling has other parameters")


def _refuses_to_pickle(made: Any) -> None:
    try:
        pickle.dumps(made)
    except ParameterError:
        return
    fail("a pickle of it would hold its secret parameters")


def _elsewhere(component: type[Any]) -> bool:
    """Whether the class cannot be found by its module and name: a script, or an object under a second name."""
    found: Any = sys.modules.get(component.__module__)
    for part in component.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is not component


@check(*COMPONENT_KINDS)
def signature(case: Case) -> None:
    """The class is made from `Params` or its fields alone, as the host makes it."""
    plain = case.component(case.component.Params(**case.values))
    require(plain.params == case.component.Params(**case.values), "`params` of the object is not what it was given")
    for key, one in inspect.signature(case.component.__init__).parameters.items():
        required = one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        require(key == "self" or not required, f"__init__ needs {key}, which the host does not give")


@check(*COMPONENT_KINDS)
def bad_parameters(case: Case) -> str:
    """A value outside its bounds is refused by an error that names the parameter."""
    tried = _outside(case.component)
    for key, value in tried:
        try:
            build_params(case.component, {**case.values, key: value})
        except ParameterError as error:
            require(key in str(error), f"{key}={value!r}: the error does not name it: {error}")
        else:
            fail(f"{key}={value!r} is outside its bounds and is taken as allowed")
    if not tried:
        inapplicable("no parameter has bounds")
    return f"{len(tried)} values refused"


def _outside(component: type[Any]) -> list[tuple[str, Any]]:
    """For each bounded number a value beyond the bound."""
    found: list[tuple[str, Any]] = []
    for key, field in component.Params.model_fields.items():
        for rule in field.metadata:
            for bound, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
                limit = getattr(rule, bound, None)
                if isinstance(limit, (int, float)):
                    found.append((key, limit + step))
    return found


@check(*COMPONENT_KINDS)
def public_contract(case: Case) -> None:
    """The code uses the public contract alone: what begins with an underscore, and the host's other modules, change
    without notice.
    """
    module = sys.modules.get(case.component.__module__)
    try:
        tree = ast.parse(inspect.getsource(module if _whole(case) and module is not None else case.component).lstrip())
    except (OSError, TypeError, SyntaxError):
        inapplicable("its source cannot be read")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] == "genmode":
            require(node.module in PUBLIC, f"line {node.lineno} imports from {node.module}, which is not public")
        if isinstance(node, ast.Import):
            for one in node.names:
                public = one.name.partition(".")[0] != "genmode" or one.name in PUBLIC
                require(public, f"line {node.lineno} imports {one.name}, which is not public")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if private and node.value.id in ("session", "step", "history", "context"):
                fail(f"line {node.lineno} reads {node.value.id}.{node.attr}, which is private")


def _whole(case: Case) -> bool:
    """Whether the class stands at the top of its module."""
    return "<locals>" not in case.component.__qualname__
