"""Checks of constructor options."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

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


def check_generator(value: object) -> torch.Generator | None:
    """Returns `value` if it is a source of random numbers, or None for torch's global one.

    Raises:
        OptionError: If it is something else, such as a seed.
    """
    if value is not None and not isinstance(value, torch.Generator):
        raise OptionError(
            f"expected generator to be a torch.Generator or None, got {shown(value)}; make one from a seed: "
            "torch.Generator().manual_seed(0)"
        )
    return value


def check_number(name: str, value: object, *, low: float, high: float) -> float:
    """Returns `value` as a float if it is a number from low to high.

    Raises:
        OptionError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise OptionError(f"expected {name} to be a number from {low} to {high}, got {shown(value)}")
    return float(value)


def check_fields(owner: Any) -> None:
    """Checks the values of a dataclass's constructor arguments against their annotations.

    It looks at numbers, True and False, text, the values of a Literal, functions, mappings and generators. The default
    fits, and so does every value with another annotation. Ranges and whole numbers are for the class itself to check.

    Raises:
        OptionError: If a value has another type.
    """
    hints = _hints(type(owner))  # type: ignore[arg-type]
    for option in fields(owner):
        value, hint = getattr(owner, option.name), hints.get(option.name)
        if option.init and value is not option.default and not _fits(value, hint):
            raise OptionError(f"expected {option.name} to be {_named(hint)}, got {shown(value)}")


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    try:
        return get_type_hints(kind)
    except (NameError, TypeError):  # names that only type checkers import
        return {}


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if hint in (int, float):
        return isinstance(value, int | float)
    if get_origin(hint) is Callable:
        return callable(value)
    if get_origin(hint) is Literal:
        return isinstance(value, str | int) and value in get_args(hint)
    if get_origin(hint) is Mapping:
        return isinstance(value, Mapping)
    if hint in (bool, str, NoneType) or hint is torch.Generator:
        return isinstance(value, hint)
    return True


def _named(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_named, get_args(hint)))
    if get_origin(hint) is Callable:
        return "a function"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is Mapping:
        return "a mapping"
    names = {float: "a number", int: "a number", bool: "True or False", str: "text", NoneType: "None"}
    return names.get(hint, f"a {getattr(hint, '__name__', hint)}")
