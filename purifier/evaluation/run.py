"""Evaluations: every attack under every threat model against every purifier, recorded image by image.

The measures are standard accuracy (clean images, with the purifier), robust accuracy (share of all images that are
correct under a stated attack and threat model), attack success rate, and purification success rate (PSR: share of
images with the bare model's class of the clean image; "NCIS: Neural Contextual Iterative Smoothing for Purifying
Adversarial Perturbations", WACV 2024, section 4). Several aware attacks are also combined: an image is correct only if
all of them fail on it (Croce & Hein 2020, https://arxiv.org/abs/2003.01690).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from purifier._errors import InputError, OptionError, PurifierError, shown
from purifier._identity import purifier_identity, versions_of_figures
from purifier._opening import as_path
from purifier._records import Records
from purifier.attacks import Attack
from purifier.attacks.base import Loss
from purifier.attacks.identity import attack_settings, threat_settings
from purifier.attacks.threats import ThreatModel
from purifier.data.sets import BoxedImages, ImageSet, LabelledImages
from purifier.evaluation.cells import CellRunner, Engine, here, to_device
from purifier.evaluation.certified import Certification, CertifiedRow, Certifier, check_certifications
from purifier.evaluation.checks import Finding, inspect, probe
from purifier.evaluation.checks.certificates import few_draws
from purifier.evaluation.checks.clean import POOR, foreign_labels, poor_rows
from purifier.evaluation.checks.detectors import unaware_detectors
from purifier.evaluation.checks.outputs import RANGE
from purifier.evaluation.defences import Defences
from purifier.evaluation.detected import DetectedRow, detected_rows
from purifier.evaluation.plan import UNDEFENDED, Attacked, Cell, Skipped, check_arguments, plan
from purifier.evaluation.rows import MeasureRow, Row
from purifier.evaluation.settings import EvaluationSettings
from purifier.evaluation.summary import Table
from purifier.evaluation.tasks import Classification, Task, task_of
from purifier.models.layers import check_eval
from purifier.models.loading import LoadedModel

Progress = Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        task: "classification", "segmentation" or "detection".
        settings: Everything that the figures depend on.
        rows: `Row`s for classification, `MeasureRow`s for the other tasks.
        findings: What the self-checks found, each with the name of the purifier, or None for the table as a whole.
        skipped: Combinations that were not measured because their figures would mean nothing.
        folder: Folder of the records and pictures.
        certified: A `CertifiedRow` for each certification and purifier.
        detected: A `DetectedRow` for each attack on images and each purifier with a gate (classifiers only).
        classes: Names of the classes by number, if they are known.
    """

    task: str
    settings: dict[str, Any]
    rows: list[Row] | list[MeasureRow]
    findings: list[tuple[str | None, Finding]]
    skipped: list[Skipped]
    folder: Path
    certified: tuple[CertifiedRow, ...] = ()
    detected: tuple[DetectedRow, ...] = ()
    classes: tuple[str, ...] | None = None


