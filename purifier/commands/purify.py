"""purifier purify: purifies image files and folders of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from purifier._errors import OptionError
from purifier._files import create_text, writing
from purifier._images import Picture, put_together, read_size, take_apart, write_image
from purifier._records import differences
from purifier._walking import images_below, make_folders
from purifier._wrapping import DEFAULT
from purifier.commands._engine import check_engine, data_options, engine_options, run_on_ray
from purifier.commands._jobs import Summary, Work, is_abandoned, process, read_note
from purifier.commands._model_options import batch_size_option, device_option, dtype_option, given, iterations_option
from purifier.commands._terminal import echo
from purifier.data.outputs import RECORD, Format, Job, exists, is_done, output_settings, plan, record_text
from purifier.inference.pictures import Purified, purify_pictures

if TYPE_CHECKING:
    from purifier import Purifier


@click.command("purify")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--purifier", "name", default=DEFAULT, show_default=True, help="Name, folder or hub repository.")
@device_option
@dtype_option
@batch_size_option
@iterations_option
@click.option(
    "--gate", metavar="NAME", help="Purify only where the gate of this purifier, such as alloy-s, detects an attack."
)
@click.option("--tile", type=int, help="Work in tiles of this side in pixels: the same output in bounded memory.")
@click.option(
    "--format",
    "form",
    default="png",
    show_default=True,
    type=click.Choice(["png", "keep"]),
    help="png is lossless; keep writes each file in its own format, which is slightly lossy for JPEG.",
)
@click.option(
    "--max-megapixels", type=click.FloatRange(0, min_open=True), help="Largest picture to read.  [default: 89.5]"
)
@click.option("--overwrite", is_flag=True, help="Purify all files again, also those that are done.")
@engine_options
@data_options
def command(
    source: str,
    target: str,
    name: str,
    device: str,
    dtype: str,
    batch_size: int,
    iterations: int | None,
    gate: str | None,
    tile: int | None,
    form: Format,
    max_megapixels: float | None,
    overwrite: bool,
    engine: str,
    **ray: Any,
) -> None:
    """Purify image files.

    SRC is an image or a folder, which is searched recursively for PNG, JPEG, WebP, GIF, BMP, TIFF and PPM files. DST is
    a file or a folder. Files whose output exists and is not older are skipped: run the same command again to resume. A
    folder DST keeps its settings in .purifier.json, and a run with other settings is refused.

    With --engine ray, many workers purify folders, also of WebDataset or Parquet files and at addresses such as
    s3://bucket/folder. See docs/scale.md.
    """
    check_engine(engine, ray)
    if engine == "ray" and device != "auto":
        raise OptionError("expected --gpus-per-worker with --engine ray, got --device; use 0 for the CPU")
    build = partial(_build, name, iterations, gate, tile)
    most = None if max_megapixels is None else max_megapixels * 1e6
    if engine == "ray":
        # Workers move it to their device. The outputs do not depend on which machine has which.
        purifier = build("cpu", "float32" if dtype == "auto" else dtype)
        run_on_ray(
            source, target, purifier, form=form, batch_size=batch_size, max_pixels=most, overwrite=overwrite, **ray
        )
        return
    _purify_here(Path(source), Path(target), build, device, dtype, form, batch_size, most, overwrite)


def _build(name: str, iterations: int | None, gate: str | None, tile: int | None, device: str, dtype: str) -> Purifier:
    from purifier import Purifier

    purifier = Purifier.from_pretrained(name, device=device, dtype=dtype, **given(iterations=iterations))
    if gate is not None:
        purifier = purifier.gated(gate)
    return purifier if tile is None else purifier.tiled(tile)


def _purify_here(
    source: Path,
    target: Path,
    build: Callable[[str, str], Purifier],
    device: str,
    dtype: str,
    form: Format,
    batch_size: int,
    max_pixels: float | None,
    overwrite: bool,
) -> None:
    jobs = plan(source, target, form)
    purifier = build(device, dtype)
    settings = output_settings(purifier)
    # A single output file has no folder of its own to keep the settings in, but may be written into one that has.
    folder = target if jobs[0].target != target else target.parent if (target.parent / RECORD).is_file() else None
    recorded = folder is not None and check_record(folder, jobs, settings, overwrite=overwrite)
    # Only of what is known as an output can the source have changed since.
    done = {job for job in jobs if not overwrite and (is_done(job) if recorded else exists(job.target))}
    if done and not recorded:
        echo(
            "note: kept the images in DST whose settings are unknown "
            f"({len(done)}); use --overwrite to purify them again",
            err=True,
        )
    summary = run(jobs, purifier, batch_size=batch_size, done=done, max_pixels=max_pixels)
    if folder is not None and overwrite and not recorded and not summary.failures:
        _record(folder, jobs, settings, written={job.target for job in jobs})
    summary.report(f"purified {summary.written}")


def check_record(folder: Path, jobs: Sequence[Job], settings: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Compares settings with those that the images in a folder were made with.

    The settings are recorded in a folder without images. If images of other settings are overwritten, the old record
    is removed.

    Args:
        folder: The folder of the outputs.
        jobs: The jobs, from `plan`.
        settings: Everything that outputs depend on, as JSON values.
        overwrite: Whether existing outputs of the jobs are made again.

    Returns:
        Whether all images in the folder were made with these settings.

    Raises:
        OptionError: If they were made with others and are not overwritten, or the folder cannot be written.
    """
    note = read_note(folder / RECORD)
    if note is None or (differences(note["settings"], settings) and is_abandoned(folder / RECORD)):
        if _record(folder, jobs, settings, written=set()):
            return True
        note = read_note(folder / RECORD)  # another run may have made it meanwhile
    differing = None if note is None else differences(note["settings"], settings)
    if differing == "":
        return True
    if differing and not overwrite:
        raise OptionError(
            f"expected images in {folder} that were made with these settings, got others ({differing}); choose another "
            "DST, or pass --overwrite"
        )
    (folder / RECORD).unlink(missing_ok=True)
    return False


