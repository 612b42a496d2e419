"""purifier evaluate: measure how a model behind purifiers withstands attacks."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from purifier._errors import OptionError
from purifier._extras import require_extra
from purifier.commands._engine import RAY, check_engine, engine_options, evaluation_engine
from purifier.commands._model_options import (
    DATA_HELP,
    MODEL_HELP,
    build_attacks,
    build_certifications,
    build_purifiers,
    build_threats,
    device_option,
    is_certified,
    loaded_name,
    long_dtypes,
)
from purifier.commands._ranked import TASK, ranked_options
from purifier.commands._terminal import echo

if TYPE_CHECKING:
    from purifier.evaluation import Evaluation, EvaluationSettings, ImageSet, LoadedModel

_TASKS = ("classification", "detection", "segmentation", TASK)
_SETTINGS = ("batch_size", "seed", "votes", "eight_bit", "defend", "probe_images", "trained")


@click.command("evaluate")
@click.option("--model", "model_spec", metavar="MODEL", help=MODEL_HELP)
@click.option("--data", required=True, type=click.Path(path_type=Path), help=DATA_HELP)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="CSV file with the columns file,label; COCO JSON for detection; the folder of masks for segmentation.",
)
@click.option(
    "--task",
    default="classification",
    show_default=True,
    type=click.Choice(_TASKS),
    help="The model's task. ranked: a service that answers with ranked labels, with --client instead of --model.",
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
    "both, with the identity as the purifier's gradient. aware:samples=8,submissions=10 averages 8 calls of a random "
    "purifier (EOT) and submits each image 10 times. aware:gate_weight=0.3 also hides from the purifier's gate. "
    "certified:sigma=0.25,draws=1000: randomised smoothing, with the purifiers as denoisers.",
)
@click.option("--eps", multiple=True, default=("8/255",), show_default=True, help="Radius, as 8/255 or 0.031.")
@click.option(
    "--surrogate",
    "surrogates",
    multiple=True,
    metavar="MODEL",
    help="Model that --threat transfer, or --task ranked, attacks.",
)
@click.option("--images", type=click.IntRange(1), help="Number of images, spread evenly over all.  [default: all]")
@click.option(
    "--size",
    type=click.IntRange(0),
    help="Side in pixels that images are resized to; 0 keeps their own.  [default: 224, or 0 for dense tasks]",
)
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(1), help="Images in a batch.")
@device_option
@click.option("--dtype", default="auto", show_default=True, help="Dtype of the purifiers; auto is float32.")
@click.option(
    "--votes",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Calls of a random purifier for each submission, of which the class that most predict counts.",
)
@click.option("--eight-bit", is_flag=True, help="Also measure with the attacked images rounded to 8 bits.")
@click.option("--defend-dtype", "defend", multiple=True, help="Also run the purifiers in bf16 or fp16.")
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
    help="Largest eps and image size that a purifier was trained for; a self-check compares the evaluation with them.",
)
@click.option(
    "--probe-images",
    default=8,
    show_default=True,
    type=click.IntRange(0),
    help="Images for the self-checks that run the model, about 40 passes for each purifier; below 4 most are skipped.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option("--overwrite", is_flag=True, help="Start again and replace the results in --out, also of other settings.")
@engine_options
@ranked_options
def command(
    model_spec: str,
    task: str,
    purifiers: Sequence[str],
    attacks: Sequence[str],
    threats: Sequence[str],
    eps: Sequence[str],
    surrogates: Sequence[str],
    device: str,
    dtype: str,
    ignore_index: int | None,
    loss: str | None,
    out: Path,
    overwrite: bool,
    engine: str,
    **options: Any,
) -> None:
    """Measure how a model behind purifiers withstands attacks.

    Writes results.json, table.md and report.html to the folder --out, with the figures of an attacker who does not know
    the purifier (blind) beside those of one who does (aware). Every image is recorded: run the same command again to
    resume. With --engine ray, workers on a cluster measure the batches.
    """
    ray = {name: options.pop(name) for name in RAY}
    check_engine(engine, ray)
    _check_out(out, task, options["data"], options["labels"])
    for package in ("jinja2", "matplotlib", *(("torchmetrics", "pycocotools") if task == "detection" else ())):
        require_extra(package, extra="eval", what="purifier evaluate")

    from purifier.evaluation import load_model, write_report
    from purifier.evaluation.report.markdown import summary
    from purifier.evaluation.run import remove_results
    from purifier.inference.precision import resolve_device

    place = resolve_device(device)
    built: dict[str, Any] = {
        "attacks": build_attacks(attacks, eps, place),
        "purifiers": build_purifiers(purifiers, place, dtype),
        "threats": build_threats([text for text in threats if not is_certified(text)], surrogates, place),
        "certifications": build_certifications([text for text in threats if is_certified(text)]),
        "settings": _settings(**{name: options.pop(name) for name in _SETTINGS}),
        **evaluation_engine(engine, **ray),
    }
    model = load_model(model_spec, device=place)
    data = _images(task, model, **options)
    if overwrite:
        remove_results(out)
    evaluation = _evaluate(model, data, **built, ignore_index=ignore_index, loss=_loss(loss), out=out)
    files = write_report(evaluation, out, command=shlex.join(["purifier", *sys.argv[1:]]))
    echo(f"{summary(evaluation)}\n\nreport: {files['html']}")


def _check_out(out: Path, task: str, data: Path, labels: Path | None) -> None:
    """Checks that results do not become images of the next run, and that none of the data is in their place."""
    from purifier.data.outputs import check_outside, is_within

    # A CSV or a COCO file lists the images; otherwise all in the folder are taken.
    if labels is None or task == "segmentation":
        check_outside(out, data)
    pictures = out / "pictures"
    for given in (data, labels):
        if given is not None and is_within(given, pictures):
            raise OptionError(
                f"expected --data and --labels outside {pictures}, where the report has its pictures, got {given}; "
                "choose another --out"
            )


def _settings(
    batch_size: int,
    seed: int,
    votes: int,
    eight_bit: bool,
    defend: Sequence[str],
    probe_images: int,
    trained: Sequence[str],
) -> EvaluationSettings:
    from purifier.evaluation import EvaluationSettings

    eps, size = _trained(trained)
    return EvaluationSettings(
        batch_size=batch_size,
        seed=seed,
        votes=votes,
        eight_bit=eight_bit,
        defend_dtypes=long_dtypes(defend),
        probe_images=probe_images,
        trained_eps=eps,
        trained_size=size,
    )


def _evaluate(model: LoadedModel, data: ImageSet, settings: EvaluationSettings, **arguments: Any) -> Evaluation:
    """Runs the evaluation with a progress bar."""
    from tqdm import tqdm

    from purifier.evaluation import LabelledImages, evaluate
    from purifier.evaluation.plan import plan

    purifiers, attacks, threats = (arguments[name] for name in ("purifiers", "attacks", "threats"))
    total = len(plan(purifiers, attacks, threats)[0]) * len(data)
    total += len(arguments["certifications"]) * (1 + len(purifiers)) * len(data)
    if isinstance(data, LabelledImages):
        total += settings.probe_images * len(purifiers)
    with tqdm(total=total, unit="image", disable=None) as bar:
        return evaluate(model, data, settings=settings, progress=bar.update, **arguments)


def _images(
    task: str, model: LoadedModel, data: Path, labels: Path | None, size: int | None, images: int | None
) -> ImageSet:
    from purifier.evaluation import boxed_images, labelled_images, masked_images

    if task == "classification":
        side = 224 if size is None else size or None
        return labelled_images(data, side, images, labels=labels, classes=model.classes)
    if labels is None:
        what = "the folder of masks" if task == "segmentation" else "a COCO JSON file"
        raise OptionError(f"expected --labels with {what} for {task}, got none")
    if task == "segmentation":
        return masked_images(data, size or None, images, masks=labels)
    return boxed_images(data, size or None, images, annotations=labels)


def _loss(text: str | None) -> Any:
    from purifier.models.named import import_named

    return import_named(text, "loss") if text and ":" in text else text


def _trained(texts: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Reads --trained: the largest eps, and the side, by purifier."""
    from purifier.evaluation.specs import parse

    found: dict[str, dict[str, float]] = {"eps": {}, "size": {}}
    for text in texts:
        name, _, rest = text.rpartition(":")
        _, options = parse(f"trained:{rest}")
        if not name or not options or set(options) - found.keys():
            raise OptionError(f"expected PURIFIER:eps=16/255,size=224 for --trained, got {text!r}")
        for key, value in options.items():
            found[key][loaded_name(name)] = value
    return found["eps"], found["size"]
