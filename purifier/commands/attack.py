"""purifier attack: writes adversarial versions of image files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from torch import Tensor

from purifier._errors import InputError, OptionError
from purifier._files import write_text
from purifier._identity import purifier_identity, versions
from purifier._images import write_image
from purifier._purified_model import PurifiedModel
from purifier._random import isolated_randomness
from purifier._records import differences
from purifier._walking import make_folders
from purifier.commands._jobs import Work, claim, process, read_note
from purifier.commands._model_options import (
    MODEL_HELP,
    batch_size_option,
    build_attacks,
    build_purifiers,
    build_threats,
    device_option,
)
from purifier.data.images import read_rgb
from purifier.data.outputs import Job, check_outside, exists, is_done, plan
from purifier.data.sets import bilinear_square
from purifier.data.tables import labels_of
from purifier.inference.precision import resolve_device
from purifier.models.layers import check_eval
from purifier.models.loading import LoadedModel, load_model

if TYPE_CHECKING:
    from purifier.attacks import Attack, ThreatModel

# Largest value of a channel in an 8-bit image.
_LEVELS = 255


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
    "--labels", type=click.Path(path_type=Path), help="CSV with columns file,label.  [default: the model's predictions]"
)
@click.option("--size", type=click.IntRange(1), help="Crop the central square and resize it to this side first.")
@batch_size_option
@device_option
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--overwrite", is_flag=True, help="Attack all files again, also those that are done.")
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

    SRC is an image or a folder, which is searched recursively. DST is a file, or a folder outside SRC. Each output is
    a lossless PNG with a JSON file beside it that states how it was made. Files whose output exists and is not older
    are skipped: run the same command again to resume.
    """
    from purifier.evaluation.defences import Defences

    jobs = plan(source, target)
    check_outside(target, source)
    place = resolve_device(device)
    (attack,) = build_attacks([attack_spec], [eps], place).values()
    (threat,) = build_threats([threat_spec], surrogates, place).values()
    purifiers = build_purifiers([purifier_spec] if purifier_spec else [], place, "auto")
    purifier = next(iter(purifiers.values()), None)
    _check(jobs, attack, threat, purifier)
    model = load_model(model_spec, device=place)
    check_eval(model.call)
    known = _labels(source, labels, jobs, model.classes)
    options = {"labels": "given" if known else "predicted", "size": size, "batch_size": batch_size, "seed": seed}
    settings = _settings(model, attack, threat, purifier, options)
    defences = Defences(model.call, purifiers)
    defended = defences.defended[next(iter(purifiers), "none")]
    work = _Attacking(attack, threat, defended, known, settings, seed=seed, size=size, device=defences.device)
    done = set() if overwrite else {job for job in jobs if work.is_done(job)}
    if jobs[0].target != target:
        claim(target, settings, overwrite=overwrite, empty=not done)
    summary = process(jobs, work, batch_size=batch_size, done=done)
    summary.report(f"attacked {summary.written} ({work.fooled} fool the model)")


def _check(jobs: Sequence[Job], attack: Attack, threat: ThreatModel, purifier: Any) -> None:
    from purifier.evaluation.rows import AWARE_THREATS

    for job in jobs:
        if job.target.suffix.lower() != ".png":
            raise OptionError(
                f"expected a DST that ends in .png, got {job.target.name!r}; another format may lose some of the attack"
            )
    if purifier is None and threat.name in AWARE_THREATS:
        raise OptionError(f"expected --purifier for the threat {threat.name}, got none; add it")
    if _levels(attack) == 0:
        raise OptionError(
            f"expected an Linf eps of at least 1/255, the step between values of an 8-bit PNG, got {attack.eps:.4g}"
        )


def _levels(attack: Attack) -> int | None:
    """Returns the radius in whole steps of an 8-bit image, rounded down; None if there is no Linf radius."""
    if not attack.bounded or getattr(attack, "norm", None) != "Linf":
        return None
    return int(attack.eps * _LEVELS + 1e-6)


def _labels(source: Path, table: Path | None, jobs: Sequence[Job], classes: Sequence[str] | None) -> dict[Path, int]:
    if table is None:
        return {}
    folder = source if source.is_dir() else source.parent
    return dict(labels_of([job.source for job in jobs], table, folder, classes))


