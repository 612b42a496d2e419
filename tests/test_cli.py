"""The `purifier` command: its help, what it imports, and its exit codes."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

import purifier
from purifier.cli import command, main

COMMANDS = command.list_commands(click.Context(command))
SLOW = ("torchvision", "PIL", "timm", "transformers", "matplotlib", "skimage", "accelerate", "training", "attacks")


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_the_version_is_that_of_the_package() -> None:
    assert invoke("--version").strip() == f"purifier, version {purifier.__version__}"


def test_the_package_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["purifier", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("purifier", run_name="__main__")
    assert ended.value.code == 0 and purifier.__version__ in capsys.readouterr().out


def test_help_describes_every_command() -> None:
    lines = invoke("--help").splitlines()
    for name in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert len(line.split()) > 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    assert "Usage:" in invoke(name, "--help")


def test_a_command_imports_only_what_it_needs(tmp_path: Path) -> None:
    # In one process, in which what a command imports also shows after the next ones.
    calls = {
        "--help": SLOW,
        "list": SLOW,
        "purify {source} {target} --purifier gs --device cpu": ("evaluation", "attacks", "training"),
        "export gs {target}/p.pt2 --format torch-export --model reference:demo": ("evaluation", "attacks", "training"),
        "train gad --help": ("evaluation",),
    }
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    code = (
        "import sys; from purifier.cli import command\n"
        "for call in sys.argv[1:]:\n"
        "    command.main(call.split(), standalone_mode=False)\n"
        "    print(*{name.removeprefix('purifier.').split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    lines = [call.format(source=tmp_path / "a.png", target=tmp_path / "out") for call in calls]
    done = subprocess.run([sys.executable, "-c", code, *lines], capture_output=True, text=True, check=True)
    found = [set(line.split()) for line in done.stderr.splitlines() if " torch " in line]
    for call, modules, unwanted in zip(calls, found, calls.values(), strict=True):
        assert modules.isdisjoint(unwanted), call
    assert "training" in found[-1]


def test_an_unknown_command_is_a_wrong_call() -> None:
    result = CliRunner().invoke(command, ["purifi"])
    assert result.exit_code == 2
    assert "No such command 'purifi'" in result.output


def test_an_error_of_the_library_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise purifier.OptionError("expected one line,\n  got two")

    monkeypatch.setattr(command, "main", broken)
    with pytest.raises(SystemExit) as stop:
        main(["list"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: expected one line, got two\n"
