"""Exact bounds and tests for shares of random draws, without a dependency on scipy."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch

from purifier._errors import OptionError, shown

# Halvings of [0, 1], after which a double has no more digits.
_HALVINGS = 60


def lower_bound(hits: int, draws: int, alpha: float) -> float:
    """Returns the one-sided Clopper-Pearson bound of a probability (Biometrika 1934, https://doi.org/10.2307/2331986).

    The probability is below the bound in a share of at most `alpha` of all experiments.

    Args:
        hits: Number of draws that hit.
        draws: Number of draws, at least 1.
        alpha: Chance of an error, in (0, 1).

    Raises:
        OptionError: If a number is out of its range.

    Example:
        >>> round(lower_bound(99, 100, 0.001), 4), lower_bound(0, 100, 0.001)
        (0.9114, 0.0)
    """
    check_alpha(alpha)
    if not 0 <= hits <= draws or draws < 1:
        raise OptionError(f"expected 0 <= hits <= draws and at least one draw, got hits={hits}, draws={draws}")
    if hits == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at_least(hits, draws, middle) < alpha:
            low = middle
        else:
            high = middle
    return low


def reaches_half(hits: int, draws: int, alpha: float) -> bool:
    """Whether `lower_bound` is above 1/2; it costs a single tail of the distribution."""
    return _at_least(hits, draws, 0.5) < alpha


def abstains(first: int, second: int, alpha: float) -> bool:
    """Whether two counts do not show which of two classes is the likelier one (two-sided binomial test).

    Args:
        first: Number of draws of the class that came most often.
        second: Number of draws of the class that came second.
        alpha: Chance of an error, in (0, 1).

    Raises:
        OptionError: If alpha is out of its range.
    """
    check_alpha(alpha)
    if first + second == 0:
        return True
    return min(1.0, 2 * _at_least(max(first, second), first + second, 0.5)) > alpha


def certified_radius(lower: float, sigma: float) -> float:
    """Returns the L2 radius that follows from a lower bound of a class's probability under noise; 0 up to 1/2.

    Theorem 1 of Cohen et al., for the second class at 1 minus the bound.
    """
    return sigma * NormalDist().inv_cdf(lower) if 0.5 < lower < 1 else 0.0


def check_sigma(sigma: object) -> float:
    """Returns the standard deviation of the noise.

    Raises:
        OptionError: If it is not a number above 0.
    """
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < math.inf:
        raise OptionError(f"expected sigma > 0, in units of the [0, 1] range, such as 0.25, got {shown(sigma)}")
    return float(sigma)


def check_alpha(alpha: float) -> None:
    """Checks a chance of an error.

    Raises:
        OptionError: If it is not a number in (0, 1).
    """
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1:
        raise OptionError(f"expected alpha in (0, 1), such as 0.001, got {shown(alpha)}")


def _at_least(hits: int, draws: int, chance: float) -> float:
    """Probability of at least `hits` hits in `draws` draws, each with probability `chance`."""
    if chance <= 0 or chance >= 1:
        return float(chance >= 1 or hits == 0)
    found = torch.arange(hits, draws + 1, dtype=torch.float64)
    ways = math.lgamma(draws + 1) - torch.lgamma(found + 1) - torch.lgamma(draws - found + 1)
    logarithms = ways + found * math.log(chance) + (draws - found) * math.log1p(-chance)
    return min(1.0, float(logarithms.logsumexp(0).exp()))