def _record(folder: Path, jobs: Sequence[Job], settings: Mapping[str, Any], written: set[Path]) -> bool:
    """Records the settings if the folder has no images but sources and `written`; returns whether it did."""
    sources = {job.source.resolve() for job in jobs}
    if any(path not in written and path.resolve() not in sources for path in images_below(folder)):
        return False
    with writing(folder):
        make_folders(folder)
        if (folder / RECORD).is_file() and is_abandoned(folder / RECORD):
            (folder / RECORD).unlink()
    return create_text(folder / RECORD, record_text(settings))


def run(
    jobs: Sequence[Job],
    purifier: Purifier,
    *,
    batch_size: int = 8,
    done: AbstractSet[Job] | None = None,
    max_pixels: float | None = None,
) -> Summary:
    """Purifies files in batches; see `process`.

    Args:
        jobs: The jobs, from `plan`.
        purifier: The purifier.
        batch_size: The largest number of images in a batch.
        done: Jobs whose output is kept. None means those whose output exists and is not older than its source.
        max_pixels: The largest number of pixels of a file. None means Pillow's limit.
    """
    kept = {job for job in jobs if is_done(job)} if done is None else set(done)
    return process(jobs, _Purifying(purifier, max_pixels), batch_size=batch_size, done=kept)


class _Purifying(Work):
    def __init__(self, purifier: Purifier, max_pixels: float | None) -> None:
        self.purifier = purifier
        self.max_pixels = max_pixels

    def size_of(self, path: Path) -> tuple[int, int]:
        return read_size(path, max_pixels=self.max_pixels)

    def read(self, path: Path) -> Picture:
        return take_apart(path, max_pixels=self.max_pixels)

    def compute(self, jobs: Sequence[Job], images: Sequence[Picture]) -> Sequence[Purified | Exception]:
        return purify_pictures(self.purifier, images)

    def write(self, job: Job, image: Picture, result: Purified) -> None:
        write_image(put_together(image, result.pixels), job.target)
