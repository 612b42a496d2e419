"""Results per image in a file of JSON lines, from which a killed run resumes.

The first line states every setting; a file with other settings is refused. An incomplete last line is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from purifier._errors import InputError, OptionError, shown
from purifier._files import create_text, locked, writing

# How many differing settings a message names.
_SHOWN = 8
# Options of methods that came after results had been written, with their defaults, which change nothing.
_LATER = {"gate_floor": 0.0, "gate_threshold": 0.0}


class Records:
    """The records of one cell of an evaluation, on disk.

    Args:
        path: The file. It is created if it does not exist.
        settings: Everything that the results depend on, as JSON values.
        instead: What to do if the file holds results of other settings, for the message.

    Attributes:
        by_index: The record of each finished image, by the image's number.

    Raises:
        OptionError: If the file holds results of other settings.
        InputError: If the file is damaged.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, instead: str = "choose another --out") -> None:
        self.path = path
        self._instead = instead
        # Through JSON, as they will be read: tuples become lists.
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.by_index: dict[int, dict[str, Any]] = {}
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.parent):
                # A file that another run creates meanwhile is compared like one that was there before.
                while not self._resume():
                    create_text(path, _line({"settings": self.settings}))

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends new records. Each has the number of its image under "index"; images that are present are skipped.

        Raises:
            OutputError: If they cannot be written.
        """
        new = [dict(record) for record in records if record["index"] not in self.by_index]
        with writing(self.path), locked(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, new)))
            file.flush()
            os.fsync(file.fileno())
        self.by_index.update((record["index"], record) for record in new)

    def _resume(self) -> bool:
        """Reads the file. Returns False if there is none; one without a complete line is removed."""
        if not self.path.is_file():
            return False
        with locked(self.path):
            stored = self.path.read_bytes()
            whole = stored[: stored.rfind(b"\n") + 1]
            if not whole:
                self.path.unlink()
                return False
            self._read(whole)
            if len(whole) < len(stored):
                os.truncate(self.path, len(whole))
        return True

    def _read(self, whole: bytes) -> None:
        try:
            head, *lines = (json.loads(line) for line in whole.splitlines())
            found = head["settings"]
            # Two simultaneous runs may both have written an image.
            for record in lines:
                self.by_index.setdefault(record["index"], record)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"expected lines of JSON in {self.path}, got {shown(error)}; delete the file, or choose another --out"
            ) from error
        if differing := differences(found, self.settings):
            raise OptionError(
                f"expected results with this run's settings in {self.path}, got other settings ({differing}); "
                f"{self._instead}"
            )


def differences(there: Any, here: Mapping[str, Any]) -> str:
    """Names the settings that differ, such as "attack.steps: 10 there, 20 here". Returns "" if none differ.

    An option of a later version at its default is the same as none: files of earlier versions do not state it.

    Args:
        there: Settings from a file.
        here: Settings of this run, as JSON values.
    """
    old, new = (flatten(_without_later(one)) for one in (there, json.loads(json.dumps(here))))
    keys = [key for key in sorted({*old, *new}) if old.get(key, "nothing") != new.get(key, "nothing")]
    shown = [f"{key}: {old.get(key, 'nothing')} there, {new.get(key, 'nothing')} here" for key in keys[:_SHOWN]]
    return "; ".join(shown) + (f"; and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")


def _without_later(value: Any) -> Any:
    """Leaves out options of `_LATER` at their defaults."""
    if isinstance(value, list):
        return [_without_later(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    absent = object()
    return {key: _without_later(part) for key, part in value.items() if part != _LATER.get(key, absent)}


def read_records(path: Path) -> dict[int, dict[str, Any]]:
    """Returns the complete records of a file by the number of the image, whatever its settings."""
    if not path.is_file():
        return {}
    lines = path.read_bytes()
    records = [json.loads(line) for line in lines[: lines.rfind(b"\n") + 1].splitlines()[1:]]
    return {record["index"]: record for record in records}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested settings to one level, with dots between the names.

    Example:
        >>> flatten({"attack": {"eps": 0.1, "steps": 3}})
        {'attack.eps': 0.1, 'attack.steps': 3}
    """
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat |= flatten(part, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":")) + "\n"
