"""purifier evaluate: measures a model behind purifiers under attack."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from purifier._errors import OptionError
from purifier.commands._extras import require_extra
from purifier.commands._model_options import (
    MODEL_HELP,
    build_attacks,
    build_purifiers,
    build_threats,
    loaded_name,
    long_dtypes,
)

if TYPE_CHECKING:
    from purifier.evaluation import Evaluation, EvaluationSettings, ImageSet, LoadedModel

_TASKS = ("classification", "detection", "segmentation")
_SIZES = {"classification": 224}


@click.command("evaluate")
@click.option("--model", "model_spec", required=True, metavar="MODEL", help=MODEL_HELP)
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of images: one folder per class, named after the class or by its number in the model; otherwise as "
    "many folders as classes, in sorted order. Or any folder of images, with --labels.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="CSV with columns file,label; for detection COCO JSON; for segmentation the folder of masks.",
)
@click.option(
    "--task", default="classification", show_default=True, type=click.Choice(_TASKS), help="Task of the model."
)
@click.option(
    "--purifier",
    "purifiers",
    multiple=True,
    metavar="NAME:key=value",
    help="Such as ncis or gs:iterations=5. Can be given several times.",
)
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    metavar="NAME:key=value",
    help="Such as PGD:steps=10 or CW. Can be given several times.",
)
@click.option(
    "--threat",
    "threats",
    multiple=True,
    default=("blind", "aware"),
    show_default=True,
    metavar="NAME:key=value",
    help="What the attacker knows. blind: the model. transfer: only other models. aware: model and purifier. bpda: "
    "both, with the identity as the purifier's gradient. aware:samples=8 averages 8 calls of a random purifier (EOT).",
)
@click.option("--eps", multiple=True, default=("8/255",), show_default=True, help="Radius, as 8/255 or 0.031.")
@click.option("--surrogate", "surrogates", multiple=True, metavar="MODEL", help="Model that --threat transfer attacks.")
@click.option("--images", type=click.IntRange(1), help="Number of images, spread evenly over all.  [default: all]")
@click.option(
    "--size",
    type=click.IntRange(0),
    help="Side in pixels that images are resized to; 0 keeps their size.  [default: 224 for classification, else 0]",
)
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(1), help="Images at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--dtype", default="auto", show_default=True, help="Dtype that purifiers compute in; auto is float32.")
@click.option("--eight-bit", is_flag=True, help="Also measure with the attacked images rounded to 8 bits.")
@click.option("--defend-dtype", "defend", multiple=True, help="Also measure the purifiers in bf16 or fp16.")
@click.option("--ignore-index", type=int, help="Mask value of the pixels to ignore (segmentation).  [default: 255]")
@click.option(
    "--loss",
    help="Loss that attacks on a detector increase: cls, loc, cls+loc, or module:function of (outputs, targets).  "
    "[default: cls+loc]",
)
@click.option(
    "--trained",
    multiple=True,
    metavar="PURIFIER:eps=16/255,size=224",
    help="Largest eps and image size that a purifier was trained for. A self-check compares them with this evaluation.",
)
@click.option(
    "--probe-images",
    default=8,
    show_default=True,
    type=click.IntRange(0),
    help="Images for the self-checks that run the model, about 40 passes for each purifier; 0 skips them.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
def command(
    model_spec: str,
    data: Path,
    labels: Path | None,
    task: str,
    purifiers: Sequence[str],
    attacks: Sequence[str],
    threats: Sequence[str],
    eps: Sequence[str],
    surrogates: Sequence[str],
    images: int | None,
    size: int | None,
    batch_size: int,
    device: str,
    dtype: str,
    eight_bit: bool,
    defend: Sequence[str],
    ignore_index: int | None,
    loss: str | None,
    trained: Sequence[str],
    probe_images: int,
    seed: int,
    out: Path,
) -> None:
    """Measure a model behind purifiers under attack.

    Writes results.json, table.md and report.html to the folder --out. They show the accuracy under an attacker who does
    not know the purifier (blind) beside that under one who does (aware). If the run is stopped, the same command
    resumes it.
    """
    for package in ("jinja2", "matplotlib", *(("torchmetrics", "pycocotools") if task == "detection" else ())):
        require_extra(package, extra="eval", what="purifier evaluate")

    from purifier.evaluation import EvaluationSettings, load_model, write_report
    from purifier.evaluation.report.markdown import summary
    from purifier.inference.precision import resolve_device

    place = resolve_device(device)
    built = build_attacks(attacks, eps, place)
    eps_by_name, size_by_name = _trained(trained)
    settings = EvaluationSettings(
        batch_size=batch_size,
        seed=seed,
        eight_bit=eight_bit,
        defend_dtypes=long_dtypes(defend),
        probe_images=probe_images,
        trained_eps=eps_by_name,
        trained_size=size_by_name,
    )
    defences = build_purifiers(purifiers, place, dtype)
    knowledge = build_threats(threats, surrogates, place)
    model = load_model(model_spec, device=place)
    side = _SIZES.get(task) if size is None else size or None
    found = _images(task, data, labels, side, images, model)
    evaluation = _evaluate(
        model,
        found,
        settings,
        purifiers=defences,
        attacks=built,
        threats=knowledge,
        out=out,
        ignore_index=ignore_index,
        loss=_loss(loss),
    )
    files = write_report(evaluation, out, command=shlex.join(["purifier", *sys.argv[1:]]))
    click.echo(summary(evaluation))
    click.echo(f"\nreport: {files['html']}")


def _evaluate(model: LoadedModel, data: ImageSet, settings: EvaluationSettings, **arguments: Any) -> Evaluation:
    """Runs the evaluation with a progress bar."""
    from tqdm import tqdm

    from purifier.evaluation import LabelledImages, evaluate
    from purifier.evaluation.plan import plan

    purifiers, attacks, threats = (arguments[name] for name in ("purifiers", "attacks", "threats"))
    total = len(plan(purifiers, attacks, threats)[0]) * len(data)
    if isinstance(data, LabelledImages):
        total += settings.probe_images * len(purifiers)
    with tqdm(total=total, unit="image", disable=None) as bar:
        return evaluate(model, data, settings=settings, progress=bar.update, **arguments)


def _images(
    task: str, data: Path, labels: Path | None, size: int | None, count: int | None, model: LoadedModel
) -> ImageSet:
    from purifier.evaluation import boxed_images, labelled_images, masked_images

    if task == "classification":
        return labelled_images(data, size, count, labels=labels, classes=model.classes)
    if labels is None:
        what = "the folder of masks" if task == "segmentation" else "a COCO JSON file"
        raise OptionError(f"expected --labels with {what} for {task}, got none")
    if task == "segmentation":
        return masked_images(data, size, count, masks=labels)
    return boxed_images(data, size, count, annotations=labels)


def _loss(text: str | None) -> Any:
    from purifier.models.named import import_named

    return import_named(text, "loss") if text and ":" in text else text


def _trained(texts: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Reads --trained: the largest eps and the side, by purifier."""
    from purifier.evaluation.specs import parse

    eps: dict[str, float] = {}
    size: dict[str, float] = {}
    for text in texts:
        name, _, rest = text.rpartition(":")
        _, options = parse(f"trained:{rest}")
        if not name or not options or set(options) - {"eps", "size"}:
            raise OptionError(f"expected PURIFIER:eps=16/255,size=224 for --trained, got {text!r}")
        if "eps" in options:
            eps[loaded_name(name)] = options["eps"]
        if "size" in options:
            size[loaded_name(name)] = options["size"]
    return eps, size