def _settings(
    model: LoadedModel, attack: Attack, threat: ThreatModel, purifier: Any, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns everything that outputs depend on, as JSON values."""
    from purifier.attacks.identity import attack_settings, threat_settings

    return {
        "model": model.identity,
        "attack": attack_settings(attack),
        "threat": threat_settings(threat),
        "purifier": None if purifier is None else purifier_identity(purifier),
        **options,
        "version": versions()["purifier"],
    }


@dataclass
class _Attacking(Work):
    """Attacks the images of a batch together and writes each with a note of how it was made.

    `labels` holds a class number by source file; files without one are attacked with the model's prediction as the
    label. `settings` states everything that outputs depend on, as JSON values. `fooled` counts the written files that
    the defended model misclassifies.
    """

    attack: Attack
    threat: ThreatModel
    defended: PurifiedModel
    labels: Mapping[Path, int]
    settings: Mapping[str, Any]
    seed: int
    size: int | None
    device: torch.device
    fooled: int = 0

    def is_done(self, job: Job) -> bool:
        """Returns whether the output exists and is not older than its source.

        Raises:
            OptionError: If it exists and was not made with these settings.
        """
        described = job.target.with_suffix(".json")
        note = read_note(described)
        if note is None and (exists(job.target) or exists(described)):
            raise OptionError(
                f"expected {job.target} to be an attacked image with its settings in {job.target.stem}.json, got none; "
                "choose another DST, or pass --overwrite"
            )
        if note is None or not exists(job.target):
            return False
        label = {"label": self.labels[job.source]} if job.source in self.labels else {}
        there = {**note["settings"], **{name: note.get(name) for name in label}}
        if differing := differences(there, {**self.settings, **label}):
            raise OptionError(
                f"expected {job.target} to be made with these settings, got others ({differing}); choose another DST, "
                "or pass --overwrite"
            )
        return is_done(job)

    def read(self, path: Path) -> Tensor:
        """Returns (3, H, W) in [0, 1], rounded to values of 8 bits."""
        return (bilinear_square(read_rgb(path), self.size) * _LEVELS).round() / _LEVELS

    def compute(self, jobs: Sequence[Job], images: Sequence[Tensor]) -> Sequence[Any]:
        """Returns the attacked image, as it will be on disk, and the note of each."""
        # An output must not depend on the batches before it, which a resumed run skips.
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {jobs[0].source.name}".encode()).digest()[:7])
        try:
            with isolated_randomness(self.device, seed=seed):
                return self._attack(jobs, torch.stack(list(images)).to(self.device), seed)
        except RuntimeError as error:  # such as out of memory
            return [error] * len(jobs)

    def _attack(self, jobs: Sequence[Job], images: Tensor, seed: int) -> list[tuple[Tensor, dict[str, Any]]]:
        before = self._predict(images)
        labels = torch.tensor([self.labels.get(job.source, found) for job, found in zip(jobs, before, strict=True)])
        attacked = self.threat(self.attack.seeded(seed), self.defended, images, labels.to(images.device))
        attacked = _round(images, attacked, _levels(self.attack))
        after = self._predict(attacked)
        change = (attacked - images).flatten(1)
        notes = [
            {
                "source": job.source.name,
                "label": label,
                "prediction_clean": clean,
                "prediction": prediction,
                "linf": float(delta.abs().max()),
                "l2": float(delta.norm()),
                "settings": self.settings,
            }
            for job, label, clean, prediction, delta in zip(jobs, labels.tolist(), before, after, change, strict=True)
        ]
        return list(zip(attacked, notes, strict=True))

    def _predict(self, images: Tensor) -> list[int]:
        from purifier.evaluation.tasks import Classification

        with torch.inference_mode():
            outputs = self.defended(images)
        predictions: list[int] = Classification().record(outputs, images)
        classes = outputs.shape[1]
        outside = [label for label in self.labels.values() if not 0 <= label < classes]
        if outside:
            raise InputError(
                f"expected labels within 0..{classes - 1}, as the model has {classes} classes, got {outside[0]}; check "
                "--model and --labels"
            )
        return predictions

    def write(self, job: Job, image: Tensor, result: tuple[Tensor, Mapping[str, Any]]) -> None:
        """Writes the note, then the attacked image, so that an image always has its own note beside it."""
        from PIL import Image

        attacked, note = result
        pixels = (attacked.detach().cpu() * _LEVELS).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        make_folders(job.target.parent)
        job.target.unlink(missing_ok=True)
        write_text(job.target.with_suffix(".json"), json.dumps(note, indent=1) + "\n")
        write_image(Image.fromarray(pixels.numpy()), job.target)
        self.fooled += note["prediction"] != note["label"]


def _round(images: Tensor, attacked: Tensor, levels: int | None) -> Tensor:
    """Rounds attacked images to 8 bits, inside the Linf ball of this many levels."""
    steps = ((attacked - images) * _LEVELS).round()
    if levels is not None:
        steps = steps.clamp(-levels, levels)
    return (images + steps / _LEVELS).clamp(0, 1)
