"""Work on image files in batches, and what became of each."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from purifier._errors import InputError, OptionError, PurifierError
from purifier._files import create_text, sweep, write_text, writing
from purifier._images import check_suffix, read_size
from purifier._records import differences
from purifier._walking import said
from purifier.commands._terminal import echo, echo_error
from purifier.data.outputs import Job, Jobs, read_record, record_text
from purifier.inference.pictures import batches

_ATTACK_RECORD = ".purifier.attack"
# A run that has recorded its settings so long ago and has no output is not about to write some.
_ABANDONED_SECONDS = 120


@dataclass
class Summary:
    """What became of the files.

    Attributes:
        written: Number of files that were written.
        skipped: Number of files whose output existed already.
        failures: Files that could not be read, processed or written, and folders, each with the reason.
        others: Number of files that are not pictures, by kind.
    """

    written: int = 0
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def report(self, done: str) -> None:
        """Prints every failure and the totals, and ends the command with exit code 1 if there is a failure.

        Args:
            done: The start of the last line, such as "purified 3".
        """
        for path, reason in self.failures:
            text = reason if str(path) in reason else f"{path}: {reason}"
            echo_error(text)
        others = f"; not pictures, skipped {said(self.others)}" if self.others else ""
        echo(f"{done}, skipped {self.skipped}, failed {len(self.failures)}{others}")
        if self.failures:
            raise click.exceptions.Exit(1)


class Work(ABC):
    """What a command does with a batch of image files, in three steps."""

    def size_of(self, path: Path) -> tuple[int, int]:
        """Returns the height and width that `read` will find; raises as `read`."""
        return read_size(path)

    @abstractmethod
    def read(self, path: Path) -> Any:
        """Reads one file.

        Raises:
            InputError: If it cannot be read.
        """

    @abstractmethod
    def compute(self, jobs: Sequence[Job], images: Sequence[Any]) -> Sequence[Any]:
        """Returns for each image of a batch what `write` needs, or the exception that it failed with."""

    @abstractmethod
    def write(self, job: Job, image: Any, result: Any) -> None:
        """Writes the output of one job, given what `read` and `compute` returned for it."""


def process(jobs: Sequence[Job], work: Work, *, batch_size: int, done: set[Job]) -> Summary:
    """Works on files in batches of images of one size, with a progress bar.

    A second call completes a run that was killed, with identical outputs: the batches depend only on the jobs, and
    jobs that are done are computed again with the others of their batch.

    Args:
        jobs: The jobs, from `plan`.
        work: What to do.
        batch_size: The largest number of images in a batch.
        done: Jobs whose output exists and is kept.
    """
    from tqdm import tqdm

    found = jobs if isinstance(jobs, Jobs) else Jobs()
    summary = Summary(others=found.others, failures=[(folder, str(error)) for folder, error in found.unreadable])
    for link in found.outside:
        echo(f"note: {link} leads out of the source folder, to {os.path.realpath(link)}", err=True)
    for folder in {job.target.parent for job in jobs}:
        sweep(folder)
    with tqdm(total=len(jobs), unit="image", disable=None) as bar:
        for batch in batches(jobs, lambda job: work.size_of(job.source), batch_size):
            summary.skipped += sum(job in done for job in batch)
            if not done.issuperset(batch):
                _process_batch(batch, work, done, summary)
            bar.update(len(batch))
    return summary


def _process_batch(batch: Sequence[Job], work: Work, done: set[Job], summary: Summary) -> None:
    failed: list[tuple[Job, Exception]] = []
    read: list[tuple[Job, Any]] = []
    for job in batch:
        try:
            check_suffix(job.target)
            read.append((job, work.read(job.source)))
        except InputError as error:
            failed.append((job, error))
    results = work.compute([job for job, _ in read], [image for _, image in read]) if read else []
    for (job, image), result in zip(read, results, strict=True):
        if job in done:
            continue
        try:
            if isinstance(result, Exception):
                raise result
            work.write(job, image, result)
            summary.written += 1
        except (PurifierError, OSError, RuntimeError, ValueError) as error:
            failed.append((job, error))
    summary.failures += [(job.source, str(error)) for job, error in failed if job not in done]


def is_abandoned(record: Path) -> bool:
    """Whether the run that made a record has ended, if there are no outputs of it."""
    try:
        return time.time() - record.stat().st_mtime > _ABANDONED_SECONDS
    except OSError:
        return True


def read_note(path: Path) -> dict[str, Any] | None:
    """Returns the content of a JSON file that states with which "settings" images were made.

    None means that the file does not exist or is not such a file.
    """
    try:
        return read_record(path.read_bytes())
    except OSError:
        return None


def claim(folder: Path, settings: Mapping[str, Any], *, overwrite: bool, empty: bool) -> None:
    """Records in a folder with which settings its outputs are made, so that of two runs with others one is refused.

    Args:
        folder: The folder of the outputs.
        settings: Everything that outputs depend on, as JSON values.
        overwrite: Whether outputs of other settings are made again.
        empty: Whether no output exists, so that the record of a run that failed before its first one does not count.

    Raises:
        OptionError: If a run with other settings writes or wrote there.
        OutputError: If the folder cannot be written.
    """
    record, text = folder / _ATTACK_RECORD, record_text(settings)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if create_text(record, text):
        return
    note = read_note(record)
    differing = differences({} if note is None else note["settings"], settings)
    if differing and not overwrite and not (empty and is_abandoned(record)):
        raise OptionError(
            f"expected images in {folder} that were made with these settings, got others ({differing}); choose another "
            "DST, or pass --overwrite"
        )
    if differing:
        write_text(record, text)
