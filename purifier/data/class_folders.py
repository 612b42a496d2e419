"""Assigning class folders to class numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from purifier._errors import InputError, OptionError, PurifierWarning, nearest, shown
from purifier._walking import folders_in, images_below, no_images, walk

# Number of unknown folders that a message names.
_SHOWN = 5
# Digits of a number that is too large for a class.
_DIGITS = 10


def images_by_class(root: Path, classes: Sequence[str] | None) -> tuple[list[tuple[Path, int]], int | None]:
    """Finds the images in a folder's class folders; see `number_folders`.

    Args:
        root: The folder that contains the class folders.
        classes: Names of the model's classes by number; None if unknown.

    Returns:
        Each image with its class number; and the number of class folders if only their order assigns them to classes,
        otherwise None.

    Raises:
        InputError: If there are no class folders or no images, or the folders do not match the classes.
    """
    names = folders_in(root)
    if not names:
        raise InputError(
            f"expected a folder for each class in {root}, got none; sort the images into class folders, or give a CSV "
            "file with the columns file,label"
        )
    numbers = number_folders(root, names, classes)
    pairs = [(path, numbers[name]) for name in names for path in images_below(root / name)]
    whole = walk(root).complete()
    if not pairs:
        raise no_images([root], whole.skipped)
    loose = sum(path.parent == root for path in whole.images)
    if loose:
        warnings.warn(
            f"{loose} images of {root} are in no class folder and are left out; move them into class folders, or give "
            "a CSV file with the columns file,label",
            PurifierWarning,
            stacklevel=4,
        )
    # Class names or numbers assign the folders to classes, not only their order.
    told_apart = classes or all(_is_number(name) for name in names)
    return pairs, None if told_apart else len(names)


def check_names(classes: object) -> tuple[str, ...] | None:
    """Returns names of classes as a tuple; None if there are none.

    Raises:
        OptionError: If they are not texts.
    """
    if classes is None:
        return None
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise OptionError(f"expected classes as a list of their names, got {shown(classes)}; give texts, or None")
    return tuple(classes)


def number_folders(root: Path, names: Sequence[str], classes: Sequence[str] | None) -> dict[str, int]:
    """Returns the class number of each folder.

    A folder named after a class gets that class's index. A folder named by a number gets that number. Otherwise
    folders are numbered alphabetically, as by torchvision's ImageFolder; if the classes are known, there must be as
    many folders as classes, and no folder named after a class may get another class's number.

    Args:
        root: The folder that contains them, for messages.
        names: Names of the folders.
        classes: Names of the model's classes by number; None if unknown.

    Raises:
        InputError: If the folders do not match the classes.

    Example:
        >>> number_folders(Path("data"), ["cat", "dog"], ["ant", "cat", "dog"])
        {'cat': 1, 'dog': 2}
    """
    known = list(classes or ())
    if set(names) <= set(known):
        return {name: known.index(name) for name in names}
    ordered = {name: number for number, name in enumerate(sorted(names))}
    if all(_is_number(name) for name in names):
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
        f"expected folders in {root} named after the model's {len(known)} classes or by their numbers, or one folder "
        f"for each class in the order of the classes, got {len(names)} folders, of which these match no class: "
        f"{', '.join(_guess(name, known) for name in unknown[:_SHOWN])}{more}; rename them, or move them away"
    )


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < _DIGITS


def few_folders(folders: int, classes: int) -> str:
    """The message for folders that only their order assigns to classes, but whose number is not that of the classes."""
    return (
        f"expected as many class folders as the model has classes, {classes}, because the names of the classes are not "
        f"known, got {folders}; name the folders by the numbers of the classes, or give the model an attribute "
        "`classes` with their names"
    )


def _guess(name: str, known: Sequence[str]) -> str:
    advice = nearest(name, known).removeprefix("; ")
    return f"{name!r} ({advice})" if advice else repr(name)
