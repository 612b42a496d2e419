"""Tar files of WebDataset and Parquet files: pictures are purified, everything else stays."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from purifier import InputError, Purifier
from purifier._images import encode_image
from purifier.scale.items import Purifying
from purifier.scale.manifest import Part
from purifier.scale.parts import Work
from purifier.scale.stores import Store
from tests.scale.pictures import encoded


@pytest.fixture
def work(tmp_path: Path) -> Work:
    (tmp_path / "in").mkdir()
    purifying = Purifying(Purifier.from_pretrained("gs"), 2)
    return Work(Store(str(tmp_path / "in")), Store(str(tmp_path / "out")), purifying)


def purified(content: bytes) -> bytes:
    return encode_image(Purifier.from_pretrained("gs").purify_image(content), "a.png")


def shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))


def unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def test_a_shard_keeps_its_samples_and_their_other_fields(work: Work, tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for number in range(70):
        members |= {f"d/{number}.jpg": encoded(number, "JPEG"), f"d/{number}.cls": b"%d" % number}
    members |= {"d/0.seg.png": b"a mask"}
    ordered = dict(sorted(members.items(), key=lambda member: int(member[0].split("/")[1].split(".")[0])))
    shard(tmp_path / "in" / "0.tar", ordered)
    rows = work.webdataset(Part(["0.tar"], ["0.tar"]))
    found = unpacked(tmp_path / "out" / "0.tar")
    assert [name.replace("png", "jpg") for name in found] == [name.replace("png", "jpg") for name in ordered]
    assert all(found[f"d/{number}.cls"] == b"%d" % number for number in range(70))
    assert found["d/0.seg.png"] == b"a mask", "a mask is no picture to purify"
    assert found["d/7.png"] == purified(members["d/7.jpg"])
    assert rows.written == 70 and rows.columns["key"][0] == "0.tar#d/0.jpg"


def test_a_sample_whose_picture_failed_is_left_out(work: Work, tmp_path: Path) -> None:
    good = encoded(0)
    shard(tmp_path / "in" / "0.tar", {"a.png": b"no picture", "a.cls": b"1", "b.png": good, "b.cls": b"2"})
    rows = work.webdataset(Part(["0.tar"], ["0.tar"]))
    assert unpacked(tmp_path / "out" / "0.tar") == {"b.png": purified(good), "b.cls": b"2"}
    assert rows.failed == 1 and "cannot be read" in rows.columns["error"][0]


def test_the_field_of_the_pictures_is_given_in_any_case(work: Work, tmp_path: Path) -> None:
    good = encoded(0)
    shard(tmp_path / "in" / "0.tar", {"a.Photo.PNG": good, "a.png": good})
    replace(work, image_column="Photo.png").webdataset(Part(["0.tar"], ["0.tar"]))
    assert unpacked(tmp_path / "out" / "0.tar") == {"a.Photo.png": purified(good), "a.png": good}


@pytest.mark.parametrize("column", ["image", "jpeg"])
def test_a_shard_without_pictures_is_refused(column: str, work: Work, tmp_path: Path) -> None:
    shard(tmp_path / "in" / "0.tar", {"a.rgb.png": encoded(0), "a.cls": b"1"})
    with pytest.raises(InputError, match=r"expected pictures in 0\.tar, got none; give the field"):
        replace(work, image_column=column).webdataset(Part(["0.tar"], ["0.tar"]))
    assert not (tmp_path / "out" / "0.tar").exists()


@pytest.mark.parametrize("struct", [True, False])
def test_a_parquet_file_keeps_its_other_columns(struct: bool, work: Work, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow, of the extra scale")
    pq = pytest.importorskip("pyarrow.parquet")
    pictures: list[Any] = [encoded(number, "JPEG") for number in range(5)]
    column: list[Any] = [*pictures, b"no picture", None]
    if struct:
        column = [one if one is None else {"bytes": one, "path": f"{n}.jpg"} for n, one in enumerate(column)]
    table = pa.table({"label": range(7), "image": column}).replace_schema_metadata({"huggingface": "{}"})
    pq.write_table(table, tmp_path / "in" / "a.parquet", row_group_size=3)
    rows = work.parquet(Part(["a.parquet"], ["a.parquet"]))
    found = pq.read_table(tmp_path / "out" / "a.parquet")
    assert found.schema == table.schema and found.schema.metadata == {b"huggingface": b"{}"}
    assert found["label"].to_pylist() == list(range(7))
    expected: list[Any] = [purified(one) for one in pictures]
    if struct:
        assert found["image"].to_pylist()[:5] == [{"bytes": one, "path": f"{n}.png"} for n, one in enumerate(expected)]
        assert found["image"].to_pylist()[5:] == [None, None]
    else:
        assert found["image"].to_pylist() == [*expected, None, None]
    assert rows.written == 5 and rows.failed == 2 and sorted(rows.columns["key"])[4] == "a.parquet#4"


def test_a_parquet_file_without_the_column_says_which_it_has(work: Work, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow, of the extra scale")
    pytest.importorskip("pyarrow.parquet").write_table(pa.table({"x": [1]}), tmp_path / "in" / "a.parquet")
    with pytest.raises(InputError, match=r"expected a column 'image' in a\.parquet, got x; give its name"):
        work.parquet(Part(["a.parquet"], ["a.parquet"]))
    assert not (tmp_path / "out" / "a.parquet").exists()
