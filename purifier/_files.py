"""Files that are absent, old or whole, never half written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a file is called while it is written: ".NAME.PROCESS.part". What a killed process leaves can be told by it.
PART = ".part"
# Bytes of the longest name that leaves room for the rest; file systems take 255.
_LONGEST = 200


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, which takes its place at the end, unless there is an error."""
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
