"""Hooks: what a plugin may do to a call that names none of its components.

A hook plugin is a module or an object with functions marked by `genmode.hookimpl`, offered in the
entry-point group `genmode.hooks`. It acts unasked, so it is switched on by name (setting `hooks`). pluggy
matches the functions to the specifications below by name and checks their arguments; they may take any
subset of them.

    import genmode

    @genmode.hookimpl
    def genmode_session_end(session, error):
        print("decoded", int(session.history.lengths.sum()), "tokens")

Plugins run in the order of their distribution and name, `tryfirst`, `trylast` and wrappers as in pluggy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import pluggy

from ..errors import GenmodeError, PluginLoadError
from .settings import hint

if TYPE_CHECKING:
    from ..contract.session import Session, Step

PROJECT = "genmode"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Specifications:
    """The hooks. `call` is the call being prepared; its processors and criteria are not yet settled."""

    @hookspec(firstresult=True)
    def genmode_resolve_strategy(self, flags: Mapping[str, Any], model: Any, assistant_model: Any) -> str | None:
        """The name of the strategy that these flags ask for, or None to leave it to the next plugin.

        Asked only where the call names no strategy. The first answer wins; if nobody answers, the mode of
        transformers does (`GenerationConfig.get_generation_mode`).

        Args:
            flags: every flag in force, transformers' and plugins'; not to be written.
            model: the model that will decode.
            assistant_model: the model given to draft, or None.
        """

    @hookspec
    def genmode_processors(self, call: Any) -> Iterable[Any] | None:
        """Logits processors to add to this call: genmode's or transformers'."""

    @hookspec
    def genmode_criteria(self, call: Any) -> Iterable[Any] | None:
        """Stopping criteria to add to this call: genmode's or transformers'."""

    @hookspec
    def genmode_watermarkers(self, call: Any) -> Iterable[Any] | None:
        """Watermarkers to add to this call."""

    @hookspec
    def genmode_session_begin(self, session: Session) -> None:
        """The session is ready and nothing has been decoded."""

    @hookspec
    def genmode_session_step(self, session: Session, step: Step) -> None:
        """The strategy has committed the tokens of `step`."""

    @hookspec
    def genmode_session_end(self, session: Session, error: BaseException | None) -> None:
        """The session has ended; `error` is what ended it, or None. Called once, after every begin."""


CONTRIBUTIONS = ("genmode_processors", "genmode_criteria", "genmode_watermarkers")
SPECIFICATIONS = tuple(sorted(name for name in vars(Specifications) if name.startswith("genmode_")))


class Relay:
    """The hook plugins that are switched on, and the calls to them.

    Args:
        plugins: (origin, plugin) pairs that passed `check_plugin`, called in this order; the origin is what
            errors name, as `hook plugin 'x' of dist 1.0 (file)`.
    """

    def __init__(self, plugins: Sequence[tuple[str, Any]] = ()) -> None:
        self.origins: tuple[str, ...] = tuple(origin for origin, _ in plugins)
        self._manager = _manager()
        for origin, plugin in reversed(plugins):  # pluggy calls the last registered first
            if not self._manager.is_registered(plugin):  # one module under two names is called once
                self._manager.register(plugin, origin)
        self._callers: dict[str, Callable[..., Any]] = {
            name: caller for name in SPECIFICATIONS if (caller := self._caller(name)).get_hookimpls()
        }
        self._singly = {name: self._one_by_one(name) for name in ("genmode_resolve_strategy", *CONTRIBUTIONS)}

    def has(self, name: str) -> bool:
        """Whether any plugin implements the hook; costs one dictionary lookup."""
        return name in self._callers

    def call(self, name: str, /, **arguments: Any) -> Any:
        """Call a hook of all plugins.

        Returns:
            The first result that is not None for `genmode_resolve_strategy`, else the list of results.

        Raises:
            GenmodeError: a plugin raised; names the plugin, its distribution and version, and has the
                original error as cause.
        """
        caller = self._callers.get(name)
        if caller is None:
            return None if name == "genmode_resolve_strategy" else []
        return self._guarded(name, caller, **arguments)

    def resolve_strategy(
        self, flags: Mapping[str, Any], model: Any, assistant_model: Any = None
    ) -> tuple[str, str] | None:
        """What `genmode_resolve_strategy` answers and which plugin did; None if none does.

        Raises:
            GenmodeError: the answer is no name, or a plugin raised.
        """
        name = "genmode_resolve_strategy"
        for origin, caller in self._singly[name]:
            answer = self._guarded(name, caller, flags=flags, model=model, assistant_model=assistant_model)
            if answer is not None and not isinstance(answer, str):
                raise GenmodeError(f"{origin}: {name} returned {answer!r}; it has to be a name or None")
            if answer is not None:
                return answer, origin
        return None

    def contributions(self, name: str, call: Any) -> list[tuple[Any, str]]:
        """What the plugins add to a call by one of `CONTRIBUTIONS`, each with the plugin that does.

        Raises:
            GenmodeError: a plugin raised, also while what it returned was iterated, or returned something
                that cannot be iterated.
        """
        added: list[tuple[Any, str]] = []
        for origin, caller in self._singly[name]:
            for result in self._guarded(name, caller, call=call):
                if not isinstance(result, Iterable):
                    raise GenmodeError(
                        f"{origin}: {name} returned an object of type {type(result).__name__}; "
                        "it has to return an iterable of objects, or None"
                    )
                try:
                    added.extend((one, origin) for one in result)  # pyright: ignore[reportUnknownVariableType]
                except Exception as error:  # a generator runs the plugin's code, which may raise anything
                    raise self._failure(name, error) from error
        return added

    def _one_by_one(self, name: str) -> list[tuple[str, Callable[..., Any]]]:
        """(origin, caller) of each plugin, in the order of their calls; wrappers need all in one call."""
        implementations = list(reversed(self._caller(name).get_hookimpls()))
        if not implementations:
            return []
        if any(impl.wrapper or impl.hookwrapper for impl in implementations):
            return [(self._one_of(name), self._caller(name))]
        plugins = [impl.plugin for impl in implementations]
        return [
            (impl.plugin_name, self._manager.subset_hook_caller(name, [p for p in plugins if p is not impl.plugin]))
            for impl in implementations
        ]

    def _guarded(self, name: str, caller: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return caller(**arguments)
        except Exception as error:  # the plugins' code, which may raise anything
            raise self._failure(name, error) from error

    def _caller(self, name: str) -> pluggy.HookCaller:
        caller: pluggy.HookCaller = getattr(self._manager.hook, name)
        return caller

    def _one_of(self, name: str) -> str:
        return " or ".join(impl.plugin_name for impl in reversed(self._caller(name).get_hookimpls()))

    def _failure(self, name: str, error: Exception) -> GenmodeError:
        """Which plugin raised: the one whose function is the innermost in the traceback."""
        implementations = self._caller(name).get_hookimpls()
        culprit = self._one_of(name)
        trace: TracebackType | None = error.__traceback__
        while trace is not None:
            for impl in implementations:
                if _runs(impl.function, trace.tb_frame):
                    culprit = impl.plugin_name
            trace = trace.tb_next
        return GenmodeError(
            f"{culprit} failed in {name}: {type(error).__name__}: {error}. Leave it out of the setting `hooks`, or "
            "repair it"
        )


def _runs(function: Any, frame: FrameType) -> bool:
    """Whether the frame is one of this function; of a method, with the same `self`."""
    code, owner = getattr(function, "__code__", None), getattr(function, "__self__", None)
    if code is not frame.f_code:
        return False
    return owner is None or frame.f_locals.get(frame.f_code.co_varnames[0]) is owner


def check_plugin(plugin: Any, origin: str) -> None:
    """Refuse a hook plugin that pluggy would not call, or not call as its author thinks.

    Raises:
        PluginLoadError: it has no hook, one that does not exist, or one with wrong arguments.
    """
    manager = _manager()
    try:
        manager.register(plugin, origin)
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginLoadError(f"{origin} is no valid hook plugin: {error}") from error
    if not manager.get_hookcallers(plugin):
        raise PluginLoadError(f"{origin} has no function marked with genmode.hookimpl")
    for caller in manager.get_hookcallers(plugin) or []:
        if caller.name not in SPECIFICATIONS:
            raise PluginLoadError(
                f"{origin} implements {caller.name}, which is no hook{hint(caller.name, SPECIFICATIONS)} "
                f"(the hooks are {', '.join(SPECIFICATIONS)})"
            )


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Specifications)
    return manager
