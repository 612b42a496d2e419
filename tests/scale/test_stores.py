"""Stores: local folders and what fsspec knows have the same objects."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from purifier import InputError, OptionError, OutputError
from purifier.scale import purify_dataset
from purifier.scale.stores import Store
from tests.builders import lock_folder


@pytest.fixture(params=["folder", "file://", "memory://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "store"))
    pytest.importorskip("fsspec", reason="needs fsspec, of the extra scale")
    if request.param == "file://":
        return Store(f"file://{tmp_path / 'store'}")
    return Store(f"memory://{tmp_path.name}")


def test_objects_are_listed_read_written_and_removed(store: Store) -> None:
    assert store.is_empty() and store.keys((".png",)) == [] and store.read("a.png") is None
    for key in ("b/c.png", "a.png", ".hidden/d.png", "e.tar"):
        store.write(key, key.encode())
    assert [str(key) for key in store.keys((".png",))] == ["a.png", "b/c.png"]
    assert [str(key) for key in store.below(".hidden").keys((".png",))] == ["d.png"]
    assert store.read("b/c.png") == b"b/c.png" and not store.is_empty()
    with pickle.loads(pickle.dumps(store)).opened("e.tar") as file:
        assert file.read() == b"e.tar"
    store.write("a.png", b"new")
    assert store.read("a.png") == b"new"
    store.remove(["a.png", "a.png"])
    assert store.read("a.png") is None


def test_an_object_whose_writing_fails_does_not_appear(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.created("a.png") as draft:
        draft.write_bytes(b"half")
        raise ZeroDivisionError
    assert store.read("a.png") is None and store.keys((".png",)) == []


def test_an_unknown_address_is_refused() -> None:
    pytest.importorskip("fsspec", reason="needs fsspec, of the extra scale")
    with pytest.raises(OptionError, match="expected an address that fsspec knows, got 'nowhere://a'"):
        Store("nowhere://a").keys((".png",))
    with pytest.raises(OptionError, match="expected an address that fsspec knows, got 'nowhere://a'"):
        Store("nowhere://a").read("a.png")


@pytest.mark.parametrize("suffix", [".png", ".tar"])
def test_a_folder_that_cannot_be_read_is_an_error(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("free", "locked"):
        Store(str(tmp_path)).write(f"{folder}/a{suffix}", b"x")
    lock_folder(monkeypatch, "locked")
    with pytest.raises(InputError, match="locked: Permission denied"):
        Store(str(tmp_path)).keys((suffix,))


def test_linked_folders_are_listed_for_every_kind(tmp_path: Path) -> None:
    Store(str(tmp_path / "data")).write("a.tar", b"x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "data")
    assert [str(key) for key in Store(str(tmp_path / "in")).keys((".tar",))] == ["link/a.tar"]


def test_what_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError, match=r"expected an object that can be read, got a\.png"):
        Store(str(tmp_path)).read("a.png")


def test_outputs_and_sources_that_contain_each_other_are_refused(tmp_path: Path) -> None:
    for package in ("ray", "pyarrow", "fsspec"):
        pytest.importorskip(package, reason="needs the extra scale")
    for source, target in ((tmp_path, tmp_path / "out"), (tmp_path / "in", tmp_path), ("s3://a/b", "s3://a/b/c")):
        with pytest.raises(OptionError, match="expected SRC and DST apart"):
            purify_dataset(source, target, "gs")


def test_what_cannot_be_removed_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder"):
        Store(str(tmp_path)).remove(["folder"])
