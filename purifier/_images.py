"""Image files and PIL images to float tensors and back; alpha, colour profile and resolution are kept."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from purifier._errors import InputError
from purifier._files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_EIGHT_BIT_FORMATS = ("JPEG", "WEBP", "BMP")
_ORIENTATION = 0x0112
# Options with which lossy formats lose nothing, or as little as possible.
_BEST: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}


def images_below(folder: Path) -> list[Path]:
    """Returns every image file below a folder, sorted.

    Hidden files and folders are skipped. Links to folders are followed, except in circles. A missing folder yields no
    images.

    Raises:
        InputError: If a folder cannot be read.
    """
    return sorted(_below(folder, frozenset()))


def _below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above or not folder.is_dir():
        return
    try:
        inside = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"expected a folder that can be read, got {folder}: {error.strerror}") from error
    for path in inside:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _below(path, above | {real})
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def no_images(*folders: Path) -> InputError:
    """Returns the error for folders without images."""
    return InputError(f"expected images ({', '.join(SUFFIXES)}) below {', '.join(map(str, folders))}, got none")


@dataclass(frozen=True)
class Picture:
    """An image taken apart: the colours, which are purified, and everything else, which is restored afterwards.

    Attributes:
        rgb: (3, H, W), float32, in [0, 1].
        grey: Whether the image had one colour channel.
        sixteen_bit: Whether the image had 16 bits per channel.
        alpha: The alpha channel as a PIL image, or None.
        info: Colour profile and resolution, written to the output file.
    """

    rgb: Tensor
    grey: bool
    sixteen_bit: bool
    alpha: Image | None
    info: dict[str, Any]


def take_apart(source: Any, *, turn: bool = True) -> Picture:
    """Reads a PIL image, an array or a file.

    Args:
        source: PIL image; uint8 array (H, W), (H, W, 3) or (H, W, 4); or a path.
        turn: Whether the EXIF orientation is applied. Pillow always applies that of TIFF files.

    Raises:
        InputError: If it cannot be read, or has a kind that would lose information.
    """
    from PIL import Image

    if isinstance(source, str | os.PathLike):
        return _from_file(Path(source), turn)
    if isinstance(source, np.ndarray):
        return _from_image(_from_array(source))
    if isinstance(source, Image.Image):
        return _from_image(source, turn)
    raise InputError(
        f"expected a PIL image, a uint8 array or a path, got {type(source).__name__}; tensors go to the purifier itself"
    )


def read_size(path: Path, *, turn: bool = True) -> tuple[int, int]:
    """Returns the (height, width) with which `take_apart` will read an image file. Reads the file's header only.

    Raises:
        InputError: If it is not an image file.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            # For a TIFF file, Pillow states the size after turning.
            turned = turn and image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception as error:  # decoders raise many kinds of errors on damaged files
        raise _unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def put_together(picture: Picture, rgb: Tensor) -> Image:
    """Returns a PIL image of `rgb`, (3, H, W) in [0, 1], with the kind, alpha and profile of `picture`."""
    from PIL import Image

    rgb = rgb.detach().cpu().float().clamp(0, 1)
    if picture.sixteen_bit:
        image = Image.fromarray((rgb.mean(0) * 65535).round().numpy().astype(np.uint16))
    else:
        image = Image.fromarray((rgb * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
    if picture.grey and not picture.sixteen_bit:
        image = image.convert("L")
    if picture.alpha is not None:
        image.putalpha(picture.alpha)
    image.info.update(picture.info)
    return image


def write_image(image: Image, path: Path) -> None:
    """Writes an image atomically, and losslessly if the format allows it.

    Raises:
        InputError: If the file name's ending is unknown, or its format would lose transparency or bits of the image.
    """
    kind = check_suffix(path)
    if kind == "JPEG" and image.mode in ("RGBA", "LA"):
        raise InputError(f"expected a format with transparency for {path.name!r}, got JPEG; use PNG")
    if kind in _EIGHT_BIT_FORMATS and image.mode in _SIXTEEN_BIT:
        raise InputError(f"expected a format with 16 bits per channel for {path.name!r}, got {kind}; use PNG or TIFF")
    options = {key: image.info[key] for key in ("icc_profile", "dpi") if image.info.get(key) is not None}
    options |= _BEST.get(kind, {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        image.save(temporary, kind, **options)


def check_suffix(path: Path) -> str:
    """Returns the format for a file name's ending, such as "PNG".

    Raises:
        InputError: If the ending is not one of `SUFFIXES`.
    """
    from PIL import Image

    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"expected a file name that ends in one of {', '.join(SUFFIXES)}, got {path.name!r}")
    return Image.registered_extensions()[suffix]


def _from_file(path: Path, turn: bool) -> Picture:
    from PIL import Image

    if not path.is_file():
        raise InputError(f"expected an image file, got {path}, which does not exist or is not a file")
    try:
        with Image.open(path) as image:
            _check_depth(image)
            return _from_image(image, turn)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # decoders raise many kinds of errors on damaged files
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    from PIL import UnidentifiedImageError

    unknown = isinstance(error, UnidentifiedImageError)
    reason = "its format is unknown" if unknown else str(error) or type(error).__name__
    return InputError(f"expected an image file, got {path}, which cannot be read: {reason}")


def _check_depth(image: Any) -> None:
    """Refuses files with 16 bits per channel in colour or with alpha. Pillow would drop their lower 8 bits."""
    layouts = " ".join(str(argument) for tile in image.tile for argument in tile[1:])
    if ";16" in layouts and image.mode not in _SIXTEEN_BIT:
        raise InputError(
            "expected an image of 8 bits per channel or 16-bit grey, got 16 bits per channel in colour or with alpha; "
            "convert it to 8 bits first"
        )


def _from_image(image: Image, turn: bool = True) -> Picture:
    from PIL import ImageOps

    frames = getattr(image, "n_frames", 1)
    # The first frame of a phone's MPO file is the photograph; the others are a preview or a gain map.
    if frames > 1 and image.format != "MPO":
        raise InputError(f"expected a single picture, got {frames} frames; split the animation first")
    info = _side_information(image)
    image = ImageOps.exif_transpose(image) if turn else image
    if image.mode in _SIXTEEN_BIT:
        if "transparency" in image.info:
            raise InputError("expected 16-bit grey without transparency, got a transparent value; convert it first")
        values = torch.from_numpy(np.asarray(image).astype(np.float32)) / 65535
        return Picture(values.expand(3, -1, -1), True, True, None, info)
    if image.mode not in _MODES:
        raise InputError(
            f"expected an image of 8 bits per channel or 16-bit grey, got mode {image.mode!r}; convert it first, for "
            "example with image.convert('RGB')"
        )
    alpha, grey = None, image.mode in ("1", "L", "LA")
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    pixels = np.array(image.convert("RGB"))
    return Picture(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, grey, False, alpha, info)


def _side_information(image: Image) -> dict[str, Any]:
    """Returns the colour profile and the resolution, unless they would be wrong for the output."""
    info: dict[str, Any] = {}
    # The output is RGB or grey, so a profile of another colour space would be wrong.
    if image.info.get("icc_profile") and image.mode not in ("CMYK", "YCbCr"):
        info["icc_profile"] = image.info["icc_profile"]
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return info
    if all(math.isfinite(value) and 0 < value < 1e6 for value in (across, down)):
        info["dpi"] = (across, down)
    return info


def _from_array(array: np.ndarray) -> Image:
    from PIL import Image

    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(
            f"expected a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} of shape {array.shape}"
        )
    return Image.fromarray(array)
