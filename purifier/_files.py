"""Safe writing of files: a file is absent, old or complete, and nothing is written through a link."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from purifier._errors import OutputError, PurifierError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# A temporary name is ".NAME.RANDOM.part", by which leftovers of a killed process are recognised.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.part", re.DOTALL)
# Name of the files in which saves list what they write.
JOURNAL = "saving.json"
# Longest name, in bytes, that leaves room for the temporary name's other parts; file systems allow 255.
_LONGEST = 200
# A temporary file of this age that nobody has locked was left by a killed process. Where files cannot be locked, it
# must be older.
_STALE_SECONDS, _STALE_SECONDS_UNLOCKABLE = 1, 600
# How long to wait for another process that writes into the same folder.
_LOCK_SECONDS = 60
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.ENOLCK, errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_swept: set[tuple[int, Path]] = set()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of writing `path` into an OutputError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PurifierError):
            raise
        advice = "free some space, or choose another place" if error.errno in _FULL else "choose another place"
        raise OutputError(
            f"expected a place that can be written, got {str(path)!r}: {error.strerror or error}; {advice}"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields an empty temporary file beside `path`, and renames it to `path` at the end unless there was an error.

    When the context ends, content and name are on the disk. The temporary name is random, so any number of threads,
    processes and machines can write into one folder. The first call for a folder removes what killed processes left.

    Raises:
        OutputError: If the file cannot be written.
    """
    with writing(path), temporary(path) as (draft, descriptor):
        yield draft
        _sync(draft, descriptor)
        draft.replace(path)
        _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8.

    Raises:
        OutputError: If it cannot be written.
    """
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def create_text(path: Path, text: str) -> bool:
    """Writes a new text file in UTF-8. Of several processes that create one file, exactly one succeeds.

    Returns:
        False if there is a file of that name already, which is left as it is.

    Raises:
        OutputError: If it cannot be written.
    """
    with writing(path), temporary(path) as (draft, descriptor):
        draft.write_text(text, encoding="utf-8", newline="\n")
        _sync(draft, descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in {*_UNSUPPORTED, errno.EMLINK}:
                raise
            return _create_without_link(path, text)
        _sync_folder(path.parent)
    return True


def _create_without_link(path: Path, text: str) -> bool:
    """Does the same on a file system without hard links, where a kill can leave a part of the file."""
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


@contextmanager
def temporary(path: Path) -> Iterator[tuple[Path, int]]:
    """Yields a new, locked, empty file beside `path` and its descriptor. Unless it was renamed, it is removed."""
    folder, here = path.parent, (os.getpid(), path.parent)
    if here not in _swept:
        _swept.add(here)
        sweep(folder)
    draft = _draft(path)
    # O_EXCL refuses a file or link of that name.
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        _lock(descriptor)
        yield draft, descriptor
    finally:
        os.close(descriptor)
        with suppress(OSError):
            draft.unlink()


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yields a new, locked folder beside `path`, and removes it at the end. Removes those that killed processes left.

    Raises:
        OSError: If it cannot be made.
    """
    for left in abandoned(path.parent, folders=True):
        shutil.rmtree(left, ignore_errors=True)
    folder = _draft(path)
    folder.mkdir(mode=0o700)
    try:
        with locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _draft(path: Path) -> Path:
    name = path.name if len(os.fsencode(path.name)) <= _LONGEST else hashlib.sha256(os.fsencode(path.name)).hexdigest()
    return path.with_name(f".{name}.{secrets.token_hex(8)}.part")


def sweep(folder: Path) -> None:
    """Removes the temporary files that killed processes left in a folder, except journals, which must be read first."""
    for path in abandoned(folder):
        if not is_journal(path):
            with suppress(OSError):
                path.unlink()


def is_journal(path: Path) -> bool:
    """Whether a temporary file is the journal of a save."""
    return path.name.startswith(f".{JOURNAL}.")


def abandoned(folder: Path, *, folders: bool = False) -> list[Path]:
    """Returns the temporary files, or folders, that killed processes left in a folder."""
    found: list[Path] = []
    with suppress(OSError), os.scandir(folder) as entries:
        kept = [one for one in entries if _TEMPORARY.fullmatch(one.name) and not one.is_symlink()]
        names = [one.name for one in kept if (one.is_dir() if folders else one.is_file())]
        found = [folder / name for name in names if _is_abandoned(folder / name)]
    return found


def _is_abandoned(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        free, age = _lock(descriptor), time.time() - os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
    return free is not False and age > (_STALE_SECONDS if free else _STALE_SECONDS_UNLOCKABLE)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Holds the lock of a file or folder, which a kill releases.

    Yields False if it cannot be had: the file system has no locks, or another process holds it for a minute.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        yield False
        return
    try:
        until = time.monotonic() + _LOCK_SECONDS
        while (free := _lock(descriptor)) is False and time.monotonic() < until:
            time.sleep(0.005)
        yield bool(free)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Locks an open file. Returns False if another holder has it, None if files cannot be locked here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sync(draft: Path, descriptor: int) -> None:
    """Puts a temporary file's content on the disk, and checks that its name still is that of the file."""
    with _supported():
        os.fsync(descriptor)
    if not os.path.samestat(os.fstat(descriptor), draft.lstat()):
        raise OSError(f"{draft.name} was exchanged for another file while it was written")


def _sync_folder(folder: Path) -> None:
    """Puts a folder's names on the disk, where that is possible."""
    with _supported():
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _supported() -> Iterator[None]:
    """Ignores that a file system does not support an operation."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
