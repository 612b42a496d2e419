"""Choosing a purifier's options for a classifier and images at hand.

Cha et al., "NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024,
supplement 2.3: the number of iterations with the highest mean of standard and robust accuracy under a purifier-blind
attack (there 1,000 images, PGD Linf, eps 16/255, alpha 1.6/255, 10 steps).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from purifier._errors import InputError, OptionError
from purifier._identity import purifier_identity, versions
from purifier._purified_model import PurifiedModel
from purifier._purifier import Purifier
from purifier._records import Records
from purifier.attacks import Attack, Aware
from purifier.attacks.identity import attack_settings
from purifier.data.class_folders import few_folders
from purifier.data.sets import LabelledImages
from purifier.evaluation.metrics.classification import interval
from purifier.methods import innermost
from purifier.models.loading import LoadedModel

NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one setting of the options gave.

    Attributes:
        options: The options; empty for no purifier.
        standard: Whether each clean image is right with the purifier on.
        blind: Whether each image is right under the purifier-blind attack.
    """

    options: Mapping[str, int]
    standard: tuple[bool, ...]
    blind: tuple[bool, ...]

    @property
    def name(self) -> str:
        """The options as text, such as "iterations=3"."""
        return setting_name(self.options)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.standard)

    @property
    def mean(self) -> float:
        """Mean of the standard and the blind robust accuracy."""
        return (sum(self.standard) + sum(self.blind)) / (2 * self.images)

    def to_dict(self) -> dict[str, Any]:
        """Returns counts, shares and 95 % intervals, ready for JSON."""
        figures: dict[str, Any] = {"options": dict(self.options), "images": self.images, "mean": self.mean}
        for name, right in (("standard", sum(self.standard)), ("blind", sum(self.blind))):
            figures[name] = right
            figures[f"{name}_accuracy"] = right / self.images
            figures[f"{name}_interval"] = list(interval(right, self.images))
        return figures


@dataclass(frozen=True, kw_only=True)
class AwareFigure:
    """The chosen setting against an attacker who knows it.

    Attributes:
        images: Number of images.
        right: How many withstand.
    """

    images: int
    right: int

    def to_dict(self) -> dict[str, Any]:
        """Returns count, share and 95 % interval, ready for JSON."""
        share = self.right / self.images
        return {
            "images": self.images,
            "right": self.right,
            "accuracy": share,
            "interval": list(interval(self.right, self.images)),
        }


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """All that was tried, and what was chosen.

    Attributes:
        trials: One a setting, in the order they were tried.
        undefended: The model without a purifier.
        chosen: The one with the highest mean; of equals the one with the fewest iterations.
        aware: Its figure against an attacker who knows the purifier; None where it was not measured.
        settings: What the figures depend on.
    """

    trials: tuple[Trial, ...]
    undefended: Trial
    chosen: Trial
    aware: AwareFigure | None
    settings: dict[str, Any]

    @property
    def level(self) -> list[Trial]:
        """The other settings that these images cannot tell from the chosen one: their mean may be as high."""
        return [trial for trial in self.trials if trial is not self.chosen and not clearly_lower(trial, self.chosen)]

    @property
    def worthwhile(self) -> bool:
        """Whether the chosen setting's mean is above that of no purifier."""
        return self.chosen.mean > self.undefended.mean

    def to_dict(self) -> dict[str, Any]:
        """Returns everything, ready for JSON."""
        return {
            "criterion": "highest mean of standard and blind robust accuracy",
            "threat": "blind",
            "undefended": self.undefended.to_dict(),
            "trials": [trial.to_dict() for trial in self.trials],
            "chosen": dict(self.chosen.options),
            "not told apart from it": [dict(trial.options) for trial in self.level],
            "better than no purifier": self.worthwhile,
            "aware": None if self.aware is None else self.aware.to_dict(),
            "settings": self.settings,
            "versions": versions(),
        }


