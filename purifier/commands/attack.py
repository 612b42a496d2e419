"""purifier attack: writes adversarial versions of image files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from purifier._errors import InputError, OptionError, PurifierError
from purifier._files import write_text
from purifier.commands._model_options import MODEL_HELP, build_attacks, build_purifiers, build_threats
from purifier.commands.purify import Job, _batches, _sweep, plan

if TYPE_CHECKING:
    from torch import Tensor

    from purifier._purified_model import PurifiedModel
    from purifier.attacks import Attack, ThreatModel

# Of an 8-bit image.
_LEVELS = 255


@dataclass
class Summary:
    """What became of the files.

    Attributes:
        attacked: Files that were written.
        fooled: How many of these the attacked model gets wrong now, as they are on disk.
        skipped: Files whose outputs were there already.
        failures: The files that could not be read, attacked or written, each with the reason.
    """

    attacked: int = 0
    fooled: int = 0
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """Who attacks what.

    Attributes:
        attack: The attack.
        threat: What the attacker knows.
        defended: The model behind its purifier.
        labels: Class number by source file; the model's own prediction where there is none.
        settings: All that outputs depend on, fit for JSON.
        seed: Of everything random.
        size: Side that images are resized to, or None.
        device: Where the model is.
    """

    attack: Attack
    threat: ThreatModel
    defended: PurifiedModel
    labels: Mapping[Path, int]
    settings: Mapping[str, Any]
    seed: int
    size: int | None
    device: Any


@click.command("attack")
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@click.option("--model", "model_spec", required=True, metavar="MODEL", help=MODEL_HELP)
@click.option(
    "--attack", "attack_spec", default="PGD", show_default=True, metavar="NAME:key=value", help="Such as PGD:steps=10."
)
@click.option("--eps", default="8/255", show_default=True, help="Radius, as 8/255 or 0.031.")
@click.option("--purifier", "purifier_spec", metavar="NAME:key=value", help="Purifier in front of the model.")
@click.option(
    "--threat", "threat_spec", default="blind", show_default=True, help="blind, transfer, aware or bpda; see evaluate."
)
@click.option("--surrogate", "surrogates", multiple=True, metavar="MODEL", help="Model that --threat transfer attacks.")
@click.option(
    "--labels", type=click.Path(path_type=Path), help="CSV with columns file,label; the model's predictions otherwise."
)
@click.option("--size", type=click.IntRange(1), help="Cut the central square and resize it to this side first.")
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1), help="Images of a size at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--overwrite", is_flag=True, help="Attack also what is in DST already.")
def command(
    source: Path,
    target: Path,
    model_spec: str,
    attack_spec: str,
    eps: str,
    purifier_spec: str | None,
    threat_spec: str,
    surrogates: Sequence[str],
    labels: Path | None,
    size: int | None,
    batch_size: int,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Write adversarial versions of image files.

    SRC is an image or a folder, searched recursively; DST is a file or a folder. Each output is a lossless PNG with a
    JSON file beside it that says how it was made. What is in DST already is skipped, so a run that was stopped goes on
    where it was.
    """
    from tqdm import tqdm

    from purifier.evaluation import load_model
    from purifier.inference.precision import resolve_device

    jobs = plan(source, target)
    _check_lossless(jobs)
    place = resolve_device(device)
    (attack,) = build_attacks([attack_spec], [eps], place).values()
    (threat,) = build_threats([threat_spec], surrogates, place).values()
    model = load_model(model_spec, device=place)
    scene = make_scene(
        attack,
        threat,
        model.call,
        None if purifier_spec is None else next(iter(build_purifiers([purifier_spec], place, "auto").values())),
        labels=_labels(source, labels, jobs, model.classes),
        identity=model.identity,
        seed=seed,
        size=size,
        batch_size=batch_size,
    )
    with tqdm(total=len(jobs), unit="image", disable=None) as bar:
        summary = run(jobs, scene, batch_size=batch_size, overwrite=overwrite, progress=bar.update)
    for path, reason in summary.failures:
        named = reason if str(path) in reason else f"{path}: {reason}"
        click.echo(f"error: {' '.join(named.split())}", err=True)
    click.echo(
        f"attacked {summary.attacked} ({summary.fooled} fool the model), skipped {summary.skipped}, "
        f"failed {len(summary.failures)}"
    )
    if summary.failures:
        raise click.exceptions.Exit(1)


