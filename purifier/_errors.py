"""The exceptions, all derived from one root, and warnings that are given once.

PurifierError
├── InputError (ValueError)          images of a wrong kind, shape or range
├── OptionError (ValueError)         an unknown option, or one out of its range
├── UnknownNameError (ValueError)    no purifier, model or command has that name
├── NoWeightsError (RuntimeError)    the name is known, but its trained weights are not shipped yet
├── WeightsError (RuntimeError)      a weights folder or file is missing, damaged or does not fit
├── UnsafeFileError (RuntimeError)   a file that would run code when read
└── WrapError (TypeError)            no images were found in the call of a model

Every message says what was expected, what was given, and what to do.
"""

from __future__ import annotations

import difflib
import reprlib
import warnings
from collections.abc import Iterable

_given: set[str] = set()
# Longest text of a value in a message.
_SHOWN = 200
# Bounds the time too, because a list can hold one list many times, and that one another.
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxdict, _REPR.maxlist, _REPR.maxtuple = 4, 20, 20, 20
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = _SHOWN


class PurifierError(Exception):
    """Root of every error that this library raises on purpose."""


class InputError(PurifierError, ValueError):
    """Images of a wrong kind, shape or range."""


class OptionError(PurifierError, ValueError):
    """An unknown option, or one out of its range."""


class MissingOptionError(OptionError, AttributeError):
    """An option that this purifier does not have, read as an attribute."""


class UnknownNameError(PurifierError, ValueError):
    """No purifier, model or command has that name."""


class NoWeightsError(PurifierError, RuntimeError):
    """The name is known, but its trained weights are not shipped yet."""


class WeightsError(PurifierError, RuntimeError):
    """A weights folder or file is missing, damaged or does not fit."""


class UnsafeFileError(PurifierError, RuntimeError):
    """A file that would run code when read."""


class WrapError(PurifierError, TypeError):
    """No images were found in the call of a model."""


class OutputError(PurifierError, OSError):
    """A file or folder that cannot be written: a full disk, no permission, or something else in its place."""


class PurifierWarning(UserWarning):
    """Something that the user should know. The result is still what was asked for."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns "; did you mean 'x' or 'y'?" for the names closest to `name`, or an empty string."""
    known = {one.lower(): one for one in names}
    close = [known[one] for one in difflib.get_close_matches(name.lower(), list(known), n=2, cutoff=0.5)]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def shown(value: object) -> str:
    """Returns the repr of a value that may be anything, shortened for a message."""
    try:
        text = _REPR.repr(value)
    except Exception:  # a repr may raise anything
        text = f"<{type(value).__name__}>"
    return short(text)


def short(text: object) -> str:
    """Returns a text, such as that of an error, shortened for a message."""
    text = str(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def warn_once(message: str, *, stacklevel: int) -> None:
    """Gives a PurifierWarning, unless this process has given the same one before.

    Args:
        message: The warning.
        stacklevel: As in `warnings.warn`: 1 points at the caller of this function.
    """
    if message not in _given:
        _given.add(message)
        warnings.warn(message, PurifierWarning, stacklevel=stacklevel + 1)
