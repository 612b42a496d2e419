"""purifier purify: purifies image files and folder trees of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from purifier._errors import InputError, OptionError, PurifierError
from purifier._files import write_text

if TYPE_CHECKING:
    from torch import Tensor

    from purifier import Purifier
    from purifier._images import Picture

Format = Literal["png", "keep"]

# A batch holds at most this many pixels for each image that --batch-size allows, so large images go alone.
_PIXELS_AN_IMAGE = 1 << 20
# Temporary files of a killed run are swept once no run can still be writing them.
_STALE_SECONDS = 600
# Says with what settings the pictures of a folder were made.
_RECORD = ".purifier.json"


@dataclass(frozen=True)
class Job:
    """One image file and where its purified form goes."""

    source: Path
    target: Path


@dataclass
class Summary:
    """What became of the files.

    Attributes:
        purified: Files that were written.
        skipped: Files whose outputs were there already.
        failures: The files that could not be read, purified or written, each with the reason.
    """

    purified: int = 0
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)


@click.command("purify")
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@click.option("--purifier", "name", default="ncis", show_default=True, help="Name, folder or hub repository.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1), help="Images of a size at a time.")
@click.option("--iterations", type=int, help="How often the method is applied (gs, ncis and alloy).")
@click.option("--gate", metavar="NAME", help="Leave alone what does not look attacked to the gate of this, as alloy-s.")
@click.option("--tile", type=int, help="Work in tiles of this side in pixels: the same output in bounded memory.")
@click.option(
    "--format",
    "form",
    default="png",
    show_default=True,
    type=click.Choice(["png", "keep"]),
    help="png is lossless; keep writes each file in its own format, which for JPEG loses a little.",
)
@click.option("--overwrite", is_flag=True, help="Purify also what is in DST already.")
def command(
    source: Path,
    target: Path,
    name: str,
    device: str,
    dtype: str,
    batch_size: int,
    iterations: int | None,
    gate: str | None,
    tile: int | None,
    form: Format,
    overwrite: bool,
) -> None:
    """Purify image files.

    SRC is an image or a folder, searched recursively; DST is a file or a folder. Files that are in DST already are
    skipped, so a run that was stopped goes on where it was; a folder DST keeps its settings in .purifier.json, and a
    run with others is refused.
    """
    from tqdm import tqdm

    from purifier import Purifier

    jobs = plan(source, target, form)
    options: dict[str, Any] = {} if iterations is None else {"iterations": iterations}
    purifier = Purifier.from_pretrained(name, device=device, dtype=dtype, **options)
    if gate is not None:
        purifier = purifier.gated(gate)
    if tile is not None:
        purifier = purifier.tiled(tile)
    settings = _settings(purifier)
    # A file alone has no place for a record.
    folder = None if jobs[0].target == target else target
    recorded = folder is not None and check_record(folder, jobs, settings, overwrite=overwrite)
    kept = 0 if recorded or overwrite else sum(job.target.exists() for job in jobs)
    if kept:
        unknown = "made with settings of which there is no record; --overwrite purifies them again"
        click.echo(f"note: kept the pictures that are in DST ({kept}), {unknown}", err=True)
    with tqdm(total=len(jobs), unit="image", disable=None) as bar:
        summary = run(jobs, purifier, batch_size=batch_size, overwrite=overwrite, progress=bar.update)
    if folder is not None and overwrite and not recorded and not summary.failures:
        _record(folder, jobs, settings, written={job.target for job in jobs})
    for path, reason in summary.failures:
        named = reason if str(path) in reason else f"{path}: {reason}"
        click.echo(f"error: {' '.join(named.split())}", err=True)
    click.echo(f"purified {summary.purified}, skipped {summary.skipped}, failed {len(summary.failures)}")
    if summary.failures:
        raise click.exceptions.Exit(1)


def plan(source: Path, target: Path, form: Format = "png") -> list[Job]:
    """Decides which files are purified and where to, without reading any of them.

    Args:
        source: An image file or a folder tree of them.
        target: A file (for a file) or a folder; what lies in it is no source, also where it is inside `source`.
        form: "png", or "keep" for each file's own format.

    Raises:
        InputError: Where there is nothing to purify.
        OptionError: Where an output would replace a source, or `target` is of the wrong kind.
    """
    from purifier._images import check_suffix, images_below, no_images

    if source.is_file():
        if target.is_dir() or not target.suffix:
            jobs = [Job(source, target / _output_names([Path(source.name)], form)[0])]
        else:
            check_suffix(target)
            jobs = [Job(source, target)]
    elif source.is_dir():
        if target.exists() and not target.is_dir():
            raise OptionError(f"expected a folder to write to, got {target}, which is a file; SRC is a folder")
        # A folder that holds SRC takes outputs too, and hides no sources.
        inside = target.resolve() if target.resolve().is_relative_to(source.resolve()) else None
        if inside == source.resolve():
            raise OptionError(f"expected a folder other than SRC to write to, got {target}; give another DST")
        files = [
            path for path in images_below(source) if not (inside is not None and path.resolve().is_relative_to(inside))
        ]
        if not files:
            raise no_images(source)
        names = [path.relative_to(source) for path in files]
        jobs = [Job(path, target / name) for path, name in zip(files, _output_names(names, form), strict=True)]
    else:
        raise InputError(f"expected an image file or a folder of them, got {source}, which is not there")
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in sources:
            raise OptionError(f"expected outputs apart from the sources, got {job.target}, a source; give another DST")
    return jobs


def read_settings(path: Path) -> Any:
    """Returns the settings that a JSON file has of how pictures were made, or None where there are none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_record(folder: Path, jobs: Sequence[Job], settings: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Compares settings with those that the pictures of a folder were made with.

    A folder without pictures gets these settings as its record; one with pictures of others loses its record where
    they are overwritten, until all of them are.

    Args:
        folder: Where outputs go.
        jobs: What `plan` gave.
        settings: All that outputs depend on, fit for JSON.
        overwrite: Whether the jobs' outputs are made again.

    Returns:
        Whether all pictures in the folder are of these settings.

    Raises:
        OptionError: Where they are of others, and not overwritten, or the folder cannot be written.
    """
    from purifier._records import differences

    found = read_settings(folder / _RECORD)
    differing = None if found is None else differences(found, settings)
    if differing == "" or _record(folder, jobs, settings, written=set()):
        return True
    if differing and not overwrite:
        raise OptionError(
            f"expected the pictures in {folder} to be of these settings, got those of others ({differing}); choose "
            "another DST, or --overwrite"
        )
    (folder / _RECORD).unlink(missing_ok=True)
    return False


def _record(folder: Path, jobs: Sequence[Job], settings: Mapping[str, Any], written: set[Path]) -> bool:
    """Records the settings where a folder has no pictures but those written with them; returns whether it did."""
    from purifier._images import images_below

    # The folder may hold SRC.
    sources = {job.source.resolve() for job in jobs}
    if any(path not in written and path.resolve() not in sources for path in images_below(folder)):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / _RECORD, json.dumps({"settings": settings}, indent=1) + "\n")
    except OSError as error:
        raise OptionError(f"expected a folder that can be written, got {folder}: {error}") from error
    return True


def _settings(purifier: Purifier) -> dict[str, Any]:
    """Returns all that tells outputs apart: neither tiles nor the size of batches, which may change on the way."""
    from purifier._identity import purifier_identity

    return {"purifier": {key: value for key, value in purifier_identity(purifier).items() if key != "tile"}}


def _output_names(names: Sequence[Path], form: Format) -> list[Path]:
    """Maps a.jpg to a.png, or to a.jpg.png where another file would be a.png too; all names come out different.

    A clash moves every file that takes part in it, so which name a file gets does not depend on an order.
    """
    if form == "keep":
        return list(names)
    short = [name.with_suffix(".png") for name in names]
    full = [name.with_name(f"{name.name}.png") for name in names]
    chosen = list(short)
    while True:
        # Names that differ in case only are one file on some systems.
        keys = [str(name).casefold() for name in chosen]
        counts = Counter(keys)
        moved = [i for i, key in enumerate(keys) if counts[key] > 1 and chosen[i] != full[i]]
        if not moved:
            return chosen
        for i in moved:
            chosen[i] = full[i]


def run(
    jobs: Sequence[Job],
    purifier: Purifier,
    *,
    batch_size: int = 8,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> Summary:
    """Purifies files in batches of equal size and writes each to a temporary name first.

    A run that was killed is finished by another call, with the very same outputs: an image is always computed in the
    company of the same others, whether or not they are there already.

    Args:
        jobs: What `plan` gave.
        purifier: The purifier.
        batch_size: Images in a batch, at most.
        overwrite: Whether to purify again what is there already.
        progress: Called with the number of files that are done since the last call.
    """
    summary = Summary()
    _sweep({job.target.parent for job in jobs})
    done = {job for job in jobs if not overwrite and job.target.exists()}
    for batch in _batches(jobs, batch_size, done, summary, progress):
        _purify_batch(batch, done, purifier, summary)
        progress(len(batch))
    return summary


def _batches(
    jobs: Iterable[Job], batch_size: int, done: set[Job], summary: Summary, progress: Callable[[int], object]
) -> Iterator[list[Job]]:
    """Yields jobs of one image size each, up to `batch_size` at a time; records files that are no images."""
    from purifier._images import read_size

    waiting: dict[tuple[int, int], list[Job]] = {}
    for job in jobs:
        try:
            size = read_size(job.source)
        except InputError as error:
            if job in done:
                summary.skipped += 1
            else:
                summary.failures.append((job.source, str(error)))
            progress(1)
            continue
        batch = waiting.setdefault(size, [])
        batch.append(job)
        if len(batch) >= min(batch_size, max(1, batch_size * _PIXELS_AN_IMAGE // (size[0] * size[1]))):
            yield waiting.pop(size)
    yield from waiting.values()


def _purify_batch(batch: list[Job], done: set[Job], purifier: Purifier, summary: Summary) -> None:
    from purifier._images import put_together, take_apart, write_image

    summary.skipped += sum(job in done for job in batch)
    if done.issuperset(batch):
        return
    read: list[tuple[Job, Picture]] = []
    for job in batch:
        try:
            read.append((job, take_apart(job.source)))
        except InputError as error:
            if job not in done:
                summary.failures.append((job.source, str(error)))
    read.sort(key=lambda one: one[1].sixteen_bit)
    deep = [picture.rgb for _, picture in read if picture.sixteen_bit]
    purified = list(_purify([picture.rgb for _, picture in read[: len(read) - len(deep)]], purifier))
    if deep:
        purified += _purify(deep, purifier._fine_enough(True))
    for (job, picture), rgb in zip(read, purified, strict=True):
        if job in done:
            continue
        try:
            if isinstance(rgb, Exception):
                raise rgb
            write_image(put_together(picture, rgb), job.target)
        except (PurifierError, OSError, RuntimeError, ValueError) as error:
            summary.failures.append((job.source, str(error)))
        else:
            summary.purified += 1


def _purify(images: list[Tensor], purifier: Purifier) -> Sequence[Tensor | Exception]:
    """Purifies a batch; where that fails, for want of memory say, one by one."""
    import torch

    if not images:
        return []
    try:
        with torch.inference_mode():
            return list(purifier(torch.stack(images)))
    except (RuntimeError, ValueError) as error:
        if len(images) == 1:
            return [error]
    return [_purify([image], purifier)[0] for image in images]


def _sweep(folders: Iterable[Path]) -> None:
    """Removes what runs that were killed left behind."""
    from purifier._files import PART

    for folder in folders:
        for path in folder.glob(f".*{PART}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
