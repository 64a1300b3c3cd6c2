"""`genmode list` and `genmode show`, and what they may import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .cli_support import read, run

STRATEGIES = ["beam_sample", "beam_search", "greedy_search", "prompt_lookup", "sample"]


@pytest.mark.no_torch
class TestList:
    def test_names_the_built_in_strategies(self) -> None:
        lines = run("list", "--kind", "strategy").stdout.splitlines()
        assert lines[0].split() == ["kind", "name", "distribution", "version", "state"]
        assert set(STRATEGIES) <= {line.split()[1] for line in lines[1:] if line.split()[2] == "genmode"}

    def test_json(self) -> None:
        listed = read(run("list", "--kind", "strategies", "--json"))
        assert listed["faults"] == []
        (greedy,) = [one for one in listed["components"] if one["name"] == "greedy_search"]
        assert greedy["value"] == "genmode_strategies.greedy_search:GreedySearch"

    @pytest.mark.parametrize("argv", [["list"], ["list", "--json"], ["--help"], ["--version"]])
    def test_imports_neither_torch_nor_a_plugin(self, argv: list[str]) -> None:
        heavy = ("torch", "transformers", "genmode_strategies", "genmode_processors", "pluggy")
        script = (
            "import sys\nfrom genmode.cli.app import app\n"
            f"try: app({argv!r})\n"
            f"except SystemExit: print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]"
        assert done.stdout

    def test_unknown_kind_is_wrong_use(self) -> None:
        result = run("list", "--kind", "stratgies")
        assert result.exit_code == 2
        assert "did you mean 'strategies'?" in result.stderr


class TestShow:
    def test_parameters_with_types_bounds_defaults_and_help(self) -> None:
        shown = read(run("show", "prompt_lookup", "--json"))
        assert (shown["kind"], shown["distribution"], shown["contract_version"]) == (
            "strategies",
            "genmode",
            1,
        )
        assert "prompt-lookup-decoding" in shown["paper"]
        (drafted,) = [one for one in shown["parameters"] if one["name"] == "prompt_lookup_num_tokens"]
        assert (drafted["type"], drafted["bounds"]) == ("int", {"ge": 1})
        assert not drafted["required"]
        assert drafted["help"]

    def test_text_has_the_same(self) -> None:
        result = run("show", "prompt_lookup")
        assert result.exit_code == 0
        for part in ("prompt_lookup (strategies)", "prompt_lookup_num_tokens", ">= 1", "genmode_strategies"):
            assert part in result.stdout

    def test_unknown_name_is_answered_with_the_closest(self) -> None:
        result = run("show", "greedy_serch")
        assert result.exit_code == 2
        assert "did you mean 'greedy_search'?" in result.stderr
        assert len(result.stderr.splitlines()) == 1
