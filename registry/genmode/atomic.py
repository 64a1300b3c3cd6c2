"""Writing a file whole or not at all: whatever ends the process leaves the former file or the new one."""

from __future__ import annotations

import contextlib
import os
import threading


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path`, through a file beside it that then takes its name.

    A process that is killed meanwhile may leave that file (`.NAME.*.new`), never half of `path`.

    Raises:
        OSError: the folder is not there or cannot be written.
    """
    path = os.path.realpath(path)  # a link stays one
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{os.getpid()}-{threading.get_ident()}.new")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(path):
            os.chmod(beside, os.stat(path).st_mode & 0o777)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
