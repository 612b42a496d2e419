"""Image files and PIL images to float tensors and back; alpha, EXIF, colour profile and resolution are kept."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from purifier._errors import InputError
from purifier._files import replacing, writing
from purifier._metadata import orientation, side_information, upright
from purifier._opening import FORMATS, SUFFIXES, opened
from purifier._walking import make_folders

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_EIGHT_BIT_FORMATS = ("JPEG", "WEBP", "BMP")
_OPAQUE_FORMATS = ("JPEG", "BMP", "PPM")
# Written pictures have more than the 256 colours of GIF and the two of .pbm.
WRITTEN = tuple(suffix for suffix in SUFFIXES if suffix not in (".gif", ".pbm"))
_EXIF_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
# JPEG stores EXIF data in one segment.
_MOST_EXIF = 65_000
# Options with which lossy formats lose nothing, or as little as possible.
_BEST: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}


@dataclass(frozen=True)
class Picture:
    """An image taken apart: the colours, which are purified, and everything else, which is restored afterwards.

    Attributes:
        pixels: (H, W, 3) uint8; for a grey image (H, W), uint8 or uint16.
        alpha: The alpha channel as a PIL image, or None.
        info: Colour profile, resolution and EXIF data, written to the output file.
    """

    pixels: np.ndarray
    alpha: Image | None
    info: dict[str, Any]

    @property
    def sixteen_bit(self) -> bool:
        """Whether the image has 16 bits per channel."""
        return self.pixels.dtype == np.uint16

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def rgb(self) -> Tensor:
        """The colours (3, H, W), float32, in [0, 1]."""
        return self.part(slice(None), slice(None))

    def part(self, rows: slice, columns: slice) -> Tensor:
        """Returns the colours of some rows and columns; otherwise as `rgb`."""
        pixels = self.pixels[rows, columns]
        if self.sixteen_bit:
            return (torch.from_numpy(pixels.astype(np.float32)) / 65535).expand(3, -1, -1)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, 2)
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255

    def to_pixels(self, rgb: Tensor) -> np.ndarray:
        """Returns colours (3, h, w), in [0, 1], in the form of `pixels`."""
        from PIL import Image

        rgb = rgb.detach().cpu().float().clamp(0, 1)
        if self.sixteen_bit:
            return (rgb.mean(0) * 65535).round().numpy().astype(np.uint16)
        pixels = to_uint8(rgb)
        return np.asarray(Image.fromarray(pixels).convert("L")) if self.pixels.ndim == 2 else pixels


def to_uint8(image: Tensor) -> np.ndarray:
    """Returns the pixels (H, W, 3), uint8, of an image (3, H, W) in [0, 1] on the CPU."""
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def take_apart(source: Any, *, turn: bool = True, max_pixels: float | None = None) -> Picture:
    """Reads a picture.

    Args:
        source: PIL image; uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); or a file of one of
            `purifier._opening.FORMATS`: its path, its content as bytes, or a binary file object.
        turn: Whether the EXIF orientation is applied. Pillow always applies that of TIFF files.
        max_pixels: The largest number of pixels of a file; see `opened`.

    Raises:
        InputError: If it cannot be read, or has a kind that would lose information.
    """
    from PIL import Image

    if isinstance(source, np.ndarray):
        return _from_image(_from_array(source), turn)
    if isinstance(source, Image.Image):
        return _from_given(source, turn)
    if isinstance(source, str | os.PathLike):
        source = Path(os.fsdecode(source))
    elif isinstance(source, bytes | bytearray | memoryview):
        source = bytes(source)
    elif not hasattr(source, "read"):
        raise InputError(
            "expected a PIL image, a uint8 array, a path, bytes or a binary file object, got "
            f"{type(source).__name__}; tensors go to the purifier itself"
        )
    with opened(source, max_pixels=max_pixels) as image:
        return _from_image(image, turn)


def read_size(source: Path | bytes, *, turn: bool = True, max_pixels: float | None = None) -> tuple[int, int]:
    """Returns the (height, width) with which `take_apart` will read an image file. Reads the header only.

    Raises:
        InputError: If it is not an image file.
    """
    with opened(source, max_pixels=max_pixels) as image:
        width, height = image.size
        # For a TIFF file, Pillow states the size after turning.
        turned = turn and image.format != "TIFF" and orientation(image) >= 5
    return (width, height) if turned else (height, width)


def put_together(picture: Picture, pixels: np.ndarray | Tensor) -> Image:
    """Returns a PIL image with the kind, alpha and side information of `picture`.

    Args:
        picture: The picture.
        pixels: New colours, either in the form of `picture.pixels` or as (3, H, W) in [0, 1].
    """
    from PIL import Image

    image = Image.fromarray(picture.to_pixels(pixels) if isinstance(pixels, Tensor) else pixels)
    if picture.alpha is not None:
        image.putalpha(picture.alpha)
    image.info.update(picture.info)
    return image


def write_image(image: Image, path: Path) -> None:
    """Writes an image atomically, and losslessly if the format allows it.

    Raises:
        InputError: If the file name's ending is unknown, or its format would lose transparency or bits of the image, or
            cannot hold its size.
    """
    kind = _fitting(image, path.name)
    with writing(path):
        make_folders(path.parent)
    with replacing(path) as temporary:
        _save(image, temporary, kind, path.name)


def encode_image(image: Image, name: str) -> bytes:
    """Returns the bytes that `write_image` would write to a file of this name; raises as it does."""
    file = BytesIO()
    _save(image, file, _fitting(image, name), name)
    return file.getvalue()


def _fitting(image: Image, name: str) -> str:
    """Returns the format for a file name, if it can hold the image."""
    kind = check_suffix(PurePath(name))
    if kind in _OPAQUE_FORMATS and image.mode in ("RGBA", "LA"):
        raise InputError(f"expected a format with transparency for {name!r}, got {kind}; use PNG")
    if kind in _EIGHT_BIT_FORMATS and image.mode in _SIXTEEN_BIT:
        raise InputError(f"expected a format with 16 bits per channel for {name!r}, got {kind}; use PNG or TIFF")
    return kind


def _save(image: Image, file: Path | IO[bytes], kind: str, name: str) -> None:
    options = {key: image.info[key] for key in ("icc_profile", "dpi") if image.info.get(key) is not None}
    exif = image.info.get("exif")
    if exif and kind in _EXIF_FORMATS and (kind != "JPEG" or len(exif) <= _MOST_EXIF):
        options["exif"] = exif
    try:
        image.save(file, kind, **options, **_BEST.get(kind, {}))
    except (ValueError, SystemError, struct.error) as error:
        raise InputError(f"expected a picture that {kind} can hold for {name!r}, got {error}; use PNG") from error


def check_suffix(path: PurePath) -> str:
    """Returns the format for a file name's ending, such as "PNG".

    Raises:
        InputError: If the ending is not one of `WRITTEN`.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITTEN:
        why = f" {suffix} holds too few colours;" if suffix in SUFFIXES else ""
        raise InputError(
            f"expected a file name that ends in one of {', '.join(WRITTEN)}, got {path.name!r};{why} choose .png, "
            "which is lossless"
        )
    return next(kind for kind, endings in FORMATS.items() if suffix in endings)


