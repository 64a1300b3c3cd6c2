"""Runs the checks of a component and reports them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...contract import COMPONENT_KINDS
from ...errors import ParameterError
from ...plugins.settings import hint
from ..catalogue import checks_of
from .case import Case, Given, Subject, case_of
from .check import Check, CheckFailedError, NotApplicableError

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What one check said.

    Attributes:
        check: the check.
        status: passed, failed or skipped.
        message: why it failed or was skipped; of one that passed, what it measured, if anything.
        error: the exception behind a failure.
    """

    check: Check
    status: Status
    message: str = ""
    error: BaseException | None = None


class ConformanceError(AssertionError):
    """A component fails checks; `report` has them all."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"{report.title} fails {len(report.failures)} of {len(report.outcomes)} checks\n{report}")
        self.report = report


@dataclass(frozen=True)
class Report:
    """The outcomes of all checks of one component."""

    title: str
    kind: str
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The checks that failed."""
        return tuple(one for one in self.outcomes if one.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    def __str__(self) -> str:
        lines: list[str] = []
        for one in self.outcomes:
            lines.append(f"{one.status:8}{one.check.name}" + (f": {one.message}" if one.message else ""))
            if one.status == "failed":
                lines.append(f"        {one.check.explanation}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `json` can write."""
        told = [
            {"name": o.check.name, "status": o.status, "message": o.message, "explanation": o.check.explanation}
            for o in self.outcomes
        ]
        return {"component": self.title, "kind": self.kind, "ok": self.ok, "checks": told}


def check_component(
    subject: Subject, params: Given | None = None, *, skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None, raises: bool = True,
) -> Report:  # fmt: skip
    """Run the conformance checks of a component.

    Args:
        subject: a component, its class, its name (also as `kind:name`), or a `Case`.
        params: parameters with which it acts.
        skip: names of checks to leave out, each with the reason.
        only: names of checks to run; None for all of the component's kind.
        raises: raise where a check fails.

    Raises:
        ConformanceError: a check failed; the message lists every outcome.
        ParameterError: there is no such check, or a reason is missing.
    """
    case = case_of(subject, params)
    reasons = known_reasons(case, skip or {})
    wanted = None if only is None else _known(case, only)
    found = tuple(run_check(one, case, reasons) for one in checks_of(case.kind) if wanted is None or one.name in wanted)
    report = Report(case.title, case.kind, found)
    if raises and not report.ok:
        raise ConformanceError(report)
    return report


def run_check(one: Check, case: Case, reasons: Mapping[str, str]) -> Outcome:
    """Run one check, unless `reasons` gives one to skip it."""
    if one.name in reasons:
        return Outcome(one, "skipped", reasons[one.name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one check looks at warnings; the others at what they are about
            note = one.function(case)
    except NotApplicableError as reason:
        return Outcome(one, "skipped", str(reason))
    except CheckFailedError as error:
        return Outcome(one, "failed", str(error), error)
    except Exception as error:  # whatever the component's code raises
        return Outcome(one, "failed", f"raised {type(error).__name__}: {error}", error)
    return Outcome(one, "passed", note or "")


def known_reasons(case: Case, skip: Mapping[str, str]) -> dict[str, str]:
    """The checks to skip with their reasons.

    Raises:
        ParameterError: a name or a reason is missing.
    """
    reasons = {**case.reasons, **skip}
    _known(case, reasons)
    for name, reason in reasons.items():
        if not str(reason).strip():
            raise ParameterError(f"check {name!r} is skipped without a reason; say why {case.title} cannot meet it")
    return reasons


def _known(case: Case, names: Iterable[str]) -> set[str]:
    known = {one.name for one in checks_of(case.kind)}
    for name in names:
        if name not in known:
            raise ParameterError(f"no check of {case.kind} is named {name!r}{hint(name, known)}")
    return set(names)


def parametrize_with_checks(subjects: Iterable[Subject], skip: Mapping[str, str] | None = None) -> Any:
    """A pytest mark that runs a test once for each check of each component.

        @genmode.testing.parametrize_with_checks([MyStrategy])
        def test_conformance(check):
            check()

    The test takes an argument `check`, to be called. A check that is skipped gives its reason to pytest.

    Args:
        subjects: components, classes, names or cases.
        skip: names of checks to leave out, each with the reason.

    Raises:
        ParameterError: there is no such check, or a reason is missing.
    """
    import pytest

    found: list[Any] = []
    for subject in subjects:
        case = case_of(subject)
        reasons = known_reasons(case, {k: v for k, v in (skip or {}).items() if _of_kind(k, case)})
        found += [
            pytest.param(_Bound(one, case, reasons), id=f"{case.title}-{one.name}") for one in checks_of(case.kind)
        ]
    every = {one.name for kind in COMPONENT_KINDS for one in checks_of(kind)}
    for name in skip or ():
        if name not in every:
            raise ParameterError(f"no check is named {name!r}{hint(name, every)}")
    return pytest.mark.parametrize("check", found)


def _of_kind(name: str, case: Case) -> bool:
    return any(one.name == name for one in checks_of(case.kind))


@dataclass(frozen=True)
class _Bound:
    """A check of a component, to be called by a test."""

    check: Check
    case: Case
    reasons: Mapping[str, str]

    def __call__(self) -> None:
        import pytest

        outcome = run_check(self.check, self.case, self.reasons)
        if outcome.status == "skipped":
            pytest.skip(outcome.message)
        if outcome.status == "failed":
            told = f"{self.case.title} fails {self.check.name}: {outcome.message}\n{self.check.explanation}"
            raise CheckFailedError(told) from outcome.error
