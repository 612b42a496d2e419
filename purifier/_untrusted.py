"""Reading of files that anybody may have made: in bounded memory, and never outside of their folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from purifier._errors import WeightsError

# Levels of nesting in JSON. Python cannot follow many thousands.
_DEEPEST = 256


class Folder(Protocol):
    """What a folder on disk and one inside an installed package have in common."""

    @property
    def name(self) -> str: ...
    def joinpath(self, *parts: str) -> Any: ...


@dataclass(frozen=True)
class Place:
    """A folder to read from.

    Attributes:
        folder: The folder.
        name: Where it came from, for messages.
        bundled: Whether it is a part of this package, whose files may be links that an installer made.
    """

    folder: Folder
    name: str
    bundled: bool = False

    def read(self, file: str, limit: int) -> bytes | None:
        """Returns the content of a file in the folder; None if there is no such file.

        Args:
            file: Its name, without any folder.
            limit: The largest size, in bytes.

        Raises:
            WeightsError: If it is larger, cannot be read, or is a link that leads out of the folder.
        """
        try:
            path = self.folder.joinpath(file)
            if not path.is_file():
                return None
            if isinstance(path, Path) and not self.bundled:
                self._check_inside(path)
            with path.open("rb") as opened:
                size = opened.seek(0, os.SEEK_END)
                if size <= limit:
                    opened.seek(0)
                    return bytes(opened.read(size))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise WeightsError(
                f"expected to read {file!r} of {self.name!r}, got: {reason}; check its permissions, or fetch the "
                "folder again"
            ) from error
        raise WeightsError(
            f"expected {file!r} of {self.name!r} to have at most {limit:,} bytes, got {size:,}; it does not fit the "
            "configuration, or is no part of a purifier"
        )

    def _check_inside(self, path: Path) -> None:
        root = Path(os.fspath(self.folder)).resolve()  # type: ignore[call-overload]
        roots = [root]
        if root.parent.name == "snapshots":
            # In the cache of the hub, the files of a repository are links to its folder of contents.
            roots.append(root.parent.parent / "blobs")
        real = path.resolve()
        if not any(real.is_relative_to(one) for one in roots):
            raise WeightsError(
                f"expected {path.name!r} inside {self.name!r}, got a link that leads out of the folder; copy the file "
                "itself into it"
            )


def parse_json(text: bytes, what: str) -> Any:
    """Reads JSON that anybody may have written.

    Args:
        text: The JSON, in UTF-8.
        what: What it is, for messages.

    Raises:
        WeightsError: If it is not JSON, not finite, or nested too deeply.
    """
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise WeightsError(f"{what} is not JSON: {reason}; fetch the folder again") from error
    if _depth_exceeds(value, _DEEPEST):
        raise WeightsError(f"expected {what} with at most {_DEEPEST} levels of nesting, got more; fetch it again")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)