def evaluate(
    model: Callable[..., Any] | LoadedModel,
    data: ImageSet,
    *,
    purifiers: Mapping[str, Any],
    attacks: Mapping[str, Attack | Attacked],
    threats: Mapping[str, ThreatModel],
    out: str | Path,
    certifications: Mapping[str, Certification] | None = None,
    settings: EvaluationSettings | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    ignore_index: int | None = None,
    loss: str | Loss | None = None,
    progress: Progress = lambda _: None,
    engine: Engine = here,
) -> Evaluation:
    """Measures a model behind purifiers under attack. The type of `data` decides the task.

    Args:
        model: In eval mode, on the device to use. It returns logits (N, K) for `LabelledImages`, logits (N, K, H, W) or
            {"out": logits} for `MaskedImages`, and lists of {"boxes", "scores", "labels"} for `BoxedImages`. A purifier
            in front of it, wrapped or attached, is switched off, and the images are fed as it takes them.
        data: The images and targets.
        purifiers: `Purifier`s by their names in the results. The bare model is always measured too, as "none".
        attacks: Attacks, or images `Attacked` beforehand, by name, such as {"PGD 8/255": PGD(eps=8 / 255)}.
        threats: Threat models by name, such as {"blind": Blind(), "aware": Aware()}.
        out: Folder for records and pictures. If it holds a part of the same evaluation, the run resumes.
        certifications: How to certify the model behind each purifier, which must then be a denoiser, and behind none,
            by name, such as {"0.25": Certification(sigma=0.25)}. It needs no attack, and runs in this process.
        settings: How the evaluation runs.
        mean: Mean of each channel of the model's normalised input; None means images in [0, 1]. Not for detectors.
        std: Standard deviation of each channel, likewise.
        ignore_index: Mask value of the pixels that a segmenter's measures ignore; None means 255.
        loss: What attacks on a detector increase: "cls", "loc", "cls+loc" (None) or a function of (outputs, targets).
        progress: Called with the number of images done since the last call, including those of the self-checks.
        engine: What measures the batches: this process, or the workers of a `purifier.scale.OnRay`.

    Raises:
        InputError: If model, data and attacks do not fit together.
        OptionError: If an option belongs to another task, or `out` holds results of other settings.
    """
    check_arguments(model, purifiers, attacks, threats)
    if not callable(engine):
        raise OptionError(f"expected an engine such as purifier.scale.OnRay(), got {shown(engine)}")
    certified = {} if certifications is None else certifications
    check_certifications(certified, data)
    task = task_of(data, mean=mean, std=std, ignore_index=ignore_index, loss=loss)
    chosen = _checked(settings)
    defences = Defences(model, purifiers, dtypes=chosen.defend_dtypes, eight_bit=chosen.eight_bit, mean=mean, std=std)
    cells, skipped = plan(purifiers, task.adapt_all(attacks), threats)
    results = as_path(out, wanted="a folder for the results")
    return _Run(task, data, defences, cells, skipped, certified, chosen, results, progress, engine)()


def _checked(settings: EvaluationSettings | None) -> EvaluationSettings:
    chosen = EvaluationSettings() if settings is None else settings
    if not isinstance(chosen, EvaluationSettings):
        raise OptionError(f"expected settings as EvaluationSettings, got {shown(settings)}")
    return chosen


def remove_results(out: Path) -> None:
    """Removes the records and pictures of an evaluation from a folder, and no other files.

    Raises:
        OptionError: If one cannot be removed.
    """
    try:
        for path in [*out.glob("records/*.jsonl"), *out.glob("pictures/*/*.png")]:
            path.unlink()
    except OSError as error:
        raise OptionError(
            f"expected results in {out} that can be removed, got {error}; choose another --out"
        ) from error


