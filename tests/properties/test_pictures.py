"""Whatever is in a file, a picture is read right or refused in our words."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from purifier import InputError
from purifier._images import put_together, read_size, take_apart, write_image
from purifier._opening import FORMATS
from purifier.data.images import read_mask
from tests.properties.amount import examples

Image.init()
# Pillow's SPIDER writer changes which format the ending .png stands for; IM warns of itself.
KINDS = sorted(set(Image.SAVE) - {"SPIDER", "IM", "PDF", "HDF5", "GRIB", "BUFR", "WMF"})
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"]


@st.composite
def contents(draw: Any) -> bytes:
    """The content of a file of any format that Pillow writes, perhaps with a few bytes changed or cut off."""
    width, height = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (height, width, 4)).astype(np.uint8)
    mode = draw(st.sampled_from(MODES))
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray(values[..., 0].astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    else:
        image = Image.fromarray(values).convert("RGBA" if mode in ("LA", "RGBA") else "RGB").convert(mode)
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["exif"] = draw(st.sampled_from([b"junk", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]))
    buffer = io.BytesIO()
    try:
        image.save(buffer, draw(st.sampled_from(KINDS + list(FORMATS) * 4)), **options)
    except Exception:
        return draw(st.binary(max_size=60))
    content = bytearray(buffer.getvalue())
    for place, value in draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4)):
        content[place % len(content)] = value
    return bytes(content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


def tried(read: Any, *arguments: Any) -> Any:
    """What a function returns, or None if it refuses its arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about damaged files
        try:
            return read(*arguments)
        except InputError as error:
            assert str(error).startswith(("expected", "/", "bytes:")) and len(str(error)) < 1500
            return None


@given(content=contents(), name=st.sampled_from(["a.png", "b.jpg", "c.tif", "d"]))
@examples(80)
def test_every_file_is_read_or_refused(content: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    picture, size, mask = tried(take_apart, path), tried(read_size, path), tried(read_mask, path)
    again = tried(take_apart, content)
    assert (picture is None) == (again is None)
    if picture is not None:
        assert picture.size == size and np.array_equal(picture.pixels, again.pixels)
        assert picture.rgb.min() >= 0 and picture.rgb.max() <= 1
    assert mask is None or (mask.ndim == 2 and mask.dtype == np.int32)


@given(content=contents(), suffix=st.sampled_from([".png", ".tif", ".webp", ".bmp", ".ppm"]))
@examples(80)
def test_what_is_read_is_written_and_read_again_bit_for_bit(content: bytes, suffix: str, tmp_path: Path) -> None:
    picture = tried(take_apart, content)
    if picture is None:
        return
    path = tmp_path / f"a{suffix}"
    path.unlink(missing_ok=True)
    tried(write_image, put_together(picture, picture.rgb), path)
    assert path.exists() or suffix in (".webp", ".bmp", ".ppm")  # which do not hold 16 bits or transparency
    if path.exists():
        written = take_apart(path)
        same = written.pixels if written.pixels.ndim == picture.pixels.ndim else written.pixels[..., 0]
        assert np.array_equal(same, picture.pixels)
        opaque = picture.alpha is None or suffix == ".webp"  # WebP leaves out an alpha that hides nothing
        assert opaque or np.array_equal(np.asarray(written.alpha), np.asarray(picture.alpha))


@given(kind=st.integers(0, 13), count=st.sampled_from([0, 1, 2, 2**32 - 1]), value=st.binary(min_size=4, max_size=4))
@examples(80)
def test_any_orientation_is_applied_or_ignored(kind: int, count: int, value: bytes, tmp_path: Path) -> None:
    entry = struct.pack("<HHHI", 1, 0x0112, kind, count) + value
    path = tmp_path / "a.jpg"
    Image.new("RGB", (5, 3)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0" + entry + bytes(4))
    picture = tried(take_apart, path)
    turned = kind in (3, 4, 8, 9) and count == 1 and 5 <= value[0] <= 8
    assert picture.size == tried(read_size, path)
    assert picture.size == (3, 5) if not turned else picture.size in ((3, 5), (5, 3))
