"""Image files and PIL images to float tensors and back, without losing what a purifier does not touch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from purifier._errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


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


def take_apart(source: Any) -> Picture:
    """Reads a PIL image, an array or a file.

    Args:
        source: PIL image; uint8 array (H, W), (H, W, 3) or (H, W, 4); or a path. The EXIF orientation is applied.

    Raises:
        InputError: Where it cannot be read or is of a kind that would lose information.
    """
    from PIL import Image, ImageOps

    if isinstance(source, str | os.PathLike):
        image = _open(Path(source))
    elif isinstance(source, np.ndarray):
        image = _from_array(source)
    elif isinstance(source, Image.Image):
        image = source
    else:
        raise InputError(
            f"expected a PIL image, a uint8 array or a path, got {type(source).__name__}; tensors go to the purifier "
            "itself"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise InputError(f"expected a single picture, got {image.n_frames} frames; split the animation first")  # type: ignore[attr-defined]
    info = {key: image.info[key] for key in ("icc_profile", "dpi") if image.info.get(key) is not None}
    image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BIT:
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


def put_together(picture: Picture, rgb: Tensor) -> Image:
    """Returns a PIL image of `rgb` (3, H, W) in [0, 1] with the kind, alpha and profile of `picture`."""
    from PIL import Image

    rgb = rgb.detach().cpu().float().clamp(0, 1)
    if picture.sixteen_bit:
        return Image.fromarray((rgb.mean(0) * 65535).round().numpy().astype(np.uint16))
    pixels = (rgb * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(pixels)
    if picture.grey:
        image = image.convert("L")
    if picture.alpha is not None:
        image.putalpha(picture.alpha)
    image.info.update(picture.info)
    return image


def write_image(image: Image, path: Path) -> None:
    """Writes an image losslessly where the format allows; `path` is either absent, old or whole."""
    from PIL import Image

    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise InputError(f"expected a file name that ends in one of {', '.join(SUFFIXES)}, got {path.name!r}")
    known: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = {**known.get(kind, {}), **{str(key): value for key, value in image.info.items()}}
    if kind == "JPEG" and image.mode in ("RGBA", "LA"):
        raise InputError(f"expected a format with transparency for {path.name!r}, got JPEG; use PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        image.save(temporary, kind, **options)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _open(path: Path) -> Image:
    from PIL import Image

    if not path.is_file():
        raise InputError(f"expected an image file, got {path}, which is not there or not a file")
    try:
        image = Image.open(path)
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"expected an image file, got {path}, which cannot be read: {error}") from error
    return image


def _from_array(array: np.ndarray) -> Image:
    from PIL import Image

    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(
            f"expected a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} of shape {array.shape}"
        )
    return Image.fromarray(array)
