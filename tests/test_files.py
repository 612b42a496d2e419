"""Files are absent, old or whole, whoever writes into the same folder and whenever a process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from purifier import OutputError, _files
from purifier._files import create_text, locked, replacing, sweep, write_text


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old\n")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_until_the_end_the_old_file_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == tmp_path and temporary.name.startswith(".")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_that_a_file_may_have_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("\N{CJK UNIFIED IDEOGRAPH-6C34}" * 83 + ".txt")
    write_text(path, "kept")
    assert path.read_text() == "kept" and list(tmp_path.iterdir()) == [path]


def test_many_writers_with_one_process_number_each_write_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in containers on one volume, where every process is number 1.
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "a.txt"
    texts = [f"{number}" * 10_000 for number in range(40)]
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda text: write_text(path, text), texts))
    assert path.read_text() in texts and list(tmp_path.iterdir()) == [path]


def test_a_link_at_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "a.txt").symlink_to("victim")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "victim").read_text() == "mine" and not (tmp_path / "a.txt").is_symlink()


def test_a_temporary_name_that_somebody_took_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_text("mine")
    monkeypatch.setattr(_files.secrets, "token_hex", lambda size: "0" * 16)
    (tmp_path / f".a.txt.{'0' * 16}.part").symlink_to("victim")
    with pytest.raises(OutputError, match="File exists"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_temporary_file_that_is_exchanged_is_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="was exchanged for another file"), replacing(tmp_path / "a.txt") as temporary:
        temporary.unlink()
        temporary.write_text("not ours")
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.parametrize("others", ["locked", "young", "of another program", "a folder"])
def test_only_temporary_files_of_dead_processes_are_removed(tmp_path: Path, others: str) -> None:
    dead, other = (tmp_path / f".a.png.{digit * 16}.part" for digit in "01")
    dead.touch()
    if others == "of another program":
        other = tmp_path / ".download.part"
    if others == "a folder":
        other.mkdir()
    else:
        other.touch()
    os.utime(dead, (0, 0))
    if others != "young":
        os.utime(other, (0, 0))
    if others == "locked":
        with locked(other):
            sweep(tmp_path)
    else:
        sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_where_files_cannot_be_locked_only_old_ones_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "_lock", lambda descriptor: None)
    young, old = (tmp_path / f".a.png.{digit * 16}.part" for digit in "01")
    for path, age in ((young, 60), (old, 3600)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_the_first_write_into_a_folder_removes_leftovers(tmp_path: Path) -> None:
    left = tmp_path / f".a.png.{'0' * 16}.part"
    left.touch()
    os.utime(left, (0, 0))
    write_text(tmp_path / "b.txt", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "b.txt"]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_of_many_that_create_one_file_exactly_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "record"
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda number: create_text(path, str(number) * 1000), range(64)))
    assert sum(made) == 1
    assert path.read_text() == str(made.index(True)) * 1000 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_text, create_text])
@pytest.mark.parametrize("name", ["missing/a.txt", "file/a.txt", "x" * 300, "folder"])
def test_a_file_that_cannot_be_written_is_an_error_of_ours(
    tmp_path: Path, write: Callable[[Path, str], object], name: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    if name == "folder" and write is create_text:
        assert write(tmp_path / name, "text") is False
        return
    with pytest.raises(OutputError, match=r"expected a place that can be written, got .*; choose another place"):
        write(tmp_path / name, "text")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "_LOCK_SECONDS", 0.05)
    with locked(tmp_path) as first, locked(tmp_path) as second:
        assert first and not second
    with locked(tmp_path) as again:
        assert again
    with locked(tmp_path / "nowhere") as missing:
        assert not missing


def test_a_temporary_folder_is_removed_also_after_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from purifier._files import temporary_folder\n"
        "with temporary_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'a').write_text('a'); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "model.onnx")], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "a").is_file()
    os.utime(left, (0, 0))
    with _files.temporary_folder(tmp_path / "model.onnx") as first:
        os.utime(first, (0, 0))
        with _files.temporary_folder(tmp_path / "model.onnx") as second:
            assert {first, second} == set(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