def setting_name(options: Mapping[str, int]) -> str:
    """Returns options as text; "none" where there are none."""
    return ",".join(f"{key}={value}" for key, value in options.items()) or NONE


def clearly_lower(trial: Trial, best: Trial) -> bool:
    """Whether a trial's mean is below the other's by more than chance.

    An exact test of paired differences, of 2.5 % on this side: were the two level, each image's difference might as
    well have had the other sign.
    """
    differences = [
        a + b - c - d for a, b, c, d in zip(best.standard, best.blind, trial.standard, trial.blind, strict=True)
    ]
    return (
        _by_chance(sum(abs(d) == 1 for d in differences), sum(abs(d) == 2 for d in differences), sum(differences))
        <= 0.025
    )


def _by_chance(ones: int, twos: int, total: int) -> float:
    """Probability that so many differences of 1 and of 2, of random signs, come to `total` or more."""
    tails = [0.0]
    for up in range(ones, -1, -1):
        tails.append(tails[-1] + _share(ones, up))
    # at_least[k]: that k or more of the ones are positive.
    at_least = tails[::-1]
    found = 0.0
    for up in range(twos + 1):
        needed = math.ceil((total - 2 * (2 * up - twos) + ones) / 2)
        found += _share(twos, up) * at_least[min(max(needed, 0), ones + 1)]
    return found


def _share(count: int, up: int) -> float:
    """Probability of `up` heads in `count` throws of a coin."""
    ways = math.lgamma(count + 1) - math.lgamma(up + 1) - math.lgamma(count - up + 1)
    return math.exp(ways - count * math.log(2))


def choose(trials: Sequence[Trial]) -> Trial:
    """Returns the trial with the highest mean; of equals the one with the fewest iterations, then smallest kernel."""
    return max(trials, key=lambda trial: (trial.mean, *(-value for value in trial.options.values())))


def tune(
    model: LoadedModel,
    data: LabelledImages,
    purifier: str | Path,
    *,
    attack: Attack,
    out: Path,
    iterations: Sequence[int] = tuple(range(1, 9)),
    kernel_sizes: Sequence[int] = (),
    aware_images: int = 0,
    batch_size: int = 20,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
) -> Tuning:
    """Tries options of a purifier on a classifier, under an attacker who does not know the purifier.

    Each image is attacked once, on the bare model, and purified on from setting to setting where the method allows.
    Results are kept image by image in `out`; a run that was killed resumes.

    Args:
        model: The classifier.
        data: Its images.
        purifier: What `Purifier.from_pretrained` takes; "gs" and "ncis" have iterations.
        attack: The attack.
        out: Folder of the records.
        iterations: Numbers of iterations to try.
        kernel_sizes: Kernel sizes to try ("gs"); the purifier's own where there are none.
        aware_images: Number of images to attack through the chosen purifier too.
        batch_size: Images at a time.
        seed: Of the attack's randomness.
        device: Where everything computes.
        dtype: What the purifier computes in; float32 where None.

    Raises:
        OptionError: Where the purifier has no such options, or `out` holds results of other settings.
        InputError: Where there are no images, or labels that the model does not have.
    """
    if not iterations or min(iterations) < 1:
        raise OptionError(f"expected numbers of iterations from 1, got {list(iterations)}")
    if not len(data):
        raise InputError("expected images to tune on, got none")
    grid = _Grid(purifier, sorted(set(iterations)), list(dict.fromkeys(kernel_sizes)), device, dtype)
    settings = {
        "model": model.identity,
        "data": data.fingerprint(),
        "images": len(data),
        "purifier": grid.identity,
        "attack": attack_settings(attack),
        "seed": seed,
        "batch_size": batch_size,
    }
    run = _Run(model.call, data, attack, seed, batch_size, torch.device(device))
    done = run.blind(Records(out / "blind.jsonl", settings), grid)
    trials = [_trial(done, options) for options in grid.settings]
    chosen = choose(trials)
    aware = None
    if aware_images > 0:
        defended = grid.build(chosen.options).wrap(model.call)
        count = min(aware_images, len(data))
        rights = run.aware(Records(out / f"aware_{chosen.name}_{count}.jsonl", settings), defended, count)
        aware = AwareFigure(images=len(rights), right=sum(rights))
    return Tuning(trials=tuple(trials), undefended=_trial(done, {}), chosen=chosen, aware=aware, settings=settings)


