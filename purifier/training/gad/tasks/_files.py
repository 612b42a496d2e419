"""The folders that a task reads."""

from __future__ import annotations

from pathlib import Path

from purifier._errors import InputError, OptionError


def folder_of(name: str, option: str) -> Path:
    """Returns the folder that an option names.

    Raises:
        OptionError: Where the option was not given.
        InputError: Where there is no such folder.
    """
    if not name:
        raise OptionError(f"expected {option}, a folder, for this task, got none")
    if not Path(name).is_dir():
        raise InputError(f"expected {option} to be a folder, got {name}, which is none")
    return Path(name)
