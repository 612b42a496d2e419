"""What commands print: text from elsewhere, such as the names of files, cannot control the terminal."""

from __future__ import annotations

import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from purifier._errors import PurifierWarning

# Bidirectional controls, which make text read in another order.
_REORDERING = {*"\u061c\u200e\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


def printable(text: str) -> str:
    r"""Escapes control characters, halves of characters and changes of direction; line breaks stay.

    Example:
        >>> printable("a\x1b[31m.png")
        'a\\x1b[31m.png'
    """
    return "".join(_escaped(one) if _controls(one) else one for one in text)


def _controls(one: str) -> bool:
    return one in _REORDERING or (one != "\n" and unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp"))


def _escaped(one: str) -> str:
    return one.encode("ascii", "backslashreplace").decode() if ord(one) > 0x7F else f"\\x{ord(one):02x}"


def echo(text: str, *, err: bool = False) -> None:
    """Prints a text to the standard output, or to the standard error."""
    click.echo(printable(text), err=err)


def echo_error(text: str) -> None:
    """Prints an error in one line, if the standard error takes it."""
    with suppress(OSError):
        echo(f"error: {' '.join(text.split())}", err=True)


@contextmanager
def safe_streams() -> Iterator[None]:
    """Opens standard streams that the caller has closed, and lets them take every text.

    Otherwise the next file that is opened would get the number of a closed stream, and receive what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        change: Any = getattr(stream, "reconfigure", None)
        if change is not None:
            change(errors="backslashreplace")
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, category, *rest: (
        f"warning: {printable(str(message))}\n"
        if issubclass(category, PurifierWarning)
        else printable(usual(message, category, *rest))
    )
    try:
        yield
    finally:
        warnings.formatwarning = usual


def abandon_output() -> None:
    """Drops what the standard output could not take; otherwise Python would try again, and fail, as it ends."""
    with suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)
