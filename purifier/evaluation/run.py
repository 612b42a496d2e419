"""Evaluations: every attack under every threat model against every purifier, image by image, so that a run resumes.

What is measured: standard accuracy (no attack, purifier on), robust accuracy (share of all images right under a stated
attack and threat model), attack success rate and purification success rate (PSR: the class is the one that the
undefended model gives the clean image; NCIS paper, section 4). Several attacks of an attacker who knows the purifier
are also combined per image: an image counts as right only where all of them fail (Croce & Hein 2020).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import InputError, OptionError
from purifier._identity import model_identity, purifier_identity, versions
from purifier._records import Records
from purifier.attacks import Attack
from purifier.attacks.base import Loss
from purifier.attacks.identity import attack_settings, threat_settings
from purifier.attacks.threats import ThreatModel
from purifier.data.sets import BoxedImages, ImageSet, LabelledImages, MaskedImages
from purifier.evaluation._pictures import save_pictures
from purifier.evaluation.checks import Finding, inspect, probe
from purifier.evaluation.defences import Defences, Variant, variants
from purifier.evaluation.plan import UNDEFENDED, Cell, Skipped, plan
from purifier.evaluation.rows import AWARE_THREATS, Row
from purifier.evaluation.summary import MeasureRow, measure_rows, rows_of
from purifier.evaluation.tasks import Classification, Detection, Segmentation, Task
from purifier.models.layers import check_eval

Progress = Callable[[int], object]
# Smallest and largest, or the largest alone.
Range = float | tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How an evaluation is run.

    Attributes:
        batch_size: Images at a time; figures depend on it as little as on the seed, and records of one batch size do
            not mix with those of another.
        seed: Of everything random. Each batch of each cell has a seed of its own, so a run that was killed gives what
            an uninterrupted one would have.
        eight_bit: Whether to measure also with the attacked images rounded to 8 bits, as image files are.
        defend_dtypes: Dtypes such as "bfloat16" in which to measure the purifiers too; attacks have what was given.
        pictures: How many images of each cell to keep for the report.
        probe_images: How many images the live self-checks take, each some 40 passes forward and backward for each
            purifier; 0 leaves them out.
        trained_eps: For purifiers by name, the largest eps they were trained for, or the smallest and the largest.
        trained_size: Likewise the smallest and largest side of an image in pixels.
    """

    batch_size: int = 16
    seed: int = 0
    eight_bit: bool = False
    defend_dtypes: tuple[str, ...] = ()
    pictures: int = 4
    probe_images: int = 8
    trained_eps: Mapping[str, Range] = field(default_factory=dict)
    trained_size: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.pictures < 0 or self.probe_images < 0:
            raise OptionError(
                "expected batch_size >= 1, pictures >= 0 and probe_images >= 0, got "
                f"batch_size={self.batch_size}, pictures={self.pictures}, probe_images={self.probe_images}"
            )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        task: "classification", "segmentation" or "detection".
        settings: Everything that the figures depend on.
        rows: Counts for classification, measures for the other tasks.
        findings: What the self-checks raised, with the purifier each is about, or None for the table as a whole.
        skipped: What was left out, because it would say nothing.
        folder: Where records and pictures are.
        classes: Names of the classes by number, where they are known.
    """

    task: str
    settings: dict[str, Any]
    rows: list[Row] | list[MeasureRow]
    findings: list[tuple[str | None, Finding]]
    skipped: list[Skipped]
    folder: Path
    classes: tuple[str, ...] | None = None


def evaluate_classifier(
    model: Callable[..., Any],
    data: LabelledImages,
    *,
    purifiers: Mapping[str, Any],
    attacks: Mapping[str, Attack],
    threats: Mapping[str, ThreatModel],
    out: str | Path,
    settings: EvaluationSettings | None = None,
    identity: Mapping[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    progress: Progress = lambda _: None,
) -> Evaluation:
    """Measures a classifier behind purifiers, under attack.

    Args:
        model: Map from images to logits (N, K), in eval mode; its device is where images are put.
        data: Images and labels.
        purifiers: `Purifier`s by the name they go by in the results; the bare model ("none") is always measured too.
        attacks: Attacks by name, such as {"PGD 8/255": PGD(eps=8 / 255)}.
        threats: Threat models by name, such as {"blind": Blind(), "aware": Aware()}.
        out: Folder for records and pictures; a run that was killed goes on from what is in it.
        settings: How it is run.
        identity: What tells the model from others; its class and the hash of its weights where None.
        mean: Mean of each channel that the model's images are normalised with; None for a model of [0, 1] images.
        std: Standard deviation of each channel, likewise.
        progress: Called with the number of images that are done since the last call, those of the self-checks too.

    Raises:
        InputError: Where model, data and attacks do not fit together.
        OptionError: Where `out` holds results of other settings.
    """
    run = _Run(Classification(), model, data, purifiers, attacks, threats, out, settings, identity, mean, std, progress)
    return run()


def evaluate_segmenter(
    model: Callable[..., Any],
    data: MaskedImages,
    *,
    purifiers: Mapping[str, Any],
    attacks: Mapping[str, Attack],
    threats: Mapping[str, ThreatModel],
    out: str | Path,
    ignore_index: int = 255,
    settings: EvaluationSettings | None = None,
    identity: Mapping[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    progress: Progress = lambda _: None,
) -> Evaluation:
    """Measures pixel accuracy and mIoU of a segmenter behind purifiers, under attacks on the loss of every pixel.

    Takes what `evaluate_classifier` takes; the model returns logits (N, K, H, W), alone or as {"out": logits}.

    Args:
        model: The segmenter.
        data: Images and masks.
        purifiers: By name.
        attacks: By name; the gradient family, CW and DeepFool fit.
        threats: By name.
        out: Folder for records and pictures.
        ignore_index: Mask value of pixels that do not count.
        settings: How it is run.
        identity: What tells the model from others.
        mean: Of the model's normalisation.
        std: Of the model's normalisation.
        progress: Called with the number of images that are done.
    """
    task = Segmentation(ignore_index=ignore_index)
    return _Run(task, model, data, purifiers, attacks, threats, out, settings, identity, mean, std, progress)()


def evaluate_detector(
    model: Callable[..., Any],
    data: BoxedImages,
    *,
    purifiers: Mapping[str, Any],
    attacks: Mapping[str, Attack],
    threats: Mapping[str, ThreatModel],
    out: str | Path,
    loss: str | Loss = "cls+loc",
    settings: EvaluationSettings | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Progress = lambda _: None,
) -> Evaluation:
    """Measures mAP and mAP@0.5 of a detector behind purifiers, under attacks on its losses.

    Takes what `evaluate_classifier` takes; the model takes a list of images (3, H, W) in [0, 1] and returns a list of
    {"boxes", "scores", "labels"}, as torchvision's detectors do, and its losses in train mode.

    Args:
        model: The detector.
        data: Images and boxes.
        purifiers: By name.
        attacks: By name; those that climb a loss fit.
        threats: By name.
        out: Folder for records and pictures.
        loss: What attacks climb: "cls", "loc" or "cls+loc" of a torchvision detector, or a function of (outputs,
            targets) for others.
        settings: How it is run.
        identity: What tells the model from others.
        progress: Called with the number of images that are done.
    """
    task = Detection(loss=loss)
    return _Run(task, model, data, purifiers, attacks, threats, out, settings, identity, None, None, progress)()


class _Run:
    """One evaluation."""

    def __init__(
        self,
        task: Task,
        model: Callable[..., Any],
        data: ImageSet,
        purifiers: Mapping[str, Any],
        attacks: Mapping[str, Attack],
        threats: Mapping[str, ThreatModel],
        out: str | Path,
        settings: EvaluationSettings | None,
        identity: Mapping[str, Any] | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        progress: Progress,
    ) -> None:
        if not isinstance(data, task.data):
            raise InputError(f"expected {task.data.__name__} for {task.name}, got {type(data).__name__}")
        if not len(data):
            raise InputError("expected at least one image to evaluate on, got none")
        if UNDEFENDED in purifiers:
            raise OptionError(f"expected purifiers by other names than {UNDEFENDED!r}, which is the bare model")
        check_eval(model)
        self.settings = EvaluationSettings() if settings is None else settings
        self.task, self.data, self.out, self.progress = task, data, Path(out), progress
        self.defences = Defences(model, purifiers, dtypes=self.settings.defend_dtypes, mean=mean, std=std)
        self.purifiers = dict(purifiers)
        self.variants = variants(self.settings.eight_bit, self.settings.defend_dtypes)
        self.device = device_of(model)
        self.cells, self.skipped = plan(
            purifiers, {key: task.adapt(attack) for key, attack in attacks.items()}, threats
        )
        self.batches = list(data.batches(self.settings.batch_size))
        self.shared = {
            **task.settings(),
            "model": dict(identity or model_identity(model)) | {"mean": _plain(mean), "std": _plain(std)},
            "data": data.fingerprint(),
            "images": len(data),
            "size": data.size,
            "batch_size": self.settings.batch_size,
            "seed": self.settings.seed,
            "device": self.device.type,
            "variants": [variant.key for variant in self.variants],
            "versions": {key: value for key, value in versions().items() if key != "python"},
        }

    def __call__(self) -> Evaluation:
        # Before any work: results of other settings must stop the run at once.
        records = {cell.name: Records(self._path(cell.name), self._header(cell)) for cell in self.cells}
        probes = {
            name: Records(self._path(f"checks--{n}"), self._probe_header(name)) for n, name in enumerate(self.purifiers)
        }
        self._check_fit()
        for cell in self.cells:
            self._run_cell(cell, records[cell.name])
        found = {cell.name: records[cell.name].by_index for cell in self.cells}
        rows = self._rows(found)
        findings: list[tuple[str | None, Finding]] = []
        if isinstance(self.task, Classification):
            findings += [(name, finding) for name in self.purifiers for finding in self._probe(name, probes[name])]
            findings += [(None, finding) for finding in inspect(rows, trained_eps=self.settings.trained_eps)]
        return Evaluation(
            task=self.task.name,
            settings=self._all_settings(),
            rows=rows,
            findings=findings,
            skipped=self.skipped,
            folder=self.out,
            classes=getattr(self.data, "classes", None),
        )

    def _rows(self, found: Mapping[str, dict[int, dict[str, Any]]]) -> Any:
        if isinstance(self.task, Classification):
            return rows_of(self.cells, found, self.defences, self.variants)
        return measure_rows(self.task, self.cells, found, self.defences, self.variants, self.data)

    # -- settings -----------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self.out / "records" / f"{name}.jsonl"

    def _header(self, cell: Cell) -> dict[str, Any]:
        return {
            **self.shared,
            "cell": cell.name,
            "purifiers": {
                name: purifier_identity(self.purifiers[name]) for name in cell.purifiers if name != UNDEFENDED
            },
            "attack": None if cell.attack is None else attack_settings(cell.attack),
            "threat": None if cell.threat is None else threat_settings(cell.threat),
        }

    def _probe_header(self, name: str) -> dict[str, Any]:
        attack, samples = self._strongest()
        return {
            **self.shared,
            "purifier": purifier_identity(self.purifiers[name]),
            "attack": None if attack is None else attack.settings(),
            "samples": samples,
            "probe_images": self.settings.probe_images,
            "trained_eps": _plain(self.settings.trained_eps.get(name)),
            "trained_size": _plain(self.settings.trained_size.get(name)),
        }

    def _all_settings(self) -> dict[str, Any]:
        return {
            **self.shared,
            "purifiers": {name: purifier_identity(purifier) for name, purifier in self.purifiers.items()},
            "attacks": {c.attack_key: attack_settings(c.attack) for c in self.cells if c.attack is not None},
            "threats": {c.threat_key: threat_settings(c.threat) for c in self.cells if c.threat is not None},
        }

    # -- work ---------------------------------------------------------------------------------------------------------

    def _load(self, indices: Sequence[int]) -> tuple[Any, Any]:
        return _to(self.data.load(indices), self.device)

    def _check_fit(self) -> None:
        images, targets = self._load(self.batches[0][:1])
        with torch.inference_mode():
            outputs = self.defences.model(images)
            self.task.record(outputs, targets)
            self.task.check(outputs, self.data)

    def _run_cell(self, cell: Cell, records: Records) -> None:
        names, pictured = self.data.names, self._pictured()
        for number, batch in enumerate(self.batches):
            if not all(index in records.by_index for index in batch):
                images, targets = self._load(batch)
                attacked = self._attack(cell, batch[0], images, targets)
                predictions, milliseconds = self._judge(cell, batch[0], attacked, targets)
                sizes = _sizes(images, attacked)
                if cell.attack is not None and number in pictured:
                    self._keep_pictures(cell, batch, pictured[number], images, attacked, targets, predictions)
                records.add(
                    {
                        "index": index,
                        "file": names[index],
                        **self.task.truth(targets, place),
                        "predictions": {
                            key: {name: kept[place] for name, kept in by.items()} for key, by in predictions.items()
                        },
                        **({"milliseconds": milliseconds} if cell.attack is None else sizes[place]),
                    }
                    for place, index in enumerate(batch)
                )
            self.progress(len(batch))

    def _pictured(self) -> dict[int, int]:
        """How many images of which batches to keep: spread, because neighbours are often of one class."""
        found: dict[int, int] = {}
        for number in range(self.settings.pictures):
            batch = number * len(self.batches) // self.settings.pictures
            found[batch] = found.get(batch, 0) + 1
        return found

    def _seed(self, cell: Cell, first: int, what: str) -> int:
        text = f"{self.settings.seed} {cell.name} {first} {what}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])

    def _attack(self, cell: Cell, first: int, images: Any, targets: Any) -> Any:
        if cell.attack is None or cell.threat is None:
            return images
        seed = self._seed(cell, first, "attack")
        target = cell.purifiers[0] if cell.threat.name in AWARE_THREATS else UNDEFENDED
        with Seeded(seed, self.device):
            return cell.threat(
                cell.attack.seeded(seed), self.defences.defended[target], images, self.task.attack_targets(targets)
            )

    def _judge(
        self, cell: Cell, first: int, images: Any, targets: Any
    ) -> tuple[dict[str, dict[str, list[Any]]], dict[str, float]]:
        """Returns what is kept by variant and purifier, and the milliseconds an image of each purifier."""
        kept: dict[str, dict[str, list[Any]]] = {}
        milliseconds = {}
        for variant in self.variants:
            by = kept.setdefault(variant.key, {})
            for name in cell.purifiers:
                if not self.defences.has(name, variant):
                    continue
                seed = self._seed(cell, first, f"{name} {variant.key}")
                with Seeded(seed, self.device), torch.inference_mode():
                    shown, took = self.defences.timed(name, variant, images)
                    by[name] = self.task.record(self.defences.model(shown), targets)
                if variant == Variant():
                    milliseconds[name] = round(took, 4)
        return kept, milliseconds

    def _keep_pictures(
        self,
        cell: Cell,
        batch: list[int],
        count: int,
        images: Any,
        attacked: Any,
        targets: Any,
        predictions: dict[str, Any],
    ) -> None:
        chosen = list(range(len(batch)))
        plain = predictions[Variant().key]
        if isinstance(self.task, Classification):
            first = plain[cell.purifiers[0]]
            # Images that the attack fools tell more.
            chosen.sort(key=lambda place: first[place] == int(targets[place]))
        purified = {}
        chosen = sorted(chosen[:count])
        for name in cell.purifiers:
            with Seeded(self._seed(cell, batch[0], f"{name} {Variant().key}"), self.device), torch.inference_mode():
                shown = self.defences.purify(name, Variant(), attacked)
            purified[name] = [shown[place] for place in chosen]
        save_pictures(
            self.out / "pictures" / cell.name,
            [batch[place] for place in chosen],
            [images[place] for place in chosen],
            [attacked[place] for place in chosen],
            {name: shown for name, shown in purified.items() if name != UNDEFENDED},
        )

    # -- self-checks --------------------------------------------------------------------------------------------------

    def _strongest(self) -> tuple[Attack | None, int]:
        """The attack and the number of EOT samples that the live checks look at."""
        attacks = [cell.attack for cell in self.cells if cell.attack is not None and cell.attack.gradient]
        samples = [getattr(cell.threat, "samples", 1) for cell in self.cells if cell.threat is not None]
        return (max(attacks, key=lambda a: (getattr(a, "steps", 0), getattr(a, "eps", 0))) if attacks else None), max(
            samples, default=1
        )

    def _probe(self, name: str, records: Records) -> list[Finding]:
        if not self.settings.probe_images:
            return []
        if 0 not in records.by_index:
            images, labels = self._probe_images()
            attack, samples = self._strongest()
            findings = probe(
                self.defences.defended[name],
                images,
                labels,
                attack=attack,
                samples=samples,
                trained_eps=self.settings.trained_eps.get(name),
                trained_size=self.settings.trained_size.get(name),
            )
            records.add([{"index": 0, "findings": [vars(finding) for finding in findings]}])
        self.progress(self.settings.probe_images)
        return [Finding(**found) for found in records.by_index[0]["findings"]]

    def _probe_images(self) -> tuple[Any, Any]:
        """A few images of one size, spread over the set."""
        spread = [n * len(self.data) // self.settings.probe_images for n in range(self.settings.probe_images)]
        if self.data.size is None:
            spread = self.batches[0][: self.settings.probe_images]
        return self._load(sorted(set(spread)))


def _sizes(clean: Any, attacked: Any) -> list[dict[str, float]]:
    """Largest change of a value and Euclidean length of each perturbation."""
    pairs = zip(clean, attacked, strict=True)
    return [{"linf": float((b - a).abs().max()), "l2": float((b - a).double().norm())} for a, b in pairs]


class Seeded:
    """Sets torch's random state for a while, for purifiers and attacks that draw from it.

    Args:
        seed: Of the state.
        device: Whose state, beside the CPU's.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._fork = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)


def device_of(model: Callable[..., Any]) -> torch.device:
    """Returns where a model is; the CPU for functions."""
    if isinstance(model, nn.Module):
        tensor = next(model.parameters(), next(model.buffers(), None))
        if tensor is not None:
            return tensor.device
    return torch.device("cpu")


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(part, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to(part, device) for part in value)
    return value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) else value
