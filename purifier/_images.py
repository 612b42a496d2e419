"""Image files and PIL images to float tensors and back, without losing what a purifier does not touch."""

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
# Formats that lose something unless told otherwise lose nothing, or as little as they can.
_BEST: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}


def images_below(folder: Path) -> list[Path]:
    """Returns every image file below a folder, sorted; links to folders are followed, but not round in circles.

    Files and folders that begin with a dot are other programs' notes, even where they are called like an image. A
    folder that is not there has none.

    Raises:
        InputError: Where a folder cannot be read.
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
    """What to raise where there are no `images_below` any of the folders."""
    return InputError(f"expected images ({', '.join(SUFFIXES)}) below {', '.join(map(str, folders))}, got none")


@dataclass(frozen=True)
class Picture:
    """An image taken apart: what is purified, and what is put back afterwards.

    Attributes:
        rgb: (3, H, W), float32, in [0, 1].
        grey: Whether the image had one colour channel.
        sixteen_bit: Whether the image had 16 bits a channel.
        alpha: The alpha channel as a PIL image, or None.
        info: Colour profile and resolution, for saving.
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
        turn: Whether the EXIF orientation is applied. Pillow applies that of TIFF files in any case.

    Raises:
        InputError: Where it cannot be read or is of a kind that would lose information.
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
    """Returns (height, width) of an image file as `take_apart` will read it; only the file's head is looked at.

    Raises:
        InputError: Where it is no image file.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            # Pillow states the size of a TIFF file as it is after turning.
            turned = turn and image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        raise _unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def put_together(picture: Picture, rgb: Tensor) -> Image:
    """Returns a PIL image of `rgb` (3, H, W) in [0, 1] with the kind, alpha and profile of `picture`."""
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
    """Writes an image, losslessly where the format allows; `path` is always absent, old or whole.

    Raises:
        InputError: Where the file name's ending is unknown, or its format would lose what the image has.
    """
    kind = check_suffix(path)
    if kind == "JPEG" and image.mode in ("RGBA", "LA"):
        raise InputError(f"expected a format with transparency for {path.name!r}, got JPEG; use PNG")
    if kind in _EIGHT_BIT_FORMATS and image.mode in _SIXTEEN_BIT:
        raise InputError(f"expected a format with 16 bits a channel for {path.name!r}, got {kind}; use PNG or TIFF")
    options = {key: image.info[key] for key in ("icc_profile", "dpi") if image.info.get(key) is not None}
    options |= _BEST.get(kind, {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        image.save(temporary, kind, **options)


def check_suffix(path: Path) -> str:
    """Returns the format that a file name's ending stands for, such as "PNG".

    Raises:
        InputError: Where it is none of `SUFFIXES`.
    """
    from PIL import Image

    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"expected a file name that ends in one of {', '.join(SUFFIXES)}, got {path.name!r}")
    return Image.registered_extensions()[suffix]


def _from_file(path: Path, turn: bool) -> Picture:
    from PIL import Image

    if not path.is_file():
        raise InputError(f"expected an image file, got {path}, which is not there or not a file")
    try:
        with Image.open(path) as image:
            _check_depth(image)
            return _from_image(image, turn)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    from PIL import UnidentifiedImageError

    unknown = isinstance(error, UnidentifiedImageError)
    reason = "it is of no known format" if unknown else str(error) or type(error).__name__
    return InputError(f"expected an image file, got {path}, which cannot be read: {reason}")


def _check_depth(image: Any) -> None:
    """Refuses files with 16 bits a channel in colour or with alpha, of which Pillow would drop the lower 8 bits."""
    layouts = " ".join(str(argument) for tile in image.tile for argument in tile[1:])
    if ";16" in layouts and image.mode not in _SIXTEEN_BIT:
        raise InputError(
            "expected an image of 8 bits a channel or 16-bit grey, got 16 bits a channel in colour or with alpha; "
            "convert it to 8 bits first"
        )


def _from_image(image: Image, turn: bool = True) -> Picture:
    from PIL import ImageOps

    frames = getattr(image, "n_frames", 1)
    # A phone's MPO file is a photograph with a preview or a gain map behind it.
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
            f"expected an image of 8 bits a channel or 16-bit grey, got mode {image.mode!r}; convert it first, for "
            "example with image.convert('RGB')"
        )
    alpha, grey = None, image.mode in ("1", "L", "LA")
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    pixels = np.array(image.convert("RGB"))
    return Picture(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, grey, False, alpha, info)


def _side_information(image: Image) -> dict[str, Any]:
    """Colour profile and resolution, where they will be true of the output too."""
    info: dict[str, Any] = {}
    # The output is RGB or grey: a profile of another colour space would be read wrongly with it.
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
