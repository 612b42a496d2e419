"""Whatever a folder holds, it loads to a purifier that works, or is refused with an error of ours."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from purifier import Purifier, PurifierError, WeightsError
from purifier._untrusted import parse_json
from tests.builders import pictures, small_purifier
from tests.properties.hostile import spoil

QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LONG = settings(QUICK, max_examples=2000, derandomize=False)
IMAGES = pictures(1, 3, 12, 14)
_opened: list[str] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes):
        _opened.append(str(arguments[0]))


sys.addaudithook(_listen)


def check(parent: Path, seed: int) -> str:
    """Spoils a folder and loads it; returns what became of it."""
    shutil.rmtree(parent, ignore_errors=True)
    small_purifier("ncis" if seed % 3 else "gs").save_pretrained(parent / "saved")
    small_purifier("ncis").save_pretrained(parent / "other")
    (parent / "other" / "model.safetensors").rename(parent / "outside.safetensors")
    spoil(parent / "saved", seed)
    _opened.clear()
    try:
        purify = Purifier.from_pretrained(parent / "saved")
    except PurifierError as error:
        assert len(str(error)) < 3000 and "\x1b" not in str(error)
        said = type(error).__name__
    else:
        torch.manual_seed(0)
        out = purify(IMAGES)
        assert out.shape == IMAGES.shape and bool(out.isfinite().all())
        purify.save_pretrained(parent / "again")
        torch.manual_seed(0)
        assert torch.equal(Purifier.from_pretrained(parent / "again")(IMAGES), out)
        said = "loads"
    assert not [path for path in _opened if "outside" in path or path.startswith(("/etc/passwd", "/dev/zero", "/proc"))]
    return said


@given(seed=st.integers(0, 10**9))
@QUICK
def test_a_hostile_folder_loads_or_is_refused(seed: int, tmp_path: Path) -> None:
    assert check(tmp_path / "work", seed) in ("loads", "WeightsError", "NoWeightsError")


@pytest.mark.fuzz
@given(seed=st.integers(0, 10**9))
@LONG
def test_many_hostile_folders_load_or_are_refused(seed: int, tmp_path: Path) -> None:
    assert check(tmp_path / "work", seed) in ("loads", "WeightsError", "NoWeightsError")


@given(data=st.binary(max_size=200) | st.text(alphabet='[]{}":,0123456789.eE-\\u\n', max_size=200).map(str.encode))
@settings(QUICK, max_examples=300)
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        parse_json(data, "a.json")
    except WeightsError as error:
        assert str(error).startswith(("a.json is not JSON", "expected a.json with"))
