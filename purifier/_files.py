"""Atomic writing of files: a file is absent, old or complete, never half written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Ending of the temporary name ".NAME.PROCESS.part", by which leftovers of a killed process can be recognised.
PART = ".part"
# Longest name, in bytes, that leaves room for the temporary name's other parts; file systems allow 255.
_LONGEST = 200


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames it to `path` at the end unless there was an error."""
    name = path.name if len(os.fsencode(path.name)) <= _LONGEST else hashlib.sha256(os.fsencode(path.name)).hexdigest()
    temporary = path.with_name(f".{name}.{os.getpid()}{PART}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
