"""The exceptions, all below one root.

PurifierError
├── InputError (ValueError)          images of a wrong kind, shape or range
├── OptionError (ValueError)         an option that is unknown or out of its range
├── UnknownNameError (ValueError)    no purifier, model or command goes by that name
├── NoWeightsError (RuntimeError)    the name is known, its trained weights are not shipped yet
├── WeightsError (RuntimeError)      a weights folder or file is missing, damaged or does not fit
├── UnsafeFileError (RuntimeError)   a file that would run code if it were read
└── WrapError (TypeError)            the images could not be found in a model's call

Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PurifierError(Exception):
    """Root of every error that this library raises on purpose."""


class InputError(PurifierError, ValueError):
    """Images of a wrong kind, shape or range."""


class OptionError(PurifierError, ValueError):
    """An option that is unknown or out of its range."""


class UnknownNameError(PurifierError, ValueError):
    """No purifier, model or command goes by that name."""


class NoWeightsError(PurifierError, RuntimeError):
    """The name is known, but its trained weights are not shipped yet."""


class WeightsError(PurifierError, RuntimeError):
    """A weights folder or file is missing, damaged or does not fit."""


class UnsafeFileError(PurifierError, RuntimeError):
    """A file that would run code if it were read."""


class WrapError(PurifierError, TypeError):
    """The images could not be found in a model's call."""


class PurifierWarning(UserWarning):
    """Something the user should know; the result is still what was asked for."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns "; did you mean 'x' or 'y'?" for the names closest to `name`, or an empty string."""
    known = {one.lower(): one for one in names}
    close = [known[one] for one in difflib.get_close_matches(name.lower(), list(known), n=2, cutoff=0.5)]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
