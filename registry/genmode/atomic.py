"""Writing a file whole or not at all: whatever ends the process leaves the former file or the new one."""

from __future__ import annotations

import contextlib
import os
import secrets


def write_text(path: str | os.PathLike[str], text: str, private: bool = False) -> None:
    """Write `text` as UTF-8 to `path`, through a file beside it that then takes its name.

    That file has a name that nobody can guess and is made anew: what lies there already, as a link to another file does,
    is never written through. A process that is killed meanwhile may leave it (`.NAME.*.new`), never half of `path`.

    Args:
        path: the file; a link stays one, and what it leads to is written.
        text: its content.
        private: nobody but the owner may read it.

    Raises:
        OSError: the folder is not there or cannot be written.
    """
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}.new")
    mode = 0o600 if private else 0o666
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(path) and not private:
            os.chmod(beside, os.stat(path).st_mode & 0o777)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
