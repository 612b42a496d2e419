"""Checks of constructor options."""

from __future__ import annotations

from purifier._errors import OptionError, shown

# Why options have largest values. A configuration from elsewhere must not take a machine's memory or hours.
SLOW = "more would take minutes for one image"
LARGE = "more would take gigabytes of memory"


def check_bool(name: str, value: object) -> bool:
    """Returns `value` if it is True or False.

    Raises:
        OptionError: If it is not.
    """
    if not isinstance(value, bool):
        raise OptionError(f"expected {name} to be True or False, got {shown(value)}")
    return value


def check_integer(
    name: str, value: object, *, low: int, high: int | None = None, odd: bool = False, why: str = ""
) -> int:
    """Returns `value` if it is an integer (not a bool) in low .. high, and odd if `odd` is True.

    Args:
        name: The option's name.
        value: What was given.
        low: Smallest value.
        high: Largest value; None means that there is none.
        odd: Whether even numbers are refused.
        why: Why there is a largest value. With it, only larger values are told about both.

    Raises:
        OptionError: If it is not.
    """
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= low
    if not fits or (high is not None and value > high) or (odd and value % 2 == 0):  # type: ignore[operator]
        kind = "an odd integer" if odd else "an integer"
        limited = high is not None and ((fits and value > high) or not why)  # type: ignore[operator]
        span = f"from {low} to {high}" if limited else f"of at least {low}"
        reason = f"; {why}" if why and limited else ""
        raise OptionError(f"expected {name} to be {kind} {span}, got {shown(value)}{reason}")
    assert isinstance(value, int)
    return value


def check_seed(value: object, *, name: str = "seed") -> int:
    """Returns `value` if it can seed a generator of torch.

    Raises:
        OptionError: If it cannot.
    """
    return check_integer(name, value, low=0, high=2**63 - 1, why="generators of random numbers take no larger seed")


def check_number(name: str, value: object, *, low: float, high: float) -> float:
    """Returns `value` as a float if it is a number from low to high.

    Raises:
        OptionError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise OptionError(f"expected {name} to be a number from {low} to {high}, got {shown(value)}")
    return float(value)
