"""Opening picture files: only the named formats, whatever a file is called, and every failure in our words."""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from purifier import InputError, OptionError, Purifier
from purifier._images import read_size, take_apart
from purifier._opening import FORMATS, SUFFIXES, check_file, is_file, is_folder, opened
from purifier.data.images import read_mask


def written(kind: str, path: Path, mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, kind)
    path.write_bytes(content.getvalue())
    return path


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", list(FORMATS))
@pytest.mark.parametrize("name", ["a.png", "b.jpg", "c"])
def test_a_format_is_recognised_whatever_the_name_ends_in(kind: str, name: str, tmp_path: Path) -> None:
    path = written(kind, tmp_path / name)
    with opened(path) as image:
        assert image.format == kind
    assert read_size(path) == (6, 8)
    assert take_apart(path).rgb.shape == (3, 6, 8)


def test_the_endings_are_those_that_pillow_writes_the_formats_to() -> None:
    Image.init()
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in SUFFIXES} <= {*FORMATS, "MPO", "DIB"}


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "MSP", "XBM", "DDS", "JPEG2000"])
def test_other_formats_are_refused_under_the_name_of_a_png(kind: str, tmp_path: Path) -> None:
    mode = {"MSP": "1", "XBM": "1"}.get(kind, "RGB")
    path = written(kind, tmp_path / "photo.png", mode)
    for read in (take_apart, read_size, read_mask):
        with pytest.raises(
            InputError, match=r"photo\.png, which cannot be read: its format is unknown or not one of PNG"
        ):
            read(path)


def test_a_postscript_file_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gs", "gswin32c", "gswin64c"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "photo.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    for read in (take_apart, read_mask, Purifier.from_pretrained("gs").purify_image):
        with pytest.raises(InputError, match="its format is unknown"):
            read(path)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(("width", "height"), [(12_000, 9_000), (20_000, 20_000), (1_000_000, 1_000_000)])
def test_a_picture_of_too_many_pixels_is_refused_in_our_words(width: int, height: int, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_that_claims(width, height))
    message = (
        rf"a\.png: expected at most 89.5 megapixels, got {width} x {height} pixels .*--max-megapixels .*max_pixels"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (take_apart, read_size, read_mask):
            with pytest.raises(InputError, match=message):
                read(tmp_path / "a.png")


def test_the_number_of_pixels_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written("PNG", tmp_path / "a.png", size=(20, 10))
    purify = Purifier.from_pretrained("gs", iterations=0)
    with pytest.raises(InputError, match=r"at most 0.000199 megapixels, got 20 x 10 pixels"):
        purify.purify_image(path, max_pixels=199)
    assert purify.purify_image(path, max_pixels=200).size == (20, 10)
    (tmp_path / "b.png").write_bytes(png_that_claims(15_000, 15_000))
    assert read_size(tmp_path / "b.png", max_pixels=3e8) == (15_000, 15_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_size(tmp_path / "b.png") == (15_000, 15_000)


@pytest.mark.parametrize("limit", [0, -5, float("nan"), "many", True])
def test_a_number_of_pixels_that_is_none_is_refused(limit: Any, tmp_path: Path) -> None:
    path = written("PNG", tmp_path / "a.png")
    with pytest.raises(OptionError, match="expected max_pixels to be a number from 1"):
        take_apart(path, max_pixels=limit)


def test_missing_files_addresses_and_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got .*none\.png, which does not exist or is not a file"):
        check_file(tmp_path / "none.png")
    with pytest.raises(InputError, match="which does not exist or is not a file"):
        check_file(tmp_path)
    for address in ("https://example.org/a.png", "s3://bucket/a.png", "HTTP://x/y"):
        with pytest.raises(InputError, match=f"expected an image file, got the address {address}; download it first"):
            take_apart(address)
    with pytest.raises(InputError, match=r"got the address .*; download it first"):
        take_apart("data:image/png;base64,AAAA")
    with pytest.raises(InputError, match="File name too long"):
        take_apart("x" * 300)
    with pytest.raises(InputError, match="does not exist"):
        take_apart("a\0b.png")
    assert is_folder(tmp_path) and not is_file(tmp_path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written("PNG", tmp_path / "a.png")

    def refusing(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with (
        monkeypatch.context() as patch,
        pytest.raises(InputError, match=r"a\.png, which cannot be read: Permission den"),
    ):
        patch.setattr(Path, "open", refusing)
        take_apart(path)
    with monkeypatch.context() as patch, pytest.raises(InputError, match=r"a\.png: Permission denied"):
        patch.setattr(Path, "stat", refusing)
        take_apart(path)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, io.BytesIO])
def test_content_and_file_objects_are_read_as_the_file(form: Any, tmp_path: Path) -> None:
    path = written("PNG", tmp_path / "a.png")
    assert np.array_equal(take_apart(form(path.read_bytes())).pixels, take_apart(path).pixels)
    with path.open("rb") as file:
        file.read(7)
        assert np.array_equal(take_apart(file).pixels, take_apart(path).pixels)


def test_content_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = written("PNG", tmp_path / "a.png")
    for content in (b"", b"P", b"no picture"):
        with pytest.raises(InputError, match="got bytes, which cannot be read: its format is unknown"):
            take_apart(content)
    with pytest.raises(InputError, match="got bytes, which cannot be read"):
        take_apart(path.read_bytes()[:60])
    with pytest.raises(
        InputError, match="a file object: expected a binary file, got one of str; open it with mode 'rb'"
    ):
        take_apart(io.StringIO("text"))
    closed = io.BytesIO(path.read_bytes())
    closed.close()
    with pytest.raises(InputError, match=r"got a file object, which cannot be read: .*closed"):
        take_apart(closed)
