"""Shares of images, with the interval in which the true share lies."""

from __future__ import annotations

import math

from purifier._errors import InputError

# The 97.5 % point of the normal distribution: two sides of it leave 95 %.
_Z95 = 1.959963984540054


def interval(right: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share, as (low, high) in [0, 1].

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927: unlike right / count
    +- 1.96 standard errors it never leaves [0, 1] and has a width at 0 and at 1. It speaks of the choice of images
    alone, not of how strong an attack was.

    Args:
        right: Number of hits.
        count: Number of trials; where it is 0, nothing is known: (0, 1).

    Raises:
        InputError: Where `right` is not within 0..count.

    Example:
        >>> low, high = interval(50, 100)
        >>> round(low, 3), round(high, 3)
        (0.404, 0.596)
    """
    if not 0 <= right <= count:
        raise InputError(f"expected 0 <= right <= count, got right={right}, count={count}")
    if count == 0:
        return 0.0, 1.0
    share, weight = right / count, _Z95**2 / count
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    # The ends are 0 and 1 exactly where nothing or all is right; rounding may miss them by an ulp.
    low = 0.0 if right == 0 else max(0.0, centre - half)
    high = 1.0 if right == count else min(1.0, centre + half)
    return low, high