def _check_lossless(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.target.suffix.lower() != ".png":
            raise OptionError(
                f"expected a DST that ends in .png, got {job.target.name!r}; another format may lose some of the attack"
            )


def make_scene(
    attack: Attack,
    threat: ThreatModel,
    model: Callable[..., Any],
    purifier: Any,
    *,
    labels: Mapping[Path, int],
    identity: Mapping[str, Any],
    seed: int,
    size: int | None,
    batch_size: int,
) -> Scene:
    """Puts together who attacks what.

    Args:
        attack: The attack.
        threat: What the attacker knows.
        model: Map from images in [0, 1] to logits, in eval mode.
        purifier: In front of the model, or None.
        labels: Class number by source file.
        identity: What tells the model from others.
        seed: Of everything random.
        size: Side that images are resized to, or None for their own.
        batch_size: Images at a time; with random attacks, outputs depend on it.

    Raises:
        OptionError: Where these do not go together, or files of 8 bits cannot hold the perturbation.
        InputError: Where the model is in train mode.
    """
    from purifier._identity import purifier_identity, versions
    from purifier.attacks.identity import attack_settings, threat_settings
    from purifier.evaluation.defences import Defences
    from purifier.evaluation.rows import AWARE_THREATS
    from purifier.models.layers import check_eval

    if purifier is None and threat.name in AWARE_THREATS:
        raise OptionError(f"expected --purifier for the threat {threat.name}, got none; an attacker knows nothing else")
    if _levels(attack) == 0:
        raise OptionError(
            f"expected an Linf eps of at least 1/255, the step between values of a PNG of 8 bits, got {attack.eps:.4g}"
        )
    check_eval(model)
    purifiers = {} if purifier is None else {"purifier": purifier}
    defences = Defences(model, purifiers)
    defended = defences.defended["none" if purifier is None else "purifier"]
    settings = {
        "model": dict(identity),
        "attack": attack_settings(attack),
        "threat": threat_settings(threat),
        "purifier": None if purifier is None else purifier_identity(purifier),
        "labels": "given" if labels else "predicted",
        "size": size,
        "batch_size": batch_size,
        "seed": seed,
        "version": versions()["purifier"],
    }
    return Scene(attack, threat, defended, labels, settings, seed, size, defences.device)


def run(
    jobs: Sequence[Job],
    scene: Scene,
    *,
    batch_size: int = 8,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> Summary:
    """Attacks files in batches of equal size and writes each to a temporary name first.

    A run that was killed is finished by another call, with the very same outputs: an image is always attacked in the
    company of the same others and with the same seed.

    Args:
        jobs: What `purifier.commands.purify.plan` gave.
        scene: Who attacks what.
        batch_size: Images in a batch, at most.
        overwrite: Whether to attack again what is there already.
        progress: Called with the number of files that are done since the last call.

    Raises:
        OptionError: Where an output is there that was made with other settings.
    """
    from purifier.commands.purify import Summary as Files

    summary, files = Summary(), Files()
    _sweep({job.target.parent for job in jobs})
    done = set() if overwrite else {job for job in jobs if _is_done(job, scene)}
    for batch in _batches(jobs, batch_size, done, files, progress):
        summary.skipped += sum(job in done for job in batch)
        if not done.issuperset(batch):
            _attack_batch(batch, done, scene, summary)
        progress(len(batch))
    summary.skipped += files.skipped
    summary.failures += files.failures
    return summary


def _is_done(job: Job, scene: Scene) -> bool:
    from purifier._records import differences

    if not job.target.exists():
        return False
    note = job.target.with_suffix(".json")
    found = _read_note(note)
    if found is None:
        raise OptionError(
            f"expected {job.target} to be of an attack, with its settings in {note.name}, got none; choose another "
            "DST, or --overwrite"
        )
    label = scene.labels.get(job.source)
    given = {} if label is None else {"label": label}
    there = {**found["settings"], **{name: found.get(name) for name in given}}
    differing = differences(there, {**scene.settings, **given})
    if differing:
        raise OptionError(
            f"expected {job.target} to be of an attack with these settings, got one of others ({differing}); choose "
            "another DST, or --overwrite"
        )
    return True


def _read_note(path: Path) -> dict[str, Any] | None:
    """Returns what there is to read of how a picture was made, settings at least, or None."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return note if isinstance(note["settings"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _attack_batch(batch: list[Job], done: set[Job], scene: Scene, summary: Summary) -> None:
    import torch

    read: list[tuple[Job, Tensor]] = []
    for job in batch:
        try:
            read.append((job, _read(job.source, scene)))
        except InputError as error:
            if job not in done:
                summary.failures.append((job.source, str(error)))
    if not read:
        return
    try:
        images = torch.stack([image for _, image in read]).to(scene.device)
        attacked, notes = _attack(images, [job for job, _ in read], scene)
    except RuntimeError as error:  # out of memory, say
        summary.failures += [(job.source, str(error)) for job, _ in read if job not in done]
        return
    for (job, _), image, note in zip(read, attacked, notes, strict=True):
        if job in done:
            continue
        try:
            _write(job, image, {"source": job.source.name, **note, "settings": scene.settings})
        except (PurifierError, OSError) as error:
            summary.failures.append((job.source, str(error)))
        else:
            summary.attacked += 1
            summary.fooled += note["prediction"] != note["label"]


def _attack(images: Tensor, jobs: Sequence[Job], scene: Scene) -> tuple[Tensor, list[dict[str, Any]]]:
    """Returns the attacked images as they will be on disk, and what there is to say of each."""
    import torch

    from purifier._random import isolated_randomness

    seed = int.from_bytes(hashlib.sha256(f"{scene.seed} {jobs[0].source.name}".encode()).digest()[:7])
    with isolated_randomness(scene.device, seed=seed):
        with torch.inference_mode():
            before = _predict(scene, images)
        labels = torch.tensor([scene.labels.get(job.source, said) for job, said in zip(jobs, before, strict=True)])
        attacked = scene.threat(scene.attack.seeded(seed), scene.defended, images, labels.to(images.device))
        attacked = _on_disk(images, attacked, scene.attack)
        with torch.inference_mode():
            after = _predict(scene, attacked)
    change = (attacked - images).flatten(1)
    return attacked, [
        {
            "label": int(label),
            "prediction_clean": clean,
            "prediction": said,
            "linf": float(delta.abs().max()),
            "l2": float(delta.norm()),
        }
        for label, clean, said, delta in zip(labels, before, after, change, strict=True)
    ]


def _predict(scene: Scene, images: Tensor) -> list[int]:
    from purifier.evaluation.tasks import Classification

    outputs = scene.defended(images)
    predictions: list[int] = Classification().record(outputs, images)
    classes = outputs.shape[1]
    outside = [label for label in scene.labels.values() if not 0 <= label < classes]
    if outside:
        raise InputError(
            f"expected labels within 0..{classes - 1}, as the model has {classes} classes, got {outside[0]}; check "
            "--model and --labels"
        )
    return predictions


def _on_disk(images: Tensor, attacked: Tensor, attack: Attack) -> Tensor:
    """Rounds to 8 bits without leaving the Linf ball."""
    steps = ((attacked - images) * _LEVELS).round()
    levels = _levels(attack)
    if levels is not None:
        steps = steps.clamp(-levels, levels)
    return (images + steps / _LEVELS).clamp(0, 1)


def _levels(attack: Attack) -> int | None:
    """Whole steps of an 8-bit image within the radius; None for other balls."""
    if not attack.bounded or getattr(attack, "norm", None) != "Linf":
        return None
    return int(attack.eps * _LEVELS + 1e-6)


def _read(path: Path, scene: Scene) -> Tensor:
    """Reads an image as (3, H, W) of values that 8 bits can hold."""
    from purifier.data.images import read_rgb
    from purifier.data.sets import square

    return (square(read_rgb(path), scene.size) * _LEVELS).round() / _LEVELS


def _write(job: Job, image: Tensor, note: Mapping[str, Any]) -> None:
    import torch
    from PIL import Image

    from purifier._images import write_image

    pixels = (image.detach().cpu() * _LEVELS).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    path = job.target.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    # A picture of other settings must not be left beside this note.
    job.target.unlink(missing_ok=True)
    write_text(path, json.dumps(note, indent=1) + "\n")
    # Last: where the picture is, its note is too.
    write_image(Image.fromarray(pixels.numpy()), job.target)


def _labels(source: Path, table: Path | None, jobs: Sequence[Job], classes: Sequence[str] | None) -> dict[Path, int]:
    if table is None:
        return {}
    from purifier.evaluation import labelled_images

    known = labelled_images(source if source.is_dir() else source.parent, labels=table, classes=classes)
    labels = {path.resolve(): label for path, label in zip(known.files, known.labels, strict=True)}
    missing = [job.source for job in jobs if job.source.resolve() not in labels]
    if missing:
        raise InputError(f"expected a label for every image, got none for {missing[0]} in {table}")
    return {job.source: labels[job.source.resolve()] for job in jobs}
