"""Images or attacks outside what the purifier was trained for."""

from __future__ import annotations

from purifier.evaluation.checks.finding import Check, Finding

Range = float | tuple[float, float]

OUTSIDE = Check(
    "outside the trained range",
    "eps, or a side of the images, is outside the range that the purifier was trained for",
    "The figure is about extrapolation: it tells neither what the purifier does within its range nor what one that "
    "was trained for this range would do. Evaluate within the range, or say beside the figure that it is outside.",
)
_FACTOR = 2


def outside_training(
    eps: float | None, size: tuple[int, int], trained_eps: Range | None, trained_size: Range | None
) -> Finding | None:
    """Raised where eps or size is outside.

    Args:
        eps: The attack's eps in [0, 1] units; None where there is none.
        size: Height and width of the images.
        trained_eps: Largest eps, or smallest and largest.
        trained_size: Smallest and largest side in pixels; one side stands for half of it to twice of it.
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
