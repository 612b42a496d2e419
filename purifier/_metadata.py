"""What a picture file says beside its pixels: colour profile, resolution and EXIF."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

ORIENTATION = 0x0112
_WIDTH, _HEIGHT, _DETAILS = 0xA002, 0xA003, 0x8769
# Tags that describe how the pixels of the old file are stored; a TIFF file keeps them among the others.
_STORAGE = (
    *(
        254,
        255,
        256,
        257,
        258,
        259,
        262,
        263,
        264,
        265,
        266,
        273,
        277,
        278,
        279,
        280,
        281,
        284,
        288,
        289,
        290,
        291,
        292,
    ),
    *(293, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 334, 336, 338, 339, 340, 341, 342, 343, 347),
    *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675),
)


def orientation(image: Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 if there is none or the EXIF data is damaged."""
    try:
        value = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises many kinds of errors on damaged data
        return 1
    return value if 1 <= value <= 8 else 1


def upright(image: Image) -> Image:
    """Returns the image turned as its EXIF orientation says, or the image itself."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def side_information(image: Image, size: tuple[int, int]) -> dict[str, Any]:
    """Returns the colour profile, the resolution and the EXIF data, unless they would be wrong for the output.

    Args:
        image: The image as it was read.
        size: Width and height of the upright image.
    """
    info: dict[str, Any] = {}
    # The output is RGB or grey, so a profile of another colour space would be wrong.
    if image.info.get("icc_profile") and image.mode not in ("CMYK", "YCbCr"):
        info["icc_profile"] = image.info["icc_profile"]
    with suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
        across, down = (float(value) for value in image.info["dpi"])
        if all(math.isfinite(value) and 0 < value < 1e6 for value in (across, down)):
            info["dpi"] = (across, down)
    with suppress(Exception):  # damaged EXIF data is left out
        exif = _exif(image.getexif(), size)
        if exif:
            info["exif"] = exif
    return info


def _exif(exif: Exif, size: tuple[int, int]) -> bytes:
    """Returns EXIF data without an orientation, which has been applied, and without what described the old file."""
    from PIL.Image import Exif as Fresh

    kept = Fresh()
    kept.load(exif.tobytes())
    for tag in (ORIENTATION, *_STORAGE):
        if tag in kept:
            del kept[tag]
    details = kept.get_ifd(_DETAILS)
    for tag, length in ((_WIDTH, size[0]), (_HEIGHT, size[1])):
        if tag in details:
            details[tag] = length
    return kept.tobytes() if len(kept) else b""
