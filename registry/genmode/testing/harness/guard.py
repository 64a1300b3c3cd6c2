"""Watches what a component does to tensors: which operations it runs, and where it waits for a device.

On an accelerator, reading a tensor on the host waits for all work that is queued. On the CPU nothing tells
such a read from any other operation, and the host may read freely there. So checks run under `host_sync.late_host`, where
the CPU is treated as a device, and an operation is laid to whoever stands nearest on the stack: the component's own
package, or the host or transformers; other libraries act for those who call them.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import transformers
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ... import errors
from ...contract import Session, Step

HOST = os.path.dirname(os.path.abspath(errors.__file__)) + os.sep
TRANSFORMERS = os.path.dirname(os.path.abspath(transformers.__file__)) + os.sep
READS = frozenset({
    "tolist", "item", "numpy", "cpu", "__array__", "__bool__", "__int__", "__float__", "__index__", "__contains__",
})  # fmt: skip
"""Methods of a tensor that bring it to the host."""
WAITS = frozenset({
    "_local_scalar_dense", "nonzero", "nonzero_numpy", "masked_select", "is_nonzero", "equal", "item", "bincount",
    "unique_dim", "_unique2", "unique_consecutive", "allclose",
})  # fmt: skip
"""Operations whose result's size or value the host has to know."""


def home(component: type[Any]) -> str:
    """Where a component's code stands: the folder of its package, or the file of its module."""
    methods: list[Any] = [getattr(component, name, None) for name in ("decode", "process", "check")]
    file: str = next(one.__code__.co_filename for one in methods if hasattr(one, "__code__"))
    top = getattr(sys.modules.get(component.__module__.partition(".")[0]), "__file__", None)
    folder = os.path.dirname(os.path.abspath(top)) + os.sep if top and os.path.basename(top) == "__init__.py" else ""
    return folder if folder and os.path.abspath(file).startswith(folder) else file


def culprit(root: str) -> FrameType | None:
    """The frame of the component's code that runs right now; None if the host or transformers does."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(root):
            return frame
        # `rectangles` reads lengths on the host, and says so: whoever asks for it waits
        if file.startswith((HOST, TRANSFORMERS)) and file != __file__ and frame.f_code.co_name != "rectangles":
            return None
        frame = frame.f_back
    return None


def place(frame: FrameType) -> str:
    """Where a frame stands, for messages."""
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"


class Operations(TorchDispatchMode):
    """Counts operations.

    Attributes:
        looking: whether waits are noted.
        own: operations that the component ran itself.
        waits: what would wait for a device, and where.
        arrived: tensors that were read back without waiting, which may be read there.
    """

    def __init__(self, root: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.root = root
        self.looking = True
        self.own = 0
        self.waits: list[str] = []
        self.arrived: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        frame = culprit(self.root)
        if frame is not None:
            self.own += 1
            name = func.overloadpacket.__name__
            masked = name in ("index", "index_put", "index_put_") and _by_mask(name, args)
            repeated = name == "repeat_interleave" and not (kwargs or {}).get("output_size")
            if (name in WAITS or masked or repeated) and not self.has_arrived(args):
                self.note("a boolean mask as index" if masked else name, frame)
        return func(*args, **(kwargs or {}))

    def has_arrived(self, args: Any) -> bool:
        """Whether the first argument is, or is part of, what was read back without waiting."""
        first = args[0] if args else None
        if not isinstance(first, torch.Tensor):
            return False
        place = first.untyped_storage().data_ptr()
        return any(one.untyped_storage().data_ptr() == place for one in self.arrived)

    def note(self, what: str, frame: FrameType) -> None:
        """The component waits."""
        if self.looking:
            self.waits.append(f"{what} at {place(frame)}")


def _by_mask(name: str, args: Any) -> bool:
    """Whether a boolean tensor selects elements; to fill them with one number waits for nothing."""
    selects = any(isinstance(one, torch.Tensor) and one.dtype in (torch.bool, torch.uint8) for one in args[1])
    return selects and (name == "index" or args[2].numel() != 1)


class Reads(TorchFunctionMode):
    """Notes where the component reads tensors on the host, or makes some there for the device."""

    def __init__(self, operations: Operations) -> None:
        super().__init__()
        self.operations = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        made = func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None
        if (name in READS and not self.operations.has_arrived(args)) or (
            made and not isinstance(args[0] if args else kwargs.get("data"), torch.Tensor)
        ):
            frame = culprit(self.operations.root)
            if frame is not None:
                self.operations.note(f"{name}() copies from the host" if made else f"{name}()", frame)
        return func(*args, **kwargs)


@contextmanager
def watched(component: type[Any]) -> Generator[Operations, None, None]:
    """Watch a component within the block."""
    operations = Operations(home(component))
    with operations, Reads(operations):
        yield operations


class ObservedSession:
    """A session as a strategy sees it, which notes waits from its second step to the end of its loop alone.

    What happens once is not the loop.
    """

    def __init__(self, session: Session, operations: Operations) -> None:
        self._session, self._operations = session, operations

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def steps(self, **options: Any) -> Iterator[Step]:
        """The session's steps."""
        self._operations.looking = False
        for step in self._session.steps(**options):
            self._operations.looking = step.index > 0
            yield step
        self._operations.looking = False

    def async_readback(self, width: int) -> Any:
        """What arrives may be read on the host."""
        return _Noting(self._session.async_readback(width), self._operations)


class _Noting:
    """An asynchronous read-back whose values are noted as arrived."""

    def __init__(self, readback: Any, operations: Operations) -> None:
        self._readback, self._operations = readback, operations
        self.deferred: bool = readback.deferred

    def exchange(self, values: torch.Tensor) -> torch.Tensor | None:
        """The values of the step before."""
        arrived: torch.Tensor | None = self._readback.exchange(values)
        if arrived is not None and self.deferred:
            self._operations.arrived.append(arrived)
        return arrived


def observed(component: type[Any], wrap: Callable[[Session], Any]) -> type[Any]:
    """The strategy, given the session that `wrap` makes of the call's."""

    def decode(self: Any, session: Session, params: Any) -> None:
        component.decode(self, wrap(session), params)

    members = {"decode": decode, "name": component.name, "__module__": component.__module__}
    return type(component.__name__, (component,), members)
