"""Which class a folder of images stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from purifier._errors import InputError, nearest

# Unknown folders that a message names.
_SHOWN = 5


def number_folders(root: Path, names: Sequence[str], classes: Sequence[str] | None) -> dict[str, int]:
    """Returns the class number of each folder.

    Folders named after classes have the numbers of these; folders named by numbers have these; others are numbered in
    sorted order, as by torchvision's ImageFolder. Where the classes are known, sorted order takes as many folders as
    classes, and none of them named after a class of another number.

    Args:
        root: Where the folders are, for messages.
        names: The folders.
        classes: Names of the model's classes by number, where they are known.

    Raises:
        InputError: Where the folders are not those of the classes.

    Example:
        >>> number_folders(Path("data"), ["cat", "dog"], ["ant", "cat", "dog"])
        {'cat': 1, 'dog': 2}
    """
    known = list(classes or ())
    if set(names) <= set(known):
        return {name: known.index(name) for name in names}
    ordered = {name: number for number, name in enumerate(sorted(names))}
    if all(name.isdecimal() for name in names):
        numbers = {name: int(name) for name in names}
        unknown = [name for name in names if known and numbers[name] >= len(known)]
        if not unknown:
            return numbers
    else:
        unknown = [name for name in names if name not in known]
        in_order = len(names) == len(known) and all(name in unknown or known[ordered[name]] == name for name in names)
        if in_order or not known:
            return ordered
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    raise InputError(
        f"expected folders in {root} named after the model's {len(known)} classes or by their numbers, or as many, "
        f"sorted as the classes are, got {len(names)} folders, of which these are no class: "
        f"{', '.join(_guess(name, known) for name in unknown[:_SHOWN])}{more}; rename them, or move them away"
    )


def told_apart(names: Sequence[str], classes: Sequence[str] | None) -> bool:
    """Whether anything but their order says which class each folder is: the names of the classes, or numbers."""
    return bool(classes) or all(name.isdecimal() for name in names)


def few_folders(folders: int, classes: int) -> str:
    """What to say where nothing but their order tells folders apart, and they are not as many as the classes."""
    return (
        f"expected as many class folders as the model has classes, {classes}, where the names of the classes are not "
        f"known, got {folders}, which could be any; name them by the numbers of the classes, or give the model an "
        "attribute `classes` with their names"
    )


def _guess(name: str, known: Sequence[str]) -> str:
    advice = nearest(name, known).removeprefix("; ")
    return f"{name!r} ({advice})" if advice else repr(name)
