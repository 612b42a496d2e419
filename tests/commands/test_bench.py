"""purifier bench: the printed table and the JSON file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from purifier import OptionError, UnknownNameError
from purifier.cli import command
from purifier.commands import bench
from tests.builders import stand_in

TINY = ["--size", "24x32", "--batch", "1", "--device", "cpu", "--dtype", "float32", "--runs", "2", "--warmup", "0"]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["bench", *map(str, arguments)])


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures memory in this process, because starting others is slow."""
    monkeypatch.setattr("purifier.commands.bench.in_fresh_process", lambda function, *rest: function(*rest))


@pytest.mark.usefixtures("no_processes")
def test_the_table_and_the_file_have_the_same_figures(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    done = invoke("ncis", *TINY, "--iterations", "2", "--threads", "1", "--json", tmp_path / "bench.json")
    assert done.exit_code == 0, done.output
    assert torch.get_num_threads() == threads
    result = json.loads((tmp_path / "bench.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert set(result["rows"]) == {"ncis", "ResNet-50"}
    for row in result["rows"].values():
        assert len(row["seconds"]) == 2
        assert row["quartiles_per_image"][0] <= row["median_per_image"] <= row["quartiles_per_image"][1]
    assert result["size"] == [24, 32] and result["options"] == {"iterations": 2} and result["threads"] == 1
    assert {"purifier", "torch", "torchvision", "python"} <= result["environment"].keys()
    (line,) = [line for line in done.output.splitlines() if line.startswith("| ncis |")]
    assert "24 x 32" in line and f"{result['resnet50s']:.2f}" in line
    assert bench._milliseconds(result["rows"]["ncis"]["median_per_image"]) in line


@pytest.mark.usefixtures("no_processes")
def test_a_stand_in_is_measured_under_its_own_name(tmp_path: Path) -> None:
    with stand_in(tmp_path):
        done = invoke("soft", *TINY, "--json", tmp_path / "bench.json")
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "bench.json").read_text())
    assert (result["purifier"], set(result["rows"])) == ("gs", {"gs", "ResNet-50"})
    assert "| gs |" in done.output and "soft" not in done.output


@pytest.mark.slow
def test_memory_is_measured_in_a_fresh_process() -> None:
    done = invoke("gs", *TINY)
    assert done.exit_code == 0, done.output
    assert "| gs | 24 x 32 |" in done.output


@pytest.mark.parametrize("size", ["0", "224x", "a", "10x20x30", "-5"])
def test_an_invalid_size_is_refused(size: str) -> None:
    done = invoke("gs", f"--size={size}")
    assert isinstance(done.exception, OptionError)
    assert f"got {size!r}; try 224 or 1080x1920" in str(done.exception)


def test_an_unknown_purifier_is_refused() -> None:
    assert isinstance(invoke("nothing-of-that-name", *TINY).exception, UnknownNameError)
