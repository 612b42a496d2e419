"""purifier detect: scores how much pictures look attacked, and calibrates a threshold for the scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch

from purifier._errors import InputError, OptionError, PurifierError
from purifier._extras import require_extra
from purifier._files import write_text, writing
from purifier._images import Picture, read_size, take_apart
from purifier._opening import SUFFIXES, check_file, is_folder
from purifier._walking import Found, no_images, said, walk
from purifier._wrapping import DEFAULT
from purifier.commands._model_options import batch_size_option, device_option
from purifier.commands._terminal import echo, echo_error
from purifier.data.outputs import check_outside, exists
from purifier.inference.pictures import batches

if TYPE_CHECKING:
    from purifier import Purifier
    from purifier.evaluation.thresholds import Threshold

# Bounds the memory of large pictures; the scores do not depend on it.
_TILE = 2048
# The exit code if pictures are above the threshold. 1 and 2 are errors.
_ATTACKED = 3


@click.command("detect")
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="CSV file of the scores. With --calibrate: file of the threshold.  [default: threshold.json]",
)
@click.option("--histogram", type=click.Path(path_type=Path), help="PNG of the scores; needs matplotlib.")
@click.option("--threshold", "limit", type=click.Path(path_type=Path), help="File of --calibrate, to mark pictures by.")
@click.option("--calibrate", is_flag=True, help="Write a threshold, from the clean pictures in SRC.")
@click.option(
    "--false-positive-rate", type=float, help="With --calibrate: share of clean pictures above the threshold."
)
@click.option("--purifier", "name", default=DEFAULT, show_default=True, help="A purifier with a gate.")
@device_option
@batch_size_option
@click.option(
    "--max-megapixels", type=click.FloatRange(0, min_open=True), help="Largest picture to read.  [default: 89.5]"
)
def command(
    source: Path,
    out: Path | None,
    histogram: Path | None,
    limit: Path | None,
    calibrate: bool,
    false_positive_rate: float | None,
    name: str,
    device: str,
    batch_size: int,
    max_megapixels: float | None,
) -> None:
    """Scores how much the pictures in SRC, an image or a folder, look attacked.

    The scores, from 0 to 1, go to --out as CSV, or to the terminal. They have a meaning only beside those of clean
    pictures of the same origin and preparation. So calibrate first, on a folder of clean pictures:

      purifier detect CLEAN --calibrate --false-positive-rate 0.01 --out threshold.json

      purifier detect SRC --threshold threshold.json --out scores.csv

    An attacker who knows the detector can evade it. The exit code is 0 if no picture is above the threshold, 3 if some
    are, and 1 for an error or a picture that cannot be read.
    """
    from purifier import Purifier
    from purifier.evaluation.thresholds import Threshold, check_count

    _check_options(limit, calibrate, false_positive_rate)
    if histogram is not None:
        require_extra("matplotlib", extra="eval", what="--histogram")
    found = _pictures(source)
    if calibrate:
        out = out or Path("threshold.json")
    _check_targets(out, histogram, source, [*found.images, *([limit] if limit else [])])
    if calibrate and out is not None:
        _check_replaced(out)
    # In float32, so that a threshold holds on every machine.
    purifier = Purifier.from_pretrained(name, device=device).tiled(_TILE)
    threshold = None if limit is None else Threshold.load(limit, purifier)
    if false_positive_rate is not None:
        check_count(len(found.images), false_positive_rate)
    scores = score_files(found.images, purifier, batch_size, None if max_megapixels is None else max_megapixels * 1e6)
    scores.failures.update((folder, str(error)) for folder, error in found.unreadable)
    if false_positive_rate is None:
        _write_table(scores, out, source, threshold)
    else:
        threshold = Threshold.of(list(scores.values.values()), false_positive_rate, purifier)
        assert out is not None
        threshold.save(out)
    if histogram is not None:
        _draw(scores, histogram, source, purifier, threshold)
    _report(scores, found, threshold, calibrated=calibrate)


def _check_options(limit: Path | None, calibrate: bool, rate: float | None) -> None:
    if calibrate != (rate is not None):
        raise OptionError(
            "expected --calibrate and --false-positive-rate together, got one of them; for example --calibrate "
            "--false-positive-rate 0.01"
        )
    if calibrate and limit is not None:
        raise OptionError("expected either --calibrate or --threshold, got both")


def _check_replaced(path: Path) -> None:
    """Checks that a threshold replaces nothing but a threshold.

    Raises:
        OptionError: If it would.
    """
    from purifier.evaluation.thresholds import Threshold

    if exists(path):
        try:
            Threshold.load(path)
        except PurifierError:
            raise OptionError(
                f"expected a new file or one of --calibrate to write to, got {path}, which is something else; choose "
                "another --out"
            ) from None


def _check_targets(out: Path | None, histogram: Path | None, source: Path, read: Sequence[Path]) -> None:
    """Checks that what is written replaces nothing that is read, and is not a picture for the next run.

    Raises:
        OptionError: If it does or is.
    """
    if histogram is not None:
        check_outside(histogram, source)
    if out is not None and out.suffix.lower() in SUFFIXES:
        raise OptionError(f"expected --out with another ending than those of pictures, got {out}; give scores.csv")
    taken = {path.resolve() for path in read}
    for option, path in (("--out", out), ("--histogram", histogram)):
        if path is None:
            continue
        if path.resolve() in taken:
            raise OptionError(f"expected {option} to replace no file that is read, got {path}; choose another place")
        taken.add(path.resolve())


def _pictures(source: Path) -> Found:
    if not is_folder(source):
        check_file(source, wanted="an image file or a folder of images")
        return Found(images=[source])
    found = walk(source)
    if not found.images:
        found.complete()
        raise no_images([source], found.skipped)
    for link in found.outside:
        echo(f"note: {link} leads out of the source folder", err=True)
    return found


@dataclass
class Scores:
    """The scores of files, in their order, and the files that could not be scored, each with the reason."""

    values: dict[Path, float] = field(default_factory=dict)
    failures: dict[Path, str] = field(default_factory=dict)


def score_files(
    files: Sequence[Path], purifier: Purifier, batch_size: int = 8, max_pixels: float | None = None
) -> Scores:
    """Scores picture files in batches of one size, with a progress bar.

    Args:
        files: The files.
        purifier: A purifier with a gate.
        batch_size: The largest number of pictures in a batch.
        max_pixels: The largest number of pixels of a file. None means Pillow's limit.
    """
    from tqdm import tqdm

    found, size_of = Scores(), partial(read_size, max_pixels=max_pixels)
    with tqdm(total=len(files), unit="image", disable=None) as bar:
        for batch in batches(files, size_of, batch_size):
            pictures: dict[Path, Picture] = {}
            for path in batch:
                try:
                    pictures[path] = take_apart(path, max_pixels=max_pixels)
                except InputError as error:
                    found.failures[path] = str(error)
            _score(pictures, purifier, found)
            bar.update(len(batch))
    found.values = {path: found.values[path] for path in files if path in found.values}
    return found


def _score(pictures: dict[Path, Picture], purifier: Purifier, found: Scores) -> None:
    """Scores a batch, and one by one if that fails, for example for want of memory."""
    if not pictures:
        return
    try:
        with torch.inference_mode():
            scores = purifier.attack_score(torch.stack([picture.rgb for picture in pictures.values()])).tolist()
        found.values.update(zip(pictures, scores, strict=True))
    except (RuntimeError, MemoryError) as error:
        if len(pictures) == 1:
            found.failures[next(iter(pictures))] = str(error)
            return
        for path, picture in pictures.items():
            _score({path: picture}, purifier, found)


def _write_table(scores: Scores, out: Path | None, source: Path, threshold: Threshold | None) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "score", *(["attacked"] if threshold else [])])
    root = source if is_folder(source) else source.parent
    for path, score in scores.values.items():
        marked = [int(score > threshold.value)] if threshold else []
        # A name that is not UTF-8 holds halves of characters.
        name = path.relative_to(root).as_posix().encode(errors="backslashreplace").decode()
        writer.writerow([name, f"{score:.6g}", *marked])
    if out is None:
        echo(text.getvalue().removesuffix("\n"))
    else:
        write_text(out, text.getvalue())


def _draw(scores: Scores, path: Path, source: Path, purifier: Purifier, threshold: Threshold | None) -> None:
    from purifier.evaluation.scores_figure import draw_scores

    with writing(path):
        draw_scores(
            list(scores.values.values()), path, title="Attack scores", threshold=threshold,
            subtitle=f"{len(scores.values)} pictures of {source.name}, scored by the gate of {purifier.name}",
        )  # fmt: skip


def _report(scores: Scores, found: Found, threshold: Threshold | None, *, calibrated: bool) -> None:
    """Prints the totals, and ends the command with its exit code."""
    for path, reason in scores.failures.items():
        text = reason if str(path) in reason else f"{path}: {reason}"
        echo_error(text)
    others = f"; not pictures, skipped {said(found.skipped)}" if found.skipped else ""
    above = 0 if threshold is None else sum(score > threshold.value for score in scores.values.values())
    marked = ""
    if threshold is not None and calibrated:
        low, high = threshold.interval
        marked = f", threshold {threshold.value:.4g} (95 % interval {low:.4g} to {high:.4g})"
    elif threshold is not None:
        marked = f", attacked {above} (score above {threshold.value:.4g})"
    echo(f"scored {len(scores.values)}{marked}, failed {len(scores.failures)}{others}", err=True)
    if scores.failures:
        raise click.exceptions.Exit(1)
    if above and not calibrated:
        raise click.exceptions.Exit(_ATTACKED)
