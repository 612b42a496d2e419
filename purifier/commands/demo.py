"""purifier demo: attacks photographs, purifies them, and shows what a classifier predicts for each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from torch import Tensor

from purifier import Purifier, _hub
from purifier._errors import OptionError
from purifier._extras import require_extra
from purifier.commands._terminal import echo, printable
from purifier.data.images import read_rgb
from purifier.data.sets import bilinear_square

if TYPE_CHECKING:
    from purifier.models.loading import LoadedModel

# Photographs in the scikit-image wheel, and the class of each in the bundled classifier.
_PHOTOGRAPHS = {"chelsea.png": "cat", "coffee.png": "cup", "motorcycle_left.png": "motorbike"}
_STEPS = 10
_PHOTOGRAPHS_A_LINE = 3
_LABEL_WIDTH = 18
_HONEST = "The attacker here does not know the purifier (purifier-blind); one who does (purifier-aware) can bypass it."
_FAMILIAR = "This classifier was used in the training of {}; another model may gain less."
_TRAINED_WITH_IT = ("alloy", "alloy-s")


@dataclass(frozen=True)
class Stage:
    """Clean, attacked or purified photographs, and the classifier's predictions for them.

    Attributes:
        name: "clean", "attacked", or the purifier's name.
        images: (N, 3, S, S) in [0, 1].
        labels: The predicted class number of each image.
        confidences: The softmax probability of each prediction.
        right: Whether each prediction is right or, if the true class is not known, that for the clean photograph.
    """

    name: str
    images: Tensor
    labels: list[int]
    confidences: list[float]
    right: list[bool]


def _levels(radius: str) -> float:
    """Returns a radius, such as "8/255" or "8", in units of 1/255."""
    above, _, below = radius.partition("/")
    try:
        eps = float(above) * (255 / float(below) if below else 1)
    except (ValueError, ZeroDivisionError):
        eps = 0.0
    if not 0 < eps <= 255:
        raise OptionError(f"expected --eps as 8/255, or as 8 in units of 1/255, above 0 and up to 255, got {radius}")
    return eps


@click.command("demo")
@click.argument("images", metavar="[IMAGE ...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--model", default="demo", show_default=True, help="demo (bundled), or a classifier of torchvision or timm."
)
@click.option(
    "--eps",
    "radius",
    default="4/255",
    show_default=True,
    help="Largest change of a pixel, as 4/255, or as 4 in units of 1/255.",
)
@click.option(
    "--out",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for demo.png.",
)
@click.option(
    "--purifier", "names", multiple=True, help="Purifier to show. Can be given several times.  [default: all]"
)
def command(images: Sequence[Path], model: str, radius: str, out: Path, names: Sequence[str]) -> None:
    """Attack photographs, purify them, and compare the predictions of a classifier.

    The default images are a cat, a cup and a motorbike from scikit-image. Runs on the CPU, offline.
    """
    start = time.perf_counter()
    eps = _levels(radius)
    require_extra("matplotlib", extra="demo", what="purifier demo")
    paths = list(images) or default_photographs()

    from purifier.models.loading import load_classifier

    wanted = names or _hub.general_purifiers()
    purifiers = {name: Purifier.from_pretrained(name) for name in wanted}
    target = load_classifier(model)
    photographs = torch.stack([bilinear_square(read_rgb(path), target.size, target.crop) for path in paths])
    known = [_PHOTOGRAPHS.get(path.name) for path in paths] if not images and model == "demo" else [None] * len(paths)
    stages = run(target, photographs, known, purifiers, eps=eps / 255)

    for line in table(stages, [printable(path.stem) for path in paths], target.classes or (), known):
        click.echo(line)
    # The default figure leaves out the classical baselines, except gs.
    shown = {name for name in wanted if names or name == "gs" or any(True for _ in purifiers[name].parameters())}
    figure = draw_figure(stages, shown, target, eps, out, known)
    echo(f"\n{_HONEST}")
    familiar = [name for name in wanted if name in _TRAINED_WITH_IT]
    if model == "demo" and familiar:
        echo(_FAMILIAR.format(" and ".join(familiar)))
    echo(f"figure: {figure}")
    echo(f"took {time.perf_counter() - start:.1f} s")


def default_photographs() -> list[Path]:
    """Returns photographs in the installed scikit-image, without importing it.

    Raises:
        PurifierError: If scikit-image is not installed.
        OptionError: If the photographs are missing in it.
    """
    require_extra("skimage", extra="demo", what="the photographs of purifier demo")
    package = find_spec("skimage")
    folder = Path(package.origin).parent / "data" if package is not None and package.origin else Path()
    paths = [folder / name for name in _PHOTOGRAPHS]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise OptionError(f"expected the photographs {', '.join(missing)} in {folder}, got none; give your own images")
    return paths


def run(
    target: LoadedModel,
    photographs: Tensor,
    known: Sequence[str | None],
    purifiers: Mapping[str, Purifier],
    *,
    eps: float,
) -> list[Stage]:
    """Attacks the classifier alone, then purifies the attacked photographs.

    Args:
        target: The classifier.
        photographs: (N, 3, S, S) in [0, 1].
        known: The class of each photograph, or None for the classifier's prediction for the clean photograph.
        purifiers: The purifiers to compare, by name.
        eps: Radius of the Linf ball, in [0, 1] units.

    Returns:
        The stages "clean" and "attacked", then one for each purifier.
    """
    from purifier.attacks import PGD

    clean_labels = _classify(target, photographs)[0]
    classes = list(target.classes or ())
    labels = [clean if name is None else classes.index(name) for clean, name in zip(clean_labels, known, strict=True)]
    generator = torch.Generator().manual_seed(0)
    attack = PGD(eps=eps, alpha=eps / 4, steps=_STEPS, norm="Linf", generator=generator)
    attacked = attack(target.call, photographs, torch.tensor(labels))
    with torch.inference_mode():
        pictures = {"clean": photographs, "attacked": attacked} | {
            name: purifier(attacked) for name, purifier in purifiers.items()
        }
    stages = []
    for name, images in pictures.items():
        found, confidences = _classify(target, images)
        right = [got == label for got, label in zip(found, labels, strict=True)]
        stages.append(Stage(name, images, found, confidences, right))
    return stages


def _classify(target: LoadedModel, images: Tensor) -> tuple[list[int], list[float]]:
    with torch.inference_mode():
        confidences, labels = target.call(images).float().softmax(1).max(1)
    return labels.tolist(), confidences.tolist()


def _said(stage: Stage, row: int, classes: Sequence[str]) -> str:
    """Returns a prediction and its confidence, such as "cat 98 %"; of synonyms ("tabby, tabby cat"), the first."""
    label = classes[stage.labels[row]].split(",")[0]
    short = label if len(label) <= _LABEL_WIDTH else f"{label[: _LABEL_WIDTH - 1]}…"
    return f"{short} {stage.confidences[row]:.0%}".replace("%", " %")


def table(
    stages: Sequence[Stage], names: Sequence[str], classes: Sequence[str], known: Sequence[str | None]
) -> list[str]:
    """Returns the lines of a table with a row for each stage and a column for each photograph, a few at a time.

    Args:
        stages: The stages, from `run`.
        names: Names of the photographs.
        classes: Names of the classes by number.
        known: The class of each photograph; None if nobody knows. Then "same" and "other" compare a prediction with
            that for the clean photograph.
    """
    lines = []
    first = max(len(stage.name) for stage in stages)
    cell = _LABEL_WIDTH + len(" 100 %  wrong")
    for start in range(0, len(names), _PHOTOGRAPHS_A_LINE):
        part = range(start, min(start + _PHOTOGRAPHS_A_LINE, len(names)))
        if start:
            lines.append("")
        lines.append(f"{'':{first}}  " + "  ".join(f"{names[row][:cell]:{cell}}" for row in part).rstrip())
        for stage in stages:
            cells = [_cell(stage, row, classes, cell, known=known[row] is not None) for row in part]
            lines.append(f"{stage.name:{first}}  " + "  ".join(cells))
    lines.append("")
    counted = "right" if None not in known else "same as clean"
    lines.append(f"{counted}: " + ", ".join(f"{stage.name} {sum(stage.right)}/{len(names)}" for stage in stages))
    if None in known:
        lines.append("(Nobody told the true classes of these images: the prediction for the clean image may be wrong.)")
    return lines


def _cell(stage: Stage, row: int, classes: Sequence[str], width: int, *, known: bool) -> str:
    said, right = _said(stage, row, classes), stage.right[row]
    verdict = ("right" if right else "wrong") if known else ("same " if right else "other")
    padding = " " * (width - len(said) - len("wrong"))
    return f"{said}{padding}{click.style(verdict, fg='green' if right else 'red')}"


def draw_figure(
    stages: Sequence[Stage],
    shown: set[str],
    target: LoadedModel,
    eps: float,
    out: Path,
    known: Sequence[str | None],
) -> Path:
    """Writes demo.png: the clean, attacked and purified photographs and the perturbation.

    The photographs that most purifiers recover come first.

    Args:
        stages: The stages, from `run`.
        shown: Names of the purifiers to show.
        target: The classifier.
        eps: Radius of the ball in units of 1/255, for the caption.
        out: The folder, which is made if it does not exist.
        known: The class of each photograph; None if nobody knows.

    Raises:
        OptionError: If the folder cannot be written.
    """
    from purifier.commands._demo_figure import Column, draw

    clean, attacked, *others = stages
    purified = [stage for stage in others if stage.name in shown]
    count = len(clean.labels)
    order = sorted(range(count), key=lambda row: -sum(stage.right[row] for stage in purified))

    def caption(stage: Stage, row: int) -> str:
        right = stage.right[row]
        verdict = ("✓" if right else "✗") if known[row] is not None else ("(same)" if right else "(other)")
        label, _, confidence = _said(stage, row, target.classes or ()).rpartition(" ")[0].rpartition(" ")
        return f"{label}\n{confidence} %  {verdict}"

    def column(title: str, stage: Stage) -> Column:
        return Column(
            title, stage.images[order], [caption(stage, row) for row in order], [stage.right[row] for row in order]
        )

    change = 0.5 + 10 * (attacked.images - clean.images)[order]
    columns = [
        column("clean", clean),
        column("attacked", attacked),
        Column("change × 10", change, [f"at most\n{eps:g}/255"] * count, [None] * count),
        *(column(f"purified: {Path(stage.name).name}", stage) for stage in purified),
    ]
    compared = " same, other: compared with the clean image's prediction, which may be wrong." if None in known else ""
    path = out / "demo.png"
    try:
        out.mkdir(parents=True, exist_ok=True)
        draw(
            columns,
            path,
            title="The same classifier, with and without a purifier in front",
            subtitle=f"classifier: {target.name}; attack: PGD, Linf, eps = {eps:g}/255, {_STEPS} steps",
            note=_HONEST + compared,
        )
    except OSError as error:
        raise OptionError(f"expected a folder that can be written, got {out}: {error}") from error
    return path
