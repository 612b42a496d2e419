"""benchmarks/speed/compare.py at a tiny size: the table, the file, what resumes, what is held to targets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed import compare
from benchmarks.speed.forms import MATMUL, OPTIONS, Form, Place, build, method, operations, pictures
from benchmarks.speed.table import markdown, ratio_targets

ROOT = Path(__file__).resolve().parents[2]
ROW = {
    "method", "kind", "name", "dtype", "compile", "iterations", "height", "width", "batch", "device", "threads",
    "weights", "seconds", "median", "quartiles", "ratio", "ratio_quartiles", "resnet50s", "copies", "peak_extra_bytes",
    "operations_per_second", "share_of_matmul", "max_error", "psnr",
}  # fmt: skip
PLACE = Place("cpu", 1, 1, 24, 24, 16, False)


TINY = ["--size", "24", "--batch", "2", "--threads", "1", "--runs", "3", "--warmup", "0", "--matmul", "64"]


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-W", "error::DeprecationWarning", "-m", "benchmarks.speed.compare"]
    return subprocess.run([*call, *TINY, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the script in this process, and returns what it prints.

    It also measures memory in this process, because starting one for every form is slow.
    """
    monkeypatch.setattr("benchmarks.speed.forms.in_fresh_process", lambda function, *rest: function(*rest))

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["compare", *TINY, *map(str, arguments)])
        compare.main()
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_the_gpu_preset_prints_its_whole_table_on_a_cpu(speed: Callable[..., str], tmp_path: Path) -> None:
    out, work = tmp_path / "speed.json", tmp_path / "work"
    call = ["--preset", "gpu", "--device", "cpu", "--compile", "none", "--work", work, "--out", out]
    printed = speed(*call)
    result = json.loads(out.read_text())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["speed.json"]
    assert not result["as_the_preset_says"]
    assert {"commit", "torch", "torchvision", "device_name", "uncommitted_changes"} <= result["environment"].keys()
    assert {row["method"] for row in result["rows"]} == set(OPTIONS)
    for row in result["rows"]:
        assert set(row) == ROW
        assert len(row["seconds"]) == 3 and row["quartiles"][0] <= row["median"] <= row["quartiles"][1]
    for row in result["rows"]:
        if row["kind"] == "ours" and row["max_error"] is not None:
            assert row["psnr"] >= 35
            assert row["dtype"] != "float32" or row["max_error"] <= 1e-4
            assert row["resnet50s"] > 0 and (row["copies"] is not None) == (row["method"] == "gs")
            assert (row["share_of_matmul"] is not None) == (row["method"] == "nrp")
    targets = {target["target"]: target for target in result["targets"]}
    assert targets["gs: copies of the batch"]["holds"] is not None
    assert targets["nrp: share of the measured bfloat16 matrix rate"]["measured"] > 0
    assert targets["nrp-resg: any dtype"]["measured"] > 0
    assert targets["ncis: bfloat16, compiled"]["holds"] is None
    assert markdown(result) in printed

    before = {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    speed(*call)
    assert {path.name: path.stat().st_mtime_ns for path in work.iterdir()} == before
    assert json.loads(out.read_text()) == result


@pytest.mark.slow
def test_other_settings_than_the_presets_are_printed_and_not_written(speed: Callable[..., str]) -> None:
    results = sorted((ROOT / "benchmarks" / "results").iterdir())
    printed = speed("--methods", "gs", "--large", "26x30", "--dtype", "float32")
    assert "Not written" in printed
    assert "| gs: float32, large picture | at least 1.50x |" in printed
    assert "1 x 26 x 30" in printed
    assert sorted((ROOT / "benchmarks" / "results").iterdir()) == results


@pytest.mark.slow
def test_the_script_measures_memory_in_fresh_processes() -> None:
    done = script("--methods", "ncis", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| ncis \| ours i=7 \| float32 .* 0\.\d+ GB \|$", done.stdout, re.MULTILINE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without CUDA")
def test_the_gpu_preset_says_where_there_is_no_gpu() -> None:
    done = script("--preset", "gpu", "--methods", "gs")
    assert done.returncode != 0
    assert "torch finds no CUDA device" in done.stderr and "Traceback" not in done.stderr


def row(name: str, kind: str = "ours", **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = dict.fromkeys(ROW)
    base |= {
        "method": name, "kind": kind, "name": kind, "dtype": "float32", "compile": "none", "weights": "none",
        "batch": 8, "height": 224, "width": 224, "device": "cpu", "threads": 2, "median": 0.8, "quartiles": [0.7, 0.9],
        "ratio": 1.0, "ratio_quartiles": [1.0, 1.0], "max_error": 1e-6, "psnr": 100.0, "peak_extra_bytes": 10**7,
    }  # fmt: skip
    return base | changes


def targets(preset: str, *rows: dict[str, Any]) -> dict[str, Any]:
    result = {"preset": preset, "settings": {"batch": 8, "size": 224}, "rows": list(rows)}
    return {target["target"]: target["holds"] for target in ratio_targets(result)}


def test_targets_hold_and_fail_on_either_side_of_their_line() -> None:
    for ratio, holds in ((1.61, True), (1.59, False)):
        assert targets("cpu", row("ncis", ratio=ratio))["ncis: float32"] is holds
    assert targets("cpu", row("ncis", ratio=9.0))["ncis: bfloat16"] is None
    for error, holds in ((9e-5, True), (2e-4, False)):
        assert targets("cpu", row("gs"), row("gs", max_error=error))["gs: error in float32"] is holds
    for psnr, holds in ((45.1, True), (44.9, False)):
        assert targets("cpu", row("nrp", dtype="bfloat16", psnr=psnr))["nrp: output in half precision"] is holds
    for peak, holds in ((299_000_000, True), (301_000_000, False)):
        assert targets("cpu", row("nrp", peak_extra_bytes=peak))["nrp: extra memory, one image"] is holds
    for median, holds in ((0.99, True), (1.01, False)):
        other = row("gs", median=median, max_error=None, iterations=14)
        assert targets("cpu", row("gs"), other)["gs: i = 14 and 7 beside i = 1, float32"] is holds
    for ratio, holds in ((1.6, True), (1.4, False)):
        large = row("gs", batch=1, height=1080, width=1920, ratio=ratio)
        assert targets("cpu", large)["gs: float32, large picture"] is holds


def test_targets_of_the_gpu_are_of_the_forms_that_they_name() -> None:
    fast = row("ncis", dtype="bfloat16", ratio=3.5)
    assert targets("gpu", fast)["ncis: bfloat16, compiled"] is None
    assert targets("gpu", fast | {"compile": "default"})["ncis: bfloat16, compiled"] is True
    for copies, holds in ((2.9, True), (3.1, False)):
        rows = row("gs", copies=copies), row("gs", copies=9.0, dtype="bfloat16")
        assert targets("gpu", *rows)["gs: copies of the batch"] is holds
    for share, holds in ((0.36, True), (0.34, False)):
        target = "nrp: share of the measured bfloat16 matrix rate"
        assert targets("gpu", row("nrp", share_of_matmul=share))[target] is holds


def test_targets_of_methods_that_were_not_asked_for_are_not_shown() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "speed_cpu_nrp.json").read_text())
    lines = [line for line in markdown(result).splitlines() if line.startswith(("| nrp: ", "| ncis: ", "| gs: "))]
    assert lines and all(line.startswith("| nrp: ") for line in lines)


