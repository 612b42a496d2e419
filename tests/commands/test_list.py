"""The command itself, and purifier list."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import purifier
from purifier import _hub
from purifier.cli import _COMMANDS, command, main


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_the_version_is_the_packages() -> None:
    assert invoke("--version").strip() == f"purifier, version {purifier.__version__}"


def test_it_runs_as_a_module_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["purifier", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("purifier", run_name="__main__")
    assert ended.value.code == 0 and purifier.__version__ in capsys.readouterr().out


def test_help_names_every_command_with_what_it_does() -> None:
    lines = invoke("--help").splitlines()
    for name in _COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert len(line.split()) > 2


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_command_has_help(name: str) -> None:
    assert "Usage:" in invoke(name, "--help")


@pytest.mark.parametrize("call", [["--help"], ["list"]])
def test_help_and_list_load_nothing_of_weight(call: list[str]) -> None:
    code = (
        "import sys; from purifier.cli import command; command.main(sys.argv[1:], standalone_mode=False); "
        "heavy = {'torchvision', 'PIL', 'timm', 'transformers', 'matplotlib', 'skimage', 'accelerate'}; "
        "heavy |= {'purifier.training', 'purifier.attacks'}; print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *call], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_an_unknown_command_is_a_wrong_call() -> None:
    result = CliRunner().invoke(command, ["purifi"])
    assert result.exit_code == 2
    assert "No such command 'purifi'" in result.output


def test_an_error_of_ours_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command("broken")
    def broken() -> None:
        raise purifier.OptionError("expected one line,\n  got two")

    monkeypatch.setitem(command._places, "broken", f"{__name__}:broken")  # type: ignore[attr-defined]
    monkeypatch.setattr(sys.modules[__name__], "broken", broken, raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["broken"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: expected one line, got two\n"


def test_list_has_a_row_for_every_bundled_purifier() -> None:
    rows = [line.split() for line in invoke("list").splitlines()[1:]]
    assert [row[0] for row in rows] == _hub.list_purifiers(trained=False)


def test_list_counts_parameters_and_says_where_there_are_no_weights() -> None:
    lines = {line.split()[0]: line for line in invoke("list").splitlines()}
    assert "16,550,275" in lines["nrp"]
    assert "1,702,211" in lines["nrp-resg"]
    untrained = set(_hub.list_purifiers(trained=False)) - set(purifier.list_purifiers())
    assert {name for name, line in lines.items() if "no weights yet: purifier convert | train" in line} == untrained


def test_list_as_json_is_what_the_configurations_say() -> None:
    rows = json.loads(invoke("list", "--json"))
    assert [row["name"] for row in rows] == _hub.list_purifiers(trained=False)
    for row in rows:
        assert set(row) == {"name", "method", "parameters", "trained", "stand_in", "options", "description"}
        assert row["options"] == _hub.bundled_config(row["name"])["options"]
        assert (row["trained"] or row["stand_in"] is not None) == (row["name"] in purifier.list_purifiers())
        assert row["description"]
