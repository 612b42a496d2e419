"""Walking folders of pictures."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from purifier._errors import InputError
from purifier._opening import SUFFIXES, is_folder, shortened

# Most kinds of skipped files, and most links, that a message names.
_SHOWN = 6


@dataclass
class Found:
    """What is below a folder.

    Attributes:
        images: The picture files, sorted.
        skipped: Number of other files by their ending, such as {".txt": 2}; hidden files are not counted.
        outside: Links that lead to folders outside, whose pictures are among `images`.
        unreadable: Folders that could not be read, each with the error.
    """

    images: list[Path] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    outside: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, InputError]] = field(default_factory=list)

    def complete(self) -> Found:
        """Returns itself if every folder could be read.

        Raises:
            InputError: If one could not.
        """
        for _, error in self.unreadable:
            raise error
        return self

    def said_skipped(self) -> str:
        """Returns the skipped files as text, such as "3: 2 .txt, 1 .mov"; empty if there are none."""
        return said(self.skipped)


def said(counts: Counter[str]) -> str:
    """Returns counts as text, such as "3: 2 .txt, 1 .mov"; empty if there are none."""
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = [f"{sum(count for _, count in ordered[_SHOWN:])} others"] if len(ordered) > _SHOWN else []
    return f"{counts.total()}: {', '.join([f'{count} {kind}' for kind, count in ordered[:_SHOWN]] + more)}"


def walk(folder: Path, *, without: Path | None = None, suffixes: tuple[str, ...] = SUFFIXES) -> Found:
    """Finds the pictures below a folder, by the endings of their names.

    Each real folder is walked once, and folders go before links to folders. A link to a folder above is not followed.
    Hidden files and folders are skipped. A folder that does not exist has no pictures. Folders below that cannot be
    read are listed.

    Args:
        folder: The folder.
        without: A folder that is left out, such as that of the outputs.
        suffixes: The endings, in lower case. Those of other files find these instead of pictures.

    Raises:
        InputError: If the folder itself cannot be read.
    """
    found = Found()
    if not is_folder(folder):
        return found
    root = os.path.realpath(folder)
    seen = set[str]() if without is None else {os.path.realpath(without)}
    folders, links = [(folder, root)], deque[Path]()
    while folders or links:
        place, real = folders.pop() if folders else _followed(links.popleft(), root, seen, found)
        if real in seen:
            continue
        seen.add(real)
        inside: list[str] = []
        try:
            entries = _entries(place)
        except InputError as error:
            if place == folder:
                raise
            found.unreadable.append((place, error))
            continue
        for entry in entries:
            _sort_out(entry, place / entry.name, suffixes, found, inside, links)
        folders += [(place / name, os.path.join(real, name)) for name in reversed(inside)]  # noqa: PTH118
    found.images.sort()
    return found


def _followed(link: Path, root: str, seen: set[str], found: Found) -> tuple[Path, str]:
    """Returns a link and where it leads; what should not be walked is put with what was seen."""
    real = os.path.realpath(link)
    if real != root and Path(root).is_relative_to(real):
        found.skipped["links to a folder above"] += 1
        seen.add(real)
    elif real not in seen:
        found.outside.append(link)
    return link, real


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted, without hidden files."""
    try:
        with os.scandir(folder) as entries:
            return sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise InputError(f"expected a folder that can be read, got {shortened(folder)}: {error.strerror}") from error


def folders_in(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones.

    Raises:
        InputError: If the folder cannot be read.
    """
    names = []
    for entry in _entries(folder):
        with suppress(OSError):  # a link to itself
            if entry.is_dir():
                names.append(entry.name)
    return names


def _sort_out(
    entry: os.DirEntry[str],
    path: Path,
    suffixes: tuple[str, ...],
    found: Found,
    folders: list[str],
    links: deque[Path],
) -> None:
    """Puts what is in a folder where it belongs: pictures, folders, links to folders, or the rest."""
    try:
        folder, file = entry.is_dir(), entry.is_file()
    except OSError:  # a link to itself
        folder = file = False
    if folder and entry.is_symlink():
        links.append(path)
    elif folder:
        folders.append(entry.name)
    elif file and path.suffix.lower() in suffixes:
        found.images.append(path)
    elif file:
        found.skipped[path.suffix.lower() or "without an ending"] += 1
    else:
        found.skipped["broken links" if entry.is_symlink() else "special files"] += 1


def images_below(folder: Path) -> list[Path]:
    """Returns the pictures below a folder, sorted; see `walk`.

    Raises:
        InputError: If a folder cannot be read.
    """
    return walk(folder).complete().images


def no_images(folders: Iterable[Path], skipped: Counter[str] | None = None) -> InputError:
    """Returns the error for folders without pictures."""
    others = f"; skipped {said(skipped)}" if skipped else ""
    return InputError(f"expected images ({', '.join(SUFFIXES)}) below {', '.join(map(str, folders))}, got none{others}")


def make_folders(folder: Path) -> None:
    """Makes a folder and those above it. Unlike `Path.mkdir`, it takes any number of them."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder.parent == folder:
            break
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