@dataclass(frozen=True)
class _Run:
    """One evaluation; see `evaluate` and `Evaluation` for the fields."""

    task: Task
    data: ImageSet
    defences: Defences
    cells: list[Cell]
    skipped: list[Skipped]
    certifications: Mapping[str, Certification]
    settings: EvaluationSettings
    out: Path
    progress: Progress
    engine: Engine

    def __call__(self) -> Evaluation:
        self._check_data()
        shared = self._shared()
        # Opened before any work, so that results of other settings stop the run at once.
        records = {cell.name: self._open(cell.name, {**shared, **self._cell_head(cell)}) for cell in self.cells}
        probes = {
            name: self._open(f"checks--{number}", {**shared, **self._probe_head(name)})
            for number, name in enumerate(self.defences.purifiers)
        }
        certificates = [
            (name, one, self._open(f"certified--{number}-{place}", {**shared, **self._certified_head(name, one)}))
            for number, one in enumerate(self.certifications.values())
            for place, name in enumerate((UNDEFENDED, *self.defences.purifiers))
        ]
        self._check_fit()
        runner = CellRunner(self.task, self.data, self.defences, self.settings, self.out / "pictures")
        jobs = [job for cell in self.cells for job in runner.jobs(cell, records[cell.name].by_index)]
        self.progress(len(self.cells) * len(self.data) - sum(len(job.batch) for job in jobs))
        for job, measured in zip(jobs, self.engine(runner, jobs), strict=True):
            records[job.cell.name].add(measured)
            self.progress(len(job.batch))
        defences = self.defences
        certify = Certifier(defences.model, defences.purifiers, self.data, defences.device, self.settings.seed)
        certified = tuple(certify(*each, self.progress) for each in certificates)
        found = {name: cell_records.by_index for name, cell_records in records.items()}
        detected = detected_rows(self.cells, found)
        rows = Table(self.cells, found, self.defences).rows(self.task, self.data)
        return Evaluation(
            task=self.task.name,
            settings={**shared, **self._described()},
            rows=rows,
            findings=[
                *self._findings(rows, probes, found[self.cells[0].name]),
                *few_draws(certified),
                *unaware_detectors(detected),
            ],
            skipped=self.skipped,
            folder=self.out,
            certified=certified,
            detected=detected,
            classes=self._classes(),
        )

    def _check_data(self) -> None:
        check_eval(self.defences.bare)
        if not len(self.data):
            raise InputError("expected at least one image to evaluate on, got none")
        for cell in self.cells:
            if cell.attacked is not None and len(cell.attacked.images) != len(self.data):
                raise InputError(
                    f"expected {len(self.data)} attacked images for {cell.attack_key!r}, one for each clean image, got "
                    f"{len(cell.attacked.images)}"
                )

    def _check_fit(self) -> None:
        """Checks the model's outputs for the first image, and all targets against them."""
        images, targets = to_device(self.data.load([0]), self.defences.device)
        with torch.inference_mode():
            try:
                outputs = self.defences.model(images)
            except PurifierError:
                raise
            except Exception as error:  # of a model that we do not know
                raise self.task.misfit(error, images) from error
            self.task.record(outputs, targets)
            self.task.check(outputs, self.data)

    # -- settings -----------------------------------------------------------------------------------------------------

    def _open(self, name: str, head: Mapping[str, Any]) -> Records:
        return Records(
            self.out / "records" / f"{name}.jsonl", head, instead="choose another --out, or pass --overwrite"
        )

    def _shared(self) -> dict[str, Any]:
        return {
            **self.task.settings(),
            "model": self.defences.identity,
            "data": self.data.fingerprint(),
            "images": len(self.data),
            "size": self.data.size,
            "batch_size": self.settings.batch_size,
            "seed": self.settings.seed,
            "device": self.defences.device.type,
            **({"votes": self.settings.votes} if self.settings.votes > 1 else {}),
            "variants": [variant.key for variant in self.defences.variants],
            "versions": versions_of_figures(),
        }

    def _cell_head(self, cell: Cell) -> dict[str, Any]:
        purifiers = self.defences.purifiers
        return {
            "cell": cell.name,
            "purifiers": {name: purifier_identity(purifiers[name]) for name in cell.purifiers if name != UNDEFENDED},
            "attack": None if cell.attack is None else attack_settings(cell.attack),
            "threat": None if cell.threat is None else threat_settings(cell.threat),
            "attacked": None if cell.attacked is None else cell.attacked.fingerprint(),
        }

    def _certified_head(self, name: str, certification: Certification) -> dict[str, Any]:
        purifiers = self.defences.purifiers
        identity = None if name == UNDEFENDED else purifier_identity(purifiers[name])
        return {"purifier": identity, "certification": asdict(certification)}

    def _probe_head(self, name: str) -> dict[str, Any]:
        attack, samples, submissions = self._strongest()
        return {
            "purifier": purifier_identity(self.defences.purifiers[name]),
            "attack": None if attack is None else attack.settings(),
            "samples": samples,
            "submissions": submissions,
            "probe_images": self.settings.probe_images,
            "trained_eps": self.settings.trained_eps.get(name),
            "trained_size": self.settings.trained_size.get(name),
        }

    def _described(self) -> dict[str, Any]:
        purifiers = self.defences.purifiers
        return {
            "purifiers": {name: purifier_identity(purifier) for name, purifier in purifiers.items()},
            "attacks": {c.attack_key: attack_settings(c.attack) for c in self.cells if c.attack is not None},
            "threats": {c.threat_key: threat_settings(c.threat) for c in self.cells if c.threat is not None},
        }

    # -- self-checks --------------------------------------------------------------------------------------------------

    def _findings(
        self, rows: Any, probes: Mapping[str, Records], clean: Mapping[int, dict[str, Any]]
    ) -> list[tuple[str | None, Finding]]:
        """Runs the self-checks. Most of them are for classifiers."""
        found: list[tuple[str | None, Finding]] = []
        if isinstance(self.task, Classification):
            found = [(name, finding) for name, records in probes.items() for finding in self._probe(name, records)]
        whole: list[Finding | None] = []
        if isinstance(self.data, BoxedImages):
            key = self.defences.variants[0].key
            predictions = [clean[index]["predictions"][key][UNDEFENDED] for index in range(len(self.data))]
            targets = [self.data.target(index) for index in range(len(self.data))]
            whole.append(foreign_labels(predictions, targets, list(self.data.categories)))
        # One reason is enough.
        if not any(finding.check in (POOR.name, RANGE.name) for _, finding in found):
            whole.append(poor_rows(rows, UNDEFENDED) if not any(whole) else None)
        if isinstance(self.task, Classification):
            whole += inspect(rows, trained_eps=self.settings.trained_eps)
        return [*found, *((None, finding) for finding in whole if finding is not None)]

    def _classes(self) -> tuple[str, ...] | None:
        """Names of the classes: those of the data, of the model, or of class folders that only their order numbers."""
        known = getattr(self.data, "classes", None) or self.defences.classes
        if known is None and isinstance(self.data, LabelledImages) and self.data.folders is not None:
            names = {label: name.split("/")[0] for name, label in zip(self.data.names, self.data.labels, strict=True)}
            known = tuple(names.get(number, f"class {number}") for number in range(self.data.folders))
        return known

    def _strongest(self) -> tuple[Attack | None, int, int]:
        """The attack, the number of EOT samples and that of submissions that the live checks use."""
        attacks = [cell.attack for cell in self.cells if cell.attack is not None and cell.attack.gradient]
        strongest = max(attacks, key=lambda a: (getattr(a, "steps", 0), getattr(a, "eps", 0)), default=None)
        samples, submissions = (
            max((getattr(cell.threat, name, 1) for cell in self.cells), default=1)
            for name in ("samples", "submissions")
        )
        return strongest, samples, submissions

    def _probe(self, name: str, records: Records) -> list[Finding]:
        if not self.settings.probe_images:
            return []
        if 0 not in records.by_index:
            images, labels = to_device(self.data.load(self._probed()), self.defences.device)
            attack, samples, submissions = self._strongest()
            findings = probe(
                self.defences.defended[name],
                images,
                labels,
                attack=attack,
                samples=samples,
                submissions=submissions,
                trained_eps=self.settings.trained_eps.get(name),
                trained_size=self.settings.trained_size.get(name),
            )
            records.add([{"index": 0, "findings": [vars(finding) for finding in findings]}])
        self.progress(self.settings.probe_images)
        return [Finding(**found) for found in records.by_index[0]["findings"]]

    def _probed(self) -> list[int]:
        """Indices of a few images of one size, spread over the data."""
        count = self.settings.probe_images
        if self.data.size is None:
            return next(iter(self.data.batches(self.settings.batch_size)))[:count]
        return sorted({number * len(self.data) // count for number in range(count)})
