"""What a terminal receives, and how a command ends if a stream or a disk takes no more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from purifier.cli import main
from purifier.commands._terminal import printable

COMMAND = [sys.executable, "-m", "purifier"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    call = ["sh", "-c", line, *COMMAND, *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m", "a\\x1b[31m"),
        ("\x00\x07\x7f\x9b", "\\x00\\x07\\x7f\\x9b"),
        ("a\rb\tc\x08", "a\\x0db\\x09c\\x08"),
        ("\udcff", "\\udcff"),
        ("gnp.\u202epng", "gnp.\\u202epng"),
        ("\u2028\u2066", "\\u2028\\u2066"),
        ("two\nlines, \u6c34 \u00e9 \U0001f600", "two\nlines, \u6c34 \u00e9 \U0001f600"),
    ],
)
def test_only_characters_that_control_a_terminal_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@LINUX
def test_a_full_standard_output_is_a_failure() -> None:
    done = shell('"$0" "$@" > /dev/full', "--help")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: expected files and outputs that can be read and written, got No space left on device"
    ]


@LINUX
@pytest.mark.parametrize("closing", ["2>/dev/full", "0<&- 2>&-"])
def test_a_closed_or_full_standard_error_changes_nothing(tmp_path: Path, closing: str) -> None:
    for number in range(3):
        Image.new("RGB", (20, 20), (number, 90, 200)).save(tmp_path / f"{number}.png")
    options = ("--purifier", "gs", "--device", "cpu")
    done = shell(f'"$0" "$@" {closing}', "purify", tmp_path, tmp_path / "out", *options)
    assert done.returncode == 0 and "purified 3, skipped 0, failed 0" in done.stdout
    for path in (tmp_path / "out").glob("*.png"):
        with Image.open(path) as image:
            image.load()
    assert shell(f'"$0" "$@" {closing}', "purify", tmp_path / "nowhere", tmp_path / "out").returncode == 1


@LINUX
def test_a_pipe_that_is_closed_early_is_silent() -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", '"$0" "$@" list | true', *COMMAND], capture_output=True, text=True, timeout=300
    )
    assert done.stderr == ""


def test_names_in_errors_cannot_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "\x1b[31mred\u202e.png").write_bytes(b"not a picture")
    calls = [
        ("purify", tmp_path / "in", tmp_path / "out", "--purifier", "gs"),
        ("purify", tmp_path / "\x1b[2J", tmp_path / "out"),
        ("train", "ncis", "--config", tmp_path / "\x1b[2J", "--out", tmp_path / "o"),
        ("convert", tmp_path / "\x1b[2J", tmp_path / "o"),
        ("bench", "\x1b[2J"),
        ("\x1b[2J",),
    ]
    for call in calls:
        with pytest.raises(SystemExit) as stop:
            main([str(part) for part in call])
        printed = capsys.readouterr()
        assert stop.value.code in (1, 2), call
        assert "\x1b" not in printed.out + printed.err and "\u202e" not in printed.out + printed.err
        assert "\\x1b" in printed.err


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


REPEATED = "a: &a [x]\n" + "".join(
    f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML: dict[str, str | bytes] = {
    "deep": "[" * 100_000,
    "deep in blocks": "".join(" " * n + "a:\n" for n in range(1500)),
    "of repeated parts": REPEATED,
    "that holds itself": "steps: &a [*a]\n",
    "not UTF-8": b"\xff\xfe\x00",
    "with a control character": b"steps: \x00",
    "a list": "- steps\n",
    "a number": "3\n",
    "nothing": "",
    "with an unknown name": "stepz: 3\n",
    "with a list for a name": "? [a, b]\n: 3\n",
    "with a list": "steps: [1, 2]\n",
    "with a dictionary": "steps: {a: 1}\n",
    "with a date": "device: 2020-01-01\n",
    "with a switch for a number": "steps: yes\n",
    "with a fraction": "steps: 1.5\n",
    "with infinity": "learning_rate: .inf\n",
    "with no number": "learning_rate: .nan\n",
    "with a huge number": "steps: " + "9" * 5000 + "\n",
    "with a huge seed": "seed: 99999999999999999999999\n",
    "with a seed as text": "seed: 1e23\n",
    "with a wrong date": "device: 2020-99-99\n",
    "with code": "steps: !!python/object/apply:os.system ['true']\n",
    "with null": "steps: null\n",
    "of 5 MB": "# " + "x" * 5_000_000,
}  # fmt: skip


@pytest.mark.parametrize("text", YAML.values(), ids=YAML.keys())
def test_odd_settings_files_are_refused(tmp_path: Path, text: str | bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SystemExit) as stop:
        main(["train", "ncis", "--config", str(path), "--data", str(tmp_path / "no"), "--out", str(tmp_path / "out")])
    assert stop.value.code in (1, 2)
    assert len(capsys.readouterr().err) < 3000


@pytest.mark.parametrize(
    "call",
    [
        "tune --iterations 1..1000000000000",
        "tune --iterations 1..9999",
        "tune --iterations 99999999999999999999",
        "tune --kernel-size 1,99999999999999999999",
        "tune --seed 1e23",
        "tune --seed 99999999999999999999999",
        "tune --device meta",
        "bench gs --size 99999999999999999999",
        "bench gs --device meta",
        "bench gs --iterations 99999999999999999999",
        "export gs {out} --size 99999999999999999999x1",
        "export gs {out} --mean nan,1e999,x",
        "train ncis --data {out} --seed 99999999999999999999999",
        "train ncis --data {out} --seed 1e23",
        "train ncis --data {out} --minutes nan",
        "train ncis --data {out} --minutes -1",
        "train ncis --data {out} --device meta",
        "purify {out} {out}/b --device meta",
        "purify {out} {out}/b --iterations 99999999999999999999",
    ],
)
def test_odd_options_are_refused(call: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    name, *rest = call.format(out=tmp_path).split()
    more = {
        "tune": ["--model", "reference:demo", "--data", str(tmp_path), "--out", str(tmp_path / "o")],
        "train": ["--out", str(tmp_path / "o")],
    }
    with pytest.raises(SystemExit) as stop:
        main([name, *rest, *more.get(name, [])])
    assert stop.value.code in (1, 2) and "rror" in capsys.readouterr().err


def a_file_above(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "out"


def full_disk(folder: Path) -> Path:
    return Path("/dev/full/out")


def too_long(folder: Path) -> Path:
    return folder / ("x" * 300)


@pytest.mark.parametrize("out", [a_file_above, full_disk, too_long])
@pytest.mark.parametrize(
    "call",
    [
        "evaluate --model reference:demo --data {data} --purifier gs --attack FGSM --size 32 --out {out}",
        "tune --model reference:demo --data {data} --purifier gs --iterations 1 --attack FGSM --size 32 --out {out}",
        "bench gs --size 16 --batch 1 --runs 1 --warmup 0 --device cpu --json {out}",
        "export bit-depth {out} --format torch-export",
        "train ncis --data {data} --steps 1 --out {out}",
        "convert {checkpoint} {out}",
        "purify {data} {out} --purifier gs",
        "attack {data} {out} --model reference:demo --attack FGSM --size 32",
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    out: Callable[[Path], Path],
    call: str,
) -> None:
    from purifier.methods.nrp import NRPResG

    for name in ("bear", "bird", "cat"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), (90, 90, 200)).save(tmp_path / "data" / name / "0.png")
    # Starting processes to measure memory is slow.
    monkeypatch.setattr("purifier.commands.bench.in_fresh_process", lambda function, *rest: function(*rest))
    torch.save(NRPResG(filters=3, blocks=1).state_dict(), tmp_path / "a.pth")
    place = out(tmp_path)
    parts = [part.format(data=tmp_path / "data", out=place, checkpoint=tmp_path / "a.pth") for part in call.split()]
    with pytest.raises(SystemExit) as stop:
        main(parts)
    error = capsys.readouterr().err.splitlines()
    assert stop.value.code in (1, 2)
    assert any("rror: " in line for line in error)
    assert not os.path.lexists(place)