def _from_given(image: Image, turn: bool) -> Picture:
    try:
        return _from_image(image, turn)
    except InputError:
        raise
    except Exception as error:  # decoders raise many kinds of errors on damaged or closed files
        raise InputError(
            f"expected a PIL image that can be decoded, got one that cannot: {str(error) or type(error).__name__}; "
            "open its file again, and call load() before the file is closed"
        ) from error


def _check_depth(image: Any) -> None:
    """Refuses images with 16 bits per channel in colour or with alpha. Pillow would drop their lower 8 bits."""
    arguments = [argument for tile in getattr(image, "tile", ()) for argument in tile[1:]]
    deep = ";16" in " ".join(map(str, arguments)) and image.mode not in (*_SIXTEEN_BIT, "I")
    # PPM states the largest value instead.
    largest = [int(value) for value in re.findall(r"\b\d+\b", str(arguments[-1:]))] if image.format == "PPM" else []
    if deep or (image.mode == "RGB" and max(largest, default=0) > 255):
        raise InputError(
            "expected an image of 8 bits per channel or 16-bit grey, got 16 bits per channel in colour or with alpha; "
            "convert it to 8 bits first"
        )


def _check_single(image: Any) -> None:
    frames = getattr(image, "n_frames", 1)
    # The first frame of a phone's MPO file is the photograph; the others are a preview or a gain map.
    if frames <= 1 or image.format == "MPO":
        return
    if image.format == "TIFF":
        raise InputError(
            f"expected a single picture, got {frames} frames, the pages of a TIFF stack; save each page as a file of "
            "its own first (with Pillow, image.seek(page) and image.copy())"
        )
    raise InputError(
        f"expected a single picture, got {frames} frames, an animation ({image.format}); save each frame as a file of "
        "its own first (with Pillow, image.seek(frame) and image.copy())"
    )


def _from_image(image: Image, turn: bool) -> Picture:
    _check_depth(image)
    _check_single(image)
    if image.mode not in (*_MODES, *_SIXTEEN_BIT) and not _wide_grey(image):
        raise InputError(
            f"expected an image of 8 bits per channel or 16-bit grey, got mode {image.mode!r}; convert it first, for "
            "example with image.convert('RGB')"
        )
    image.load()
    source, image = image, upright(image) if turn else image
    info = side_information(source, image.size)
    if image.mode in (*_SIXTEEN_BIT, "I"):
        if "transparency" in source.info:
            raise InputError("expected 16-bit grey without transparency, got a transparent value; convert it first")
        return Picture(np.array(image).astype(np.uint16), None, info)
    alpha, grey = None, image.mode in ("1", "L", "LA")
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    wanted = "L" if grey else "RGB"
    return Picture(np.array(image if image.mode == wanted else image.convert(wanted)), alpha, info)


def _wide_grey(image: Image) -> bool:
    """Whether it is grey of 16 bits, which Pillow reads from .pgm files into 32 bits."""
    return image.mode == "I" and image.format == "PPM"


def _from_array(array: np.ndarray) -> Image:
    from PIL import Image

    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if flat.dtype != np.uint8 or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] in (3, 4))) or not flat.size:
        raise InputError(
            "expected a uint8 array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got "
            f"{array.dtype} of shape {array.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(flat))