def write_purifier(tuning: Tuning, folder: Path, purifier: str | Path) -> None:
    """Writes the purifier with the chosen options, as a folder that `Purifier.from_pretrained` takes.

    Args:
        tuning: What `tune` returned.
        folder: Where to.
        purifier: What was tuned.
    """
    options: dict[str, Any] = dict(tuning.chosen.options)
    iterations = options.pop("iterations")
    chosen = Purifier.from_pretrained(purifier, **options)
    chosen.iterations = iterations
    figures = tuning.chosen.to_dict()
    aware = tuning.aware
    told = "not measured" if aware is None else f"{aware.right / aware.images:.1%} of {aware.images} images"
    note = (
        f"\n## Tuned\n\n`{tuning.chosen.name}` was chosen by `purifier tune` for {tuning.settings['model']['name']}: "
        f"standard accuracy {figures['standard_accuracy']:.1%}, accuracy under a purifier-blind "
        f"{tuning.settings['attack']['name']} attack {figures['blind_accuracy']:.1%}, on the {tuning.chosen.images} "
        f"images that it was chosen on; purifier-aware: {told}. Figures above this section are of other settings.\n"
    )
    chosen.card = (chosen.card or str(chosen.generate_model_card())).rstrip("\n") + "\n" + note
    chosen.save_pretrained(folder)


class _Grid:
    """The purifiers to try, in an order in which each may go on from the one before."""

    def __init__(
        self,
        source: str | Path,
        iterations: Sequence[int],
        kernel_sizes: Sequence[int],
        device: str | torch.device,
        dtype: str | torch.dtype | None,
    ) -> None:
        self._source, self._device, self._dtype = source, device, dtype
        self._iterations = iterations
        self._kernels: list[dict[str, int]] = [{"kernel_size": k} for k in kernel_sizes] or [{}]
        first = self._load(self._kernels[0])
        tunable = [leaf for leaf in innermost(first.method) if "iterations" in leaf.tunable]
        if len(tunable) != 1:
            raise OptionError(f"expected a purifier with iterations to tune, such as gs or ncis, got {str(source)!r}")
        # Applying F i + 1 times is applying it once more, where each application ends with the clamp that a purifier
        # ends with. For gs the cost does not grow with i, so that it starts anew, without any rounding between.
        self._goes_on = tunable[0] is first.method and first.method.options.get("clamp") is True
        first.iterations = 1
        self.identity = {**purifier_identity(first), "iterations": list(iterations), "kernel_sizes": list(kernel_sizes)}

    @property
    def settings(self) -> list[dict[str, int]]:
        return [{"iterations": i, **kernel} for kernel in self._kernels for i in self._iterations]

    def build(self, options: Mapping[str, int]) -> Purifier:
        purifier = self._load({key: value for key, value in options.items() if key != "iterations"})
        purifier.iterations = options["iterations"]
        return purifier

    def purified(self, *batches: Tensor) -> Iterator[tuple[str, list[Tensor]]]:
        """Yields each setting's name and what it makes of the batches."""
        for kernel in self._kernels:
            purifier, current, before = self._load(kernel), list(batches), 0
            for i in self._iterations:
                purifier.iterations = i - before if self._goes_on else i
                current = [purifier(images) for images in (current if self._goes_on else batches)]
                before = i
                yield setting_name({"iterations": i, **kernel}), current

    def _load(self, kernel: Mapping[str, int]) -> Purifier:
        options: dict[str, Any] = dict(kernel)
        return Purifier.from_pretrained(self._source, device=self._device, dtype=self._dtype, **options)


