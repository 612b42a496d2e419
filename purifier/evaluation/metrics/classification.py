"""The 95 % interval of a share of images."""

from __future__ import annotations

import math

from purifier._errors import InputError

# The 97.5 % point of the normal distribution.
_Z95 = 1.959963984540054


def interval(right: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share, as (low, high) in [0, 1].

    Unlike right / count +- 1.96 standard errors, it never leaves [0, 1] and has a width at 0 and at 1. It accounts for
    the choice of images only, not for the strength of an attack. Source: Wilson, "Probable Inference, the Law of
    Succession, and Statistical Inference", JASA 1927, https://doi.org/10.1080/01621459.1927.10502953.

    Args:
        right: Number of hits.
        count: Number of trials; 0 gives (0, 1).

    Raises:
        InputError: If `right` is not within 0..count.

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
    # Exactly 0 and 1 at the ends, which rounding may miss.
    low = 0.0 if right == 0 else max(0.0, centre - half)
    high = 1.0 if right == count else min(1.0, centre + half)
    return low, high
