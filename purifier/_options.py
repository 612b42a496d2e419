"""Checks of constructor options."""

from __future__ import annotations

from purifier._errors import OptionError


def check_bool(name: str, value: object) -> bool:
    """Returns `value` if it is True or False.

    Raises:
        OptionError: If it is not.
    """
    if not isinstance(value, bool):
        raise OptionError(f"expected {name} to be True or False, got {value!r}")
    return value


def check_integer(name: str, value: object, *, low: int, high: int | None = None, odd: bool = False) -> int:
    """Returns `value` if it is an integer (not a bool) in low .. high, and odd if `odd` is True.

    Raises:
        OptionError: If it is not.
    """
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= low
    if not fits or (high is not None and value > high) or (odd and value % 2 == 0):  # type: ignore[operator]
        kind = "an odd integer" if odd else "an integer"
        span = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise OptionError(f"expected {name} to be {kind} {span}, got {value!r}")
    assert isinstance(value, int)
    return value


def check_number(name: str, value: object, *, low: float, high: float) -> float:
    """Returns `value` as a float if it is a number from low to high.

    Raises:
        OptionError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise OptionError(f"expected {name} to be a number from {low} to {high}, got {value!r}")
    return float(value)
