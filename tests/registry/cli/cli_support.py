"""What the tests of commands share: running one in this process, and reading its JSON."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from genmode.cli.app import app


def run(*argv: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(argv), input=stdin)


def read(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