@dataclass(frozen=True)
class _Run:
    """A classifier, its images and the attack, batch by batch."""

    model: Callable[..., Any]
    data: LabelledImages
    attack: Attack
    seed: int
    batch_size: int
    device: torch.device

    def blind(self, records: Records, grid: _Grid) -> Records:
        """Fills in whether each image is right under each setting, clean and attacked."""

        def measure(images: Tensor, labels: Tensor, attack: Attack) -> list[dict[str, Any]]:
            hostile = attack(self.model, images, labels)
            with torch.inference_mode():
                columns = {NONE: self._right([images, hostile], labels)}
                for name, purified in grid.purified(images, hostile):
                    columns[name] = self._right(purified, labels)
            return [{name: column[row] for name, column in columns.items()} for row in range(len(labels))]

        self._fill(records, list(range(len(self.data))), measure, "purifier-blind")
        return records

    def aware(self, records: Records, defended: PurifiedModel, count: int) -> list[bool]:
        """Returns whether each of the images withstands an attack through the purifier."""

        def measure(images: Tensor, labels: Tensor, attack: Attack) -> list[dict[str, Any]]:
            hostile = Aware()(attack, defended, images, labels)
            with torch.inference_mode():
                right = (defended(hostile).argmax(1) == labels).tolist()
            return [{"right": value} for value in right]

        chosen = [index * len(self.data) // count for index in range(count)]
        self._fill(records, chosen, measure, "purifier-aware")
        return [records.by_index[index]["right"] for index in chosen]

    def _fill(
        self,
        records: Records,
        indices: Sequence[int],
        measure: Callable[[Tensor, Tensor, Attack], list[dict[str, Any]]],
        what: str,
    ) -> None:
        from tqdm import tqdm

        chosen = self.data.pick(indices)
        with tqdm(total=len(indices), unit="image", desc=what, disable=None) as bar:
            for batch in chosen.batches(self.batch_size):
                places = [indices[index] for index in batch]
                if not all(place in records.by_index for place in places):
                    images, labels = (part.to(self.device) for part in chosen.load(batch))
                    self._check(images[:1], labels)
                    found = measure(images, labels, self.attack.seeded(_seed(self.seed, what, places[0])))
                    records.add({"index": place, **record} for place, record in zip(places, found, strict=True))
                bar.update(len(batch))

    def _check(self, image: Tensor, labels: Tensor) -> None:
        with torch.inference_mode():
            outputs = self.model(image)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise InputError(f"expected logits (N, classes) from the model, got {got}; tune needs a classifier")
        if self.data.folders not in (None, outputs.shape[1]):
            raise InputError(few_folders(self.data.folders, outputs.shape[1]))
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= outputs.shape[1]:
            wrong = low if low < 0 else high
            raise InputError(
                f"expected labels within 0..{outputs.shape[1] - 1}, as the model has {outputs.shape[1]} classes, got "
                f"{wrong}; check the model and the labels"
            )

    def _right(self, batches: Sequence[Tensor], labels: Tensor) -> list[list[bool]]:
        """For each image, whether it is right clean and attacked."""
        right = torch.stack([self.model(images).argmax(1) == labels for images in batches], 1)
        verdicts: list[list[bool]] = right.tolist()
        return verdicts


def _trial(records: Records, options: Mapping[str, int]) -> Trial:
    name = setting_name(options)
    pairs = [records.by_index[index][name] for index in sorted(records.by_index)]
    return Trial(options=options, standard=tuple(a for a, _ in pairs), blind=tuple(b for _, b in pairs))


def _seed(seed: int, what: str, first: int) -> int:
    """A seed of each batch's own, so that a run that was resumed gives the same images."""
    return int.from_bytes(hashlib.sha256(f"{seed} {what} {first}".encode()).digest()[:4], "big")
