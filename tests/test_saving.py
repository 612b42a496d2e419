"""Saving over a purifier: kills, threads, processes and full disks leave the old or the new one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from purifier import OptionError, OutputError, Purifier, PurifierError, WeightsError, _files, _format
from tests.builders import edit_config, pictures, small_purifier
from tests.savers import versions, which

IMAGES = pictures(1, 3, 12, 14)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_purifier(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    call = [sys.executable, "-m", "tests.savers", str(folder), "12", "0"]
    done = subprocess.run(call, capture_output=True, text=True, check=True, timeout=300)
    assert "None" not in done.stdout and done.stdout.startswith("[(")
    time.sleep(1.1)
    small_purifier("ncis").save_pretrained(folder)
    weights = {name for name in names(folder) if name.endswith(".safetensors")}
    assert names(folder) == {"README.md", "config.json", *weights} and len(weights) == 1


def test_what_a_save_left_that_was_killed_during_this_one_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_purifier("ncis").save_pretrained(tmp_path)
    left = tmp_path / "model-00002-of-00004.safetensors"
    left.write_bytes(b"weights of a save that was killed")
    journal = tmp_path / f".{_files.JOURNAL}.{'0' * 16}.part"
    journal.write_text(json.dumps({left.name: hashlib.sha256(left.read_bytes()).hexdigest()}))
    monkeypatch.setattr(_files, "_STALE_SECONDS", 0.5)
    pack = _format._pack

    def slowly(state: object) -> object:
        time.sleep(0.7)
        return pack(state)  # type: ignore[arg-type]

    monkeypatch.setattr(_format, "_pack", slowly)
    small_purifier("ncis").save_pretrained(tmp_path)
    assert names(tmp_path) == {"README.md", "config.json", "model.safetensors"}


def test_a_fresh_folder_has_the_usual_names_and_a_second_save_has_names_of_its_own_content(tmp_path: Path) -> None:
    first, second, _ = versions()
    first.save_pretrained(tmp_path)
    assert names(tmp_path) == {"README.md", "config.json", "model.safetensors"}
    second.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    (digest,) = _format.digests(second.method.state_dict()).values()
    assert file.name == f"model-{digest[:16]}.safetensors" and names(tmp_path) == {
        "README.md",
        "config.json",
        file.name,
    }
    second.save_pretrained(tmp_path)
    first.save_pretrained(tmp_path)
    assert which(Purifier.from_pretrained(tmp_path), versions()) == 0
    assert len(names(tmp_path)) == 3


def test_saving_the_same_purifier_again_mends_a_damaged_file(tmp_path: Path) -> None:
    small_purifier("ncis").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    small_purifier("ncis").save_pretrained(tmp_path)
    assert names(tmp_path) == {"README.md", "config.json", "model.safetensors"}
    Purifier.from_pretrained(tmp_path)


def test_a_weights_file_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    small_purifier("ncis").save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"mine"
    assert which(Purifier.from_pretrained(tmp_path), versions()) == 0


def test_threads_that_save_into_one_folder_leave_one_whole_purifier(tmp_path: Path) -> None:
    known = versions()
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(known[number % 3].save_pretrained, tmp_path) for number in range(24)]:
            done.result()
    found = which(Purifier.from_pretrained(tmp_path), known)
    assert found is not None
    assert len(names(tmp_path)) == (2 if found == 2 else 3)


def test_a_purifier_loads_while_others_are_saved_over_it(tmp_path: Path) -> None:
    known = versions()
    known[0].save_pretrained(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        saving = pool.submit(lambda: [known[number % 3].save_pretrained(tmp_path) for number in range(30)])
        while not saving.done():
            assert which(Purifier.from_pretrained(tmp_path), known) is not None
        saving.result()


def test_without_locks_threads_still_leave_one_whole_purifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purifier._files._lock", lambda descriptor: None)
    known = versions()[:2]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(known[number % 2].save_pretrained, tmp_path) for number in range(8)]:
            done.result()
    assert which(Purifier.from_pretrained(tmp_path), known) is not None


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["os.fsync", "pathlib.Path.write_bytes", "pathlib.Path.replace"])
def test_a_full_disk_is_an_error_of_ours_and_leaves_the_old_purifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    first, second, _ = versions()
    first.save_pretrained(tmp_path)
    there = names(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(function, full)
        with pytest.raises(OutputError, match=r"expected a place that can be written, got .*: No space left .*; free"):
            second.save_pretrained(tmp_path)
    assert names(tmp_path) == there
    assert which(Purifier.from_pretrained(tmp_path), versions()) == 0


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file" / "saved"


def with_a_folder_for_config(folder: Path) -> Path:
    (folder / "config.json").mkdir()
    return folder


def with_too_long_a_name(folder: Path) -> Path:
    return folder / ("x" * 300)


@pytest.mark.parametrize("place", [below_a_file, with_a_folder_for_config, with_too_long_a_name])
def test_a_place_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    with pytest.raises(PurifierError, match="expected a place that can be written, got"):
        small_purifier("ncis").save_pretrained(place(tmp_path))


@pytest.mark.parametrize("name", ["two\nlines", "\ud800", "\x1b[31m", "x" * 3000], ids=ascii)
def test_a_name_that_could_not_be_read_back_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="expected a short printable name to save under, got"):
        Purifier(small_purifier("gs").method, name=name).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_leftovers_of_a_killed_save_are_removed_and_files_of_others_are_not(tmp_path: Path) -> None:
    first, second, third = versions()
    second.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "mine.safetensors")
    first.save_pretrained(tmp_path)
    (digest,) = json.loads((tmp_path / "config.json").read_text())["files"].values()
    edit_config(tmp_path, files={})
    journal = tmp_path / f".saving.json.{'0' * 16}.part"
    journal.write_text(json.dumps({"model.safetensors": digest, "mine.safetensors": "0" * 64, "../a.safetensors": ""}))
    os.utime(journal, (0, 0))
    third.save_pretrained(tmp_path)
    assert names(tmp_path) == {"README.md", "config.json", "mine.safetensors"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_weights_that_would_not_load_are_not_saved(value: float | None, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    small_purifier("ncis").save_pretrained(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    broken = small_purifier("ncis")
    if value is None:
        broken.to("meta")
    else:
        next(iter(broken.state_dict().values())).view(-1)[0] = value
    with pytest.raises(WeightsError, match="to save, got .* on 'meta'" if value is None else "infinity or NaN in"):
        broken.save_pretrained(folder)
    with pytest.raises(WeightsError):
        broken.save_pretrained(tmp_path / "new")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before and names(tmp_path) == {"saved"}
