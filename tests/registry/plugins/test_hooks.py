"""Hook plugins: switched on by name, called in a fixed order, and named when they fail."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

import genmode
from genmode.errors import ConflictError, ContractVersionError, GenmodeError, PluginLoadError
from genmode.plugins.hooks import SPECIFICATIONS, Relay, Specifications
from genmode.plugins.registry import Registry

pytestmark = pytest.mark.no_torch

HOOK = "import genmode\n\n@genmode.hookimpl\ndef genmode_session_begin(session):\n    session.append({0!r})\n"


class Adds:
    def __init__(self, *what: Any) -> None:
        self.what = what

    @genmode.hookimpl
    def genmode_processors(self, call: Any) -> Any:
        return self.what


class Raises:
    """Raises in `genmode_processors` itself, or while its result is iterated."""

    def __init__(self, late: bool = False) -> None:
        self.late = late

    @genmode.hookimpl
    def genmode_processors(self, call: Any) -> Any:
        return self._items() if self.late else 1 / 0

    @genmode.hookimpl
    def genmode_criteria(self, call: Any) -> Any:
        yield "first"
        raise KeyError("late")

    def _items(self) -> Any:
        return 7


class Answers:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @genmode.hookimpl
    def genmode_resolve_strategy(self, flags: Any) -> Any:
        return self.answer


def test_the_specifications() -> None:
    assert SPECIFICATIONS == (
        "genmode_criteria", "genmode_processors", "genmode_resolve_strategy", "genmode_session_begin",
        "genmode_session_end", "genmode_session_step", "genmode_watermarkers",
    )  # fmt: skip
    assert all(inspect.getdoc(getattr(Specifications, name)) for name in SPECIFICATIONS)


def test_a_relay_without_plugins() -> None:
    relay = Relay()
    assert not any(relay.has(name) for name in SPECIFICATIONS)
    assert relay.call("genmode_session_begin", session=None) == []
    assert relay.call("genmode_resolve_strategy", flags={}, model=None, assistant_model=None) is None
    assert relay.resolve_strategy({}, None) is None
    assert relay.contributions("genmode_processors", None) == []


def test_plugins_contribute_in_the_order_given() -> None:
    relay = Relay([("a", Adds(1, 2)), ("b", Adds()), ("c", Adds(3))])
    assert relay.has("genmode_processors")
    assert not relay.has("genmode_criteria")
    assert relay.contributions("genmode_processors", None) == [(1, "a"), (2, "a"), (3, "c")]


def test_the_first_answer_that_is_not_none_wins() -> None:
    relay = Relay([("a", Answers(None)), ("b", Answers("sample")), ("c", Answers("other"))])
    assert relay.resolve_strategy({"top_k": 3}, None) == ("sample", "b")
    assert Relay([("a", Answers(None))]).resolve_strategy({}, None) is None
    with pytest.raises(GenmodeError, match=r"^a: genmode_resolve_strategy returned 3; it has to be a name or None"):
        Relay([("a", Answers(3))]).resolve_strategy({}, None)


def test_a_plugin_that_raises_is_named_and_its_error_kept() -> None:
    relay = Relay([("fine", Adds(1)), ("hook plugin 'x' of bad 1.0 (/f)", Raises()), ("twin", Adds(2))])
    with pytest.raises(
        GenmodeError, match=r"^hook plugin 'x' of bad 1\.0 \(/f\) failed in genmode_processors: ZeroDiv"
    ) as caught:
        relay.contributions("genmode_processors", None)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_of_two_objects_of_one_class_the_one_that_raised_is_named() -> None:
    first, second = Raises(late=True), Raises()
    relay = Relay([("second", second), ("first", first)])
    with pytest.raises(GenmodeError, match=r"^second failed"):
        relay.contributions("genmode_processors", None)


def test_results_are_checked_while_the_plugin_can_be_named() -> None:
    with pytest.raises(GenmodeError, match=r"^lazy failed in genmode_criteria: KeyError") as caught:
        Relay([("lazy", Raises())]).contributions("genmode_criteria", None)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(GenmodeError, match=r"^one: genmode_processors returned an object of type int"):
        Relay([("one", Raises(late=True))]).contributions("genmode_processors", None)


def test_a_wrapper_sees_the_error_of_another_plugin_which_is_the_one_named() -> None:
    seen: list[str] = []

    class Watches:
        @genmode.hookimpl(wrapper=True)
        def genmode_processors(self, call: Any) -> Any:
            try:
                return (yield)
            except ZeroDivisionError:
                seen.append("seen")
                raise

    with pytest.raises(GenmodeError, match=r"^bad failed"):
        Relay([("watches", Watches()), ("bad", Raises())]).contributions("genmode_processors", None)
    assert seen == ["seen"]


def test_an_interrupt_is_not_wrapped() -> None:
    class Interrupts:
        @genmode.hookimpl
        def genmode_session_begin(self, session: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Relay([("x", Interrupts())]).call("genmode_session_begin", session=None)


def test_the_markers_are_pluggys() -> None:
    assert isinstance(genmode.hookimpl, pluggy.HookimplMarker)
    assert isinstance(genmode.hookspec, pluggy.HookspecMarker)


# through the registry


def test_a_hook_plugin_acts_only_when_it_is_switched_on(site: Any) -> None:
    for name in ("plug-b", "plug-a"):
        module = name.replace("-", "_")
        site.add(name, entries={"hooks": {f"tracer_{name[-1]}": module}}, modules={module: HOOK.format(name)})
    assert not site.registry().hooks().origins
    seen: list[str] = []
    relay = site.registry(hooks=("plug-b:tracer_b", "plug-a")).hooks()
    relay.call("genmode_session_begin", session=seen)
    assert seen == ["plug-a", "plug-b"]
    assert relay.origins[0].startswith("hook plugin 'tracer_a' of plug-a 1.0 (")


def test_genmodes_own_hooks_are_on_and_listed_apart(site: Any) -> None:
    site.add("genmode", entries={"hooks": {"own": "own_hooks"}}, modules={"own_hooks": HOOK.format("own")})
    host = site.registry()
    assert host.components() == ()
    assert [info.state for info in host.components("hooks")] == ["discovered"]
    assert host.hooks().has("genmode_session_begin")
    assert [info.state for info in host.components("hooks")] == ["loaded"]
    assert host.hooks() is host.hooks()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no function marked with genmode.hookimpl"),
        ("def genmode_sesion_end(session): ...", r"is no hook; did you mean 'genmode_session_end'\?"),
        ("def genmode_session_end(session, sess): ...", "is no valid hook plugin"),
        ("raise OSError('gone')", "OSError: gone"),
    ],
)
def test_a_broken_hook_plugin_is_warned_of_and_left_out(site: Any, text: str, message: str) -> None:
    marked = f"import genmode\n\n{'@genmode.hookimpl' if text.startswith('def') else ''}\n{text}\n"
    site.add("bad", entries={"hooks": {"bad": "bad_hooks"}}, modules={"bad_hooks": marked})
    site.add("plug", entries={"hooks": {"fine": "fine_hooks"}}, modules={"fine_hooks": HOOK.format("fine")})
    host = site.registry(hooks=("bad", "plug:fine"))
    with pytest.warns(RuntimeWarning, match=message):
        assert len(host.hooks().origins) == 1
    (fault,) = host.faults()
    assert fault.distribution == "bad"
    with pytest.raises(PluginLoadError, match=message):
        host.get("hooks", "bad")


def test_a_hook_plugin_may_state_its_contract(site: Any) -> None:
    site.add(
        "plug",
        entries={"hooks": {"it": "it_hooks"}},
        modules={"it_hooks": HOOK.format(1) + "contract_version = 2\n"},
    )
    with pytest.raises(ContractVersionError, match="contract 2"):
        site.registry(hooks=("plug",)).get("hooks", "it")


def test_an_ambiguous_name_that_is_switched_on_is_an_error(site: Any) -> None:
    for name in ("plug_a", "plug_b"):
        site.add(name, entries={"hooks": {"tracer": name}}, modules={name: HOOK.format(name)})
    assert not site.registry().hooks().origins
    with pytest.raises(ConflictError, match="hook plugin 'tracer' is provided by plug-a"):
        site.registry(hooks=("hooks:tracer",)).hooks()
    with pytest.raises(ConflictError, match="write 'plug-a:tracer' or 'plug-b:tracer'"):
        site.registry(hooks=("tracer",)).hooks()
    assert len(site.registry(hooks=("plug-a",)).hooks().origins) == 1


def test_a_program_registers_its_own_hooks(host: Registry) -> None:
    assert host.hooks().origins == ()
    host.register(Adds(5), kind="hooks", name="adds")
    ((added, origin),) = host.hooks().contributions("genmode_processors", None)
    assert added == 5
    assert origin.startswith("hook plugin 'adds' of this program (")
    with pytest.raises(PluginLoadError, match="no function marked"):
        host.register(SimpleNamespace(), kind="hooks", name="empty")
