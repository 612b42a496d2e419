"""Applies a map to smaller images, whose details are coarser."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from torch import Tensor
from torch.nn import functional as F

from purifier._errors import OptionError
from purifier._options import check_number
from purifier.methods._borders import crop, reflect_pad

_PARTS = 8


def check_scale(value: float) -> Fraction:
    """Returns a scale, which must be a multiple of 1/8 from 1/2 to 1.

    Raises:
        OptionError: If it is none.
    """
    number = check_number("scale", value, low=0.5, high=1.0)
    if not (_PARTS * number).is_integer():
        raise OptionError(f"expected scale to be a multiple of 1/8, such as 0.75, got {value}")
    return Fraction(number)


def at_scale(apply: Callable[[Tensor], Tensor], images: Tensor, scale: Fraction) -> Tensor:
    """Shrinks images, applies a map, and enlarges the output to the old size. Both steps are bilinear.

    Args:
        apply: Map from images (N, 3, H, W) to images of the same shape.
        images: (N, 3, H, W). Sizes that are not multiples of the scale's denominator are padded by reflection and
            cropped back, so that the ratio is exact and every tile that starts at such a multiple has the same samples.
        scale: Side of the small images, as a share of the old one; 1 changes no size.
    """
    if scale == 1:
        return apply(images)
    few, many = scale.numerator, scale.denominator
    height, width = images.shape[-2:]
    rows, columns = ((size + many - 1) // many for size in (height, width))
    padded = reflect_pad(images, 0, many * columns - width, 0, many * rows - height)
    # Without anti-aliasing, which other runtimes compute differently.
    small = F.interpolate(padded, (few * rows, few * columns), mode="bilinear")
    out = F.interpolate(apply(small), (many * rows, many * columns), mode="bilinear")
    return crop(out, height, width)


def halo_at(halo: int, scale: Fraction) -> int:
    """Returns the largest distance, in pixels, that `at_scale` spans around a map that spans `halo` small pixels."""
    if scale == 1:
        return halo
    # Enlarging reaches one small pixel further, shrinking another one to each side, and the padding a part.
    return -(-(halo + 2) // scale) + scale.denominator
