"""Image files to tensors and back: nothing that a purifier does not touch is lost or made up."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from purifier import InputError, Purifier
from purifier._images import put_together, read_size, take_apart, write_image
from purifier.commands.purify import run
from purifier.data.outputs import plan

SIZE = (7, 5)  # width, height


def noise(*shape: int, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def picture_of(mode: str) -> Image.Image:
    width, height = SIZE
    if mode == "I;16":
        return Image.fromarray(noise(height, width, high=65536, dtype=np.uint16))
    rgba = Image.fromarray(noise(height, width, 4))
    if mode in ("RGBA", "LA"):
        return rgba.convert(mode)
    return rgba.convert("RGB").convert(mode)


def unchanged(path: Path) -> Image.Image:
    picture = take_apart(path)
    return put_together(picture, picture.rgb)


def png_of_16_bits(colour_type: int, channels: int, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width, height = SIZE
    rows = b"".join(b"\0" + noise(width * channels, high=65536, dtype=np.uint16).tobytes() for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_a_picture_taken_apart_and_put_together_is_the_same_picture(mode: str, tmp_path: Path) -> None:
    image = picture_of(mode)
    image.save(tmp_path / "a.png")
    again = unchanged(tmp_path / "a.png")
    assert again.mode == mode
    assert np.array_equal(np.asarray(again), np.asarray(image))


def test_a_bilevel_picture_comes_back_grey(tmp_path: Path) -> None:
    image = picture_of("1")
    image.save(tmp_path / "a.png")
    again = unchanged(tmp_path / "a.png")
    assert again.mode == "L"
    assert np.array_equal(np.asarray(again), np.asarray(image.convert("L")))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 256, 2))])
def test_a_palette_picture_comes_back_in_its_colours_and_transparency(
    transparency: int | bytes | None, tmp_path: Path
) -> None:
    image = picture_of("P")
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    with Image.open(tmp_path / "a.png") as stored:
        expected = stored.convert("RGB" if transparency is None else "RGBA")
    again = unchanged(tmp_path / "a.png")
    assert again.mode == expected.mode
    assert np.array_equal(np.asarray(again), np.asarray(expected))


@pytest.mark.parametrize(("mode", "key", "back"), [("L", 7, "LA"), ("RGB", (1, 2, 3), "RGBA")])
def test_a_transparent_colour_becomes_an_alpha_channel(mode: str, key: object, back: str, tmp_path: Path) -> None:
    image = Image.new(mode, SIZE, key)
    image.putpixel((0, 0), 200 if mode == "L" else (200, 200, 200))
    image.save(tmp_path / "a.png", transparency=key)
    again = unchanged(tmp_path / "a.png")
    assert again.mode == back
    alpha = np.asarray(again.getchannel("A"))
    assert alpha[0, 0] == 255
    assert alpha.sum() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("mode", "name"), [("RGB", "a.png"), ("LA", "a.png"), ("I;16", "a.png"), ("RGB", "a.tif")])
def test_the_exif_orientation_is_applied_and_the_size_is_known_beforehand(
    orientation: int, mode: str, name: str, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture_of(mode)
    image.save(tmp_path / name, exif=exif)
    pixels = np.asarray(image)
    expected = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(pixels),
    }[orientation]
    again = unchanged(tmp_path / name)
    assert np.array_equal(np.asarray(again), expected)
    assert read_size(tmp_path / name) == expected.shape[:2]
    assert not again.getexif().get(0x0112)


def test_values_are_in_unit_range_and_channels_come_first() -> None:
    picture = take_apart(np.full((2, 3, 3), 255, np.uint8))
    assert picture.rgb.shape == (3, 2, 3)
    assert picture.rgb.dtype == torch.float32
    assert bool((picture.rgb == 1).all())


def test_sixteen_bits_are_kept_by_the_purifier(tmp_path: Path) -> None:
    image = picture_of("I;16")
    image.save(tmp_path / "a.png")
    purified = Purifier.from_pretrained("gs", iterations=0).purify_image(tmp_path / "a.png")
    assert np.array_equal(np.asarray(purified), np.asarray(image))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_picture_keeps_its_lower_bits_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    ramp = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16)
    purify = Purifier.from_pretrained("gs", iterations=0, dtype=dtype)
    assert np.array_equal(np.asarray(purify.purify_image(ramp)), np.asarray(ramp))
    assert purify.dtype == dtype
    # Between two pictures of 8 bits, of the same size.
    ramp.save(tmp_path / "b.png")
    for name in ("a", "c"):
        Image.new("RGB", (64, 64), (1, 2, 3)).save(tmp_path / f"{name}.png")
    found = run(plan(tmp_path, tmp_path / "out"), purify)
    assert (found.written, found.failures) == (3, [])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "b.png")), np.asarray(ramp))
    assert np.asarray(Image.open(tmp_path / "out" / "c.png"))[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_colour_profile_and_resolution_are_written_again(mode: str, tmp_path: Path) -> None:
    picture_of(mode).save(tmp_path / "a.png", icc_profile=b"a profile", dpi=(300, 300))
    write_image(unchanged(tmp_path / "a.png"), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as again:
        assert again.info["icc_profile"] == b"a profile"
        assert again.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_cmyk_profile_is_dropped(tmp_path: Path) -> None:
    picture_of("CMYK").save(tmp_path / "a.jpg", icc_profile=b"inks")
    again = unchanged(tmp_path / "a.jpg")
    assert again.mode == "RGB"
    assert "icc_profile" not in again.info


@pytest.mark.parametrize("dpi", [(float("nan"), 1.0), (0, 0), "high", (72,)])
def test_a_nonsensical_resolution_is_dropped(dpi: object) -> None:
    image = picture_of("RGB")
    image.info["dpi"] = dpi
    picture = take_apart(image)
    assert "dpi" not in picture.info


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bit_colour_and_alpha_are_refused_instead_of_cut(
    colour_type: int, channels: int, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png_of_16_bits(colour_type, channels))
    with pytest.raises(InputError, match=r"a\.png: expected .* got 16 bits per channel in colour or with alpha"):
        take_apart(tmp_path / "a.png")


def test_sixteen_bit_grey_with_a_transparent_value_is_refused(tmp_path: Path) -> None:
    data = struct.pack(">I", 2) + b"tRNS" + b"\0\7" + struct.pack(">I", zlib.crc32(b"tRNS\0\7"))
    (tmp_path / "a.png").write_bytes(png_of_16_bits(0, 1, data))
    with pytest.raises(InputError, match="16-bit grey without transparency"):
        take_apart(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_kinds_that_would_lose_information_are_refused(mode: str) -> None:
    with pytest.raises(InputError, match=f"8 bits per channel or 16-bit grey, got mode '{mode}'"):
        take_apart(Image.new(mode, SIZE))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.tif", "the pages of a TIFF stack; save each page as a file"),
        ("a.webp", r"an animation \(WEBP\); save each frame"),
        ("a.png", r"an animation \(PNG\)"),
        ("a.gif", r"an animation \(GIF\)"),
    ],
)
def test_several_frames_are_refused_by_their_kind(name: str, said: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=f"a single picture, got 2 frames, {said}"):
        take_apart(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        image.seek(1)
        assert take_apart(image.copy()).size == SIZE[::-1]


def test_the_photograph_of_a_phones_jpeg_with_a_preview_is_read(tmp_path: Path) -> None:
    photograph, preview = Image.new("RGB", (64, 32), "red"), Image.new("RGB", (16, 8), "blue")
    photograph.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.format == "MPO"
    rgb = take_apart(tmp_path / "a.jpg").rgb
    assert rgb.shape == (3, 32, 64)
    assert rgb[0].min() > 0.9


@pytest.mark.parametrize("read", [take_apart, read_size])
def test_a_file_that_is_not_an_image_is_refused(read: object, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(InputError, match=r"expected an image file, got .*a\.png, .* its format is unknown"):
        read(tmp_path / "a.png")  # type: ignore[operator]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"expected an image file, got .*a\.\w+, which cannot be read"):
        take_apart(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist or is not a file"):
        take_apart(tmp_path / "a.png")


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4), (1, 1)])
def test_arrays_of_every_layout_are_read(shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    again = np.asarray(put_together(take_apart(array), take_apart(array).rgb))
    assert np.array_equal(again, array[..., 0] if shape[2:] == (1,) else array)
    turned = np.asfortranarray(array)
    assert np.array_equal(take_apart(turned).pixels, take_apart(array).pixels)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((3, 5, 6), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((), np.uint8),
    ],
)
def test_other_arrays_are_refused_with_what_was_expected(array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected a uint8 array of shape \(H, W\), .* got (float32|uint8) of shape"):
        take_apart(array)


def test_a_damaged_or_closed_pil_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "cut.png") as cut, pytest.raises(InputError, match="a PIL image that can be decoded"):
        take_apart(cut)
    with Image.open(tmp_path / "a.png") as closed:
        pass
    with pytest.raises(InputError, match=r"got one that cannot: .*; open its file again"):
        take_apart(closed)


@pytest.mark.parametrize("junk", [b"junk", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0" + bytes(range(256))])
@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
@pytest.mark.filterwarnings("ignore")  # of Pillow, about the data
def test_damaged_exif_data_is_left_out(junk: bytes, name: str, tmp_path: Path) -> None:
    picture_of("RGB").save(tmp_path / name, exif=junk)
    with Image.open(tmp_path / name) as image:
        for source in (tmp_path / name, image):
            picture = take_apart(source)
            assert picture.size == SIZE[::-1]
            write_image(put_together(picture, picture.rgb), tmp_path / "again" / name)
    assert read_size(tmp_path / name) == SIZE[::-1]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_exif_data_is_kept_and_its_orientation_reset(name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[271], exif[0x0132] = 6, "Maker", "2026:01:02 03:04:05"
    details = exif.get_ifd(0x8769)
    details[33434], details[0xA002], details[0xA003] = (1, 60), *SIZE
    picture_of("RGB").save(tmp_path / name, exif=exif, dpi=(300, 300), icc_profile=b"a profile")
    write_image(unchanged(tmp_path / name), tmp_path / "again" / name)
    with Image.open(tmp_path / "again" / name) as again:
        assert again.size == SIZE[::-1]
        assert read_size(tmp_path / "again" / name) == SIZE
        assert again.info["icc_profile"] == b"a profile"
        kept = again.getexif()
        assert (kept[271], kept[0x0132], kept.get(0x0112, 1)) == ("Maker", "2026:01:02 03:04:05", 1)
        if name != "a.tif":  # Pillow writes no details into TIFF files
            inner = kept.get_ifd(0x8769)
            assert (inner[33434], inner[0xA002], inner[0xA003]) == ((1, 60), *SIZE[::-1])
        if name != "a.webp":
            assert again.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_exif_data_that_is_too_long_for_a_jpeg_is_left_out(tmp_path: Path) -> None:
    image = picture_of("RGB")
    image.info["exif"] = b"Exif\0\0" + bytes(70_000)
    write_image(image, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as again:
        assert "exif" not in again.info


def test_a_pgm_of_16_bits_stays_16_bits(tmp_path: Path) -> None:
    values = noise(6, 8, high=65536, dtype=np.uint16)
    (tmp_path / "a.pgm").write_bytes(b"P5 8 6 65535\n" + values.astype(">u2").tobytes())
    picture = take_apart(tmp_path / "a.pgm")
    assert np.array_equal(picture.pixels, values)
    write_image(put_together(picture, picture.rgb), tmp_path / "b.pgm")
    assert np.array_equal(take_apart(tmp_path / "b.pgm").pixels, values)


@pytest.mark.parametrize("head", [b"P6 2 2 65535\n" + bytes(24), b"P6 2 2 1023\n" + bytes(24), b"P3 1 1 999\n1 2 3\n"])
def test_a_ppm_of_more_than_8_bits_is_refused_instead_of_cut(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(head)
    with pytest.raises(InputError, match="got 16 bits per channel in colour"):
        take_apart(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").write_bytes(b"P6 2 2 255\n" + bytes(range(12)))
    assert take_apart(tmp_path / "a.ppm").pixels.ravel().tolist() == list(range(12))


def test_a_tensor_is_sent_to_the_purifier() -> None:
    with pytest.raises(InputError, match="tensors go to the purifier itself"):
        take_apart(torch.rand(3, 4, 4))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tif", "a.tiff", "A.PNG"])
def test_written_images_are_read_bit_for_bit(name: str, tmp_path: Path) -> None:
    image = picture_of("RGB")
    write_image(image, tmp_path / "new" / name)
    with Image.open(tmp_path / "new" / name) as again:
        assert np.array_equal(np.asarray(again.convert("RGB")), np.asarray(image))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


@pytest.mark.parametrize(
    ("mode", "name", "message"),
    [
        ("RGBA", "a.jpg", "a format with transparency for 'a.jpg', got JPEG"),
        ("I;16", "a.jpg", "a format with 16 bits per channel for 'a.jpg', got JPEG"),
        ("RGB", "a.txt", r"a file name that ends in one of .png, .*\.pnm, got 'a.txt'; choose .png"),
        ("RGB", "a", "a file name that ends in one of"),
        ("RGB", "a.gif", "got 'a.gif'; .gif holds too few colours; choose .png"),
        ("RGB", "a.pbm", "got 'a.pbm'; .pbm holds too few colours; choose .png"),
        *((mode, f"a{suffix}", "a format with transparency") for mode in ("LA", "RGBA") for suffix in (".bmp", ".ppm")),
    ],
)
def test_formats_that_would_lose_information_are_refused(mode: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        write_image(picture_of(mode), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(picture_of("RGB"), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def half(self: Image.Image, path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="no space left"):
        write_image(picture_of("L"), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