def test_operations_are_two_for_each_weight_and_pixel() -> None:
    network, _ = method("nrp-resg")
    weights = sum(value.numel() for name, value in network.state_dict().items() if value.ndim == 4)
    assert operations(Form("nrp-resg", "ours", "ours"), PLACE) == 2 * weights * 24 * 24
    assert operations(Form("nrp", "context", MATMUL), PLACE) == 2 * PLACE.matmul**3


def test_random_weights_give_outputs_of_a_pictures_spread() -> None:
    network, weights = method("nrp-resg")
    if weights != "trained":
        with torch.inference_mode():
            out = network(pictures(1, 48, 48))
        assert 0.4 < out.mean() < 0.6 and 0.1 < out.std() < 0.3


def test_a_form_runs_as_often_as_it_says() -> None:
    images = pictures(1, 24, 24)
    with torch.inference_mode():
        once, often = (build(Form("gs", "ours", "ours", iterations=i), PLACE, images)() for i in (1, 14))
    assert often.std() < once.std() < images.std()


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.speed.plot import draw

    result = {
        "rows": [row("gs", "reference"), row("gs", ratio=4.0, ratio_quartiles=[3.5, 4.5])],
        "settings": {"device": "cpu", "threads": 2},
        "environment": {"device_name": "a processor", "torch": "2", "commit": "0" * 40},
    }
    draw(result, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
