"""Images or attacks outside the range that the purifier was trained for."""

from __future__ import annotations

from purifier.evaluation.checks.finding import Check, Finding

# The smallest and the largest value, or one number.
Range = float | tuple[float, float]

OUTSIDE = Check(
    "outside the trained range",
    "eps, or a side of the images, is outside the range that the purifier was trained for",
    "The figure measures extrapolation: it shows neither how the purifier performs within its range nor how one that "
    "was trained for this range would. Evaluate within the range, or state beside the figure that it is outside.",
)
_FACTOR = 2


def outside_training(
    eps: float | None, size: tuple[int, int], trained_eps: Range | None, trained_size: Range | None
) -> Finding | None:
    """Checks whether eps or the size is outside the trained range.

    Args:
        eps: The attack's eps in [0, 1] units; None if it has none.
        size: Height and width of the images.
        trained_eps: The largest eps, or the smallest and the largest.
        trained_size: The smallest and the largest side in pixels; one number means half to twice that side.
    """
    measured = []
    if trained_eps is not None and eps is not None:
        low, high = trained_eps if isinstance(trained_eps, tuple) else (0.0, trained_eps)
        if not low - 1e-6 <= eps <= high + 1e-6:
            measured.append(f"eps {255 * eps:.3g}/255, trained for {255 * low:.3g}/255 to {255 * high:.3g}/255")
    if trained_size is not None:
        span = trained_size if isinstance(trained_size, tuple) else (trained_size / _FACTOR, trained_size * _FACTOR)
        low, high = span
        if min(size) < low or max(size) > high:
            measured.append(f"images of {size[0]} x {size[1]} pixels, trained for sides from {low:g} to {high:g}")
    return OUTSIDE.found("; ".join(measured)) if measured else None
