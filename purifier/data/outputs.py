"""Which file is written for which picture, decided before any picture is read, and where results may be written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

from purifier._errors import OptionError
from purifier._identity import purifier_identity
from purifier._images import check_suffix
from purifier._opening import check_file, is_file, is_folder
from purifier._walking import Found, no_images, walk

Format = Literal["png", "keep"]
Name = TypeVar("Name", bound=PurePath)

# The file in a folder of outputs that states with which settings they were made.
RECORD = ".purifier.json"


@dataclass(frozen=True)
class Job:
    """One image file and the file that is made of it."""

    source: Path
    target: Path


class Jobs(list[Job]):
    """The jobs of a run, and the files of the source folder that are not pictures.

    Attributes:
        others: Number of files that are not pictures, by kind.
        outside: Links that lead to folders outside the source folder.
        unreadable: Folders that could not be read, each with the error.
    """

    def __init__(self, jobs: Iterable[Job] = (), found: Found | None = None) -> None:
        super().__init__(jobs)
        self.others = Counter[str]() if found is None else found.skipped
        self.outside = [] if found is None else found.outside
        self.unreadable = [] if found is None else found.unreadable


def output_settings(purifier: object) -> dict[str, Any]:
    """Returns everything that purified outputs depend on; they do not depend on tiles or the batch size."""
    return {"purifier": {key: value for key, value in purifier_identity(purifier).items() if key != "tile"}}


def record_text(settings: Mapping[str, Any]) -> str:
    """Returns the content of `RECORD` for outputs that are made with these settings."""
    return json.dumps({"settings": settings}, indent=1) + "\n"


def read_record(content: str | bytes) -> dict[str, Any] | None:
    """Returns a JSON object that states "settings"; None if the content is something else."""
    try:
        record = json.loads(content)
        return record if isinstance(record["settings"], dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def plan(source: Path, target: Path, form: Format = "png") -> Jobs:
    """Decides which files are processed and where the outputs go, without reading any image.

    Args:
        source: An image file or a folder, which is searched recursively.
        target: A file (if `source` is a file) or a folder. If it is inside `source`, the images in it are not sources.
        form: "png", or "keep" for the format of each source.

    Raises:
        InputError: If there is nothing to process.
        OptionError: If an output would replace a source or a folder, or `target` is a file and `source` a folder.
    """
    if is_folder(source):
        found = _sources(source, target)
        names = output_names([path.relative_to(source) for path in found.images], form)
        jobs = Jobs([Job(path, target / name) for path, name in zip(found.images, names, strict=True)], found)
    else:
        check_file(source, wanted="an image file or a folder of images")
        single = target.suffix and not is_folder(target)
        if single:
            check_suffix(target)
        jobs = Jobs([Job(source, target if single else target / output_names([Path(source.name)], form)[0])])
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in sources:
            raise OptionError(
                f"expected outputs that replace no source, got {job.target}, which is a source; choose another DST"
            )
        if exists(job.target) and not is_file(job.target):
            raise OptionError(
                f"expected outputs that replace files only, got {job.target}, which is not a file; move it, or choose "
                "another DST"
            )
    return jobs


def check_outside(out: Path, *folders: Path) -> None:
    """Checks that results do not become pictures of the next run.

    Args:
        out: The file or folder that is written.
        *folders: Folders whose pictures are read. Paths of files are no obstacle.

    Raises:
        OptionError: If `out` is one of the folders or inside one.
    """
    for folder in folders:
        if is_folder(folder) and is_within(out, folder):
            raise OptionError(
                f"expected a place for the results outside the folder of images, {folder}, got {out}, where a "
                "later run would take them for images; choose another place"
            )


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path is that of a folder or leads into it; neither must exist."""
    return path.resolve().is_relative_to(folder.resolve())


def exists(path: Path) -> bool:
    """Whether a path leads somewhere. One that the system refuses to look at does not; writing to it states why."""
    try:
        return path.exists()
    except OSError:
        return False


def is_done(job: Job) -> bool:
    """Whether the output of a job exists and is not older than its source, which may have been replaced."""
    try:
        return job.target.stat().st_mtime_ns >= job.source.stat().st_mtime_ns
    except OSError:
        return False


def _sources(source: Path, target: Path) -> Found:
    if exists(target) and not is_folder(target):
        raise OptionError(f"expected a folder to write to, as SRC is a folder, got {target}, which is a file")
    outputs = target.resolve()
    if outputs == source.resolve():
        raise OptionError(f"expected a DST other than SRC, got {target} for both; choose another DST")
    # A DST that contains SRC excludes nothing.
    inside = outputs if is_within(outputs, source) else None
    found = walk(source, without=inside)
    if not found.images:
        found.complete()
        raise no_images([source], found.skipped)
    return found


def output_names(names: Sequence[Name], form: Format) -> list[Name]:
    """Returns a different output name for each source: a.png for a.jpg, or a.jpg.png if two sources would be a.png.

    Of a clash, every file gets the long name, so names do not depend on the order of the files.
    """
    if form == "keep":
        return list(names)
    long = [name.with_name(f"{name.name}.png") for name in names]
    chosen = [name.with_suffix(".png") for name in names]
    while True:
        # Some file systems ignore case.
        keys = [str(name).casefold() for name in chosen]
        counts = Counter(keys)
        clashing = [i for i, key in enumerate(keys) if counts[key] > 1 and chosen[i] != long[i]]
        if not clashing:
            return chosen
        for i in clashing:
            chosen[i] = long[i]
