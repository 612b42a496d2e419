"""Choosing a purifier's options for a given classifier and its images.

Source: "NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024, supplement
2.3, https://arxiv.org/abs/2106.11644: the number of iterations with the highest mean of standard and robust accuracy
under a purifier-blind attack (there on 1,000 images; PGD Linf, eps 16/255, alpha 1.6/255, 10 steps).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._identity import versions
from purifier._purifier import Purifier
from purifier._records import read_records
from purifier.attacks import Attack, Aware, Blind
from purifier.attacks.threats import ThreatModel
from purifier.data.sets import LabelledImages
from purifier.evaluation.defences import Defences, Variant
from purifier.evaluation.metrics.classification import interval
from purifier.evaluation.plan import UNDEFENDED
from purifier.evaluation.rows import CLEAN, Row
from purifier.evaluation.run import Evaluation, evaluate
from purifier.evaluation.settings import EvaluationSettings
from purifier.models.loading import LoadedModel

_ATTACK = "attack"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The figures of one setting of the options.

    Attributes:
        options: The options; empty for the model without a purifier.
        standard: Whether each clean image is correct with the purifier.
        blind: Whether each image is correct under the purifier-blind attack.
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
        for name, correct in (("standard", sum(self.standard)), ("blind", sum(self.blind))):
            figures[name] = correct
            figures[f"{name}_accuracy"] = correct / self.images
            figures[f"{name}_interval"] = list(interval(correct, self.images))
        return figures


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The settings that were tried, and the one that was chosen.

    Attributes:
        trials: One for each setting, in the order in which they were tried.
        undefended: The model without a purifier.
        chosen: The trial with the highest mean; of equal ones the one with the fewest iterations.
        aware: The chosen setting under an attacker who knows the purifier; None if that was not measured.
        settings: Everything that the figures depend on.
    """

    trials: tuple[Trial, ...]
    undefended: Trial
    chosen: Trial
    aware: Row | None
    settings: dict[str, Any]

    @property
    def level(self) -> list[Trial]:
        """The other settings whose mean may be as high: these images do not distinguish them from the chosen one."""
        return [trial for trial in self.trials if trial is not self.chosen and not clearly_lower(trial, self.chosen)]

    @property
    def worthwhile(self) -> bool:
        """Whether the chosen setting's mean is above that of the model without a purifier."""
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
    """Returns options as text; "none" if there are none."""
    return ",".join(f"{key}={value}" for key, value in options.items()) or UNDEFENDED


def clearly_lower(trial: Trial, best: Trial) -> bool:
    """Whether a trial's mean is lower than another's by more than chance.

    An exact one-sided test (2.5 %) of the paired differences: if both means were equal, each image's difference could
    as well have the opposite sign.
    """
    columns = zip(best.standard, best.blind, trial.standard, trial.blind, strict=True)
    differences = [a + b - c - d for a, b, c, d in columns]
    ones, twos = (sum(abs(d) == size for d in differences) for size in (1, 2))
    return _by_chance(ones, twos, sum(differences)) <= 0.025


def _by_chance(ones: int, twos: int, total: int) -> float:
    """Probability that so many differences of 1 and of 2, with random signs, add up to `total` or more."""
    tails = [0.0]
    for up in range(ones, -1, -1):
        tails.append(tails[-1] + _share(ones, up))
    # at_least[k]: the probability that k or more of the ones are positive.
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
    """Returns the trial with the highest mean; then the fewest iterations, then the smallest kernel."""
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
    dtype: str | torch.dtype | None = None,
) -> Tuning:
    """Tries options of a purifier on a classifier, under an attacker who does not know the purifier.

    Args:
        model: The classifier, on the device to use.
        data: Its images.
        purifier: What `Purifier.from_pretrained` takes; it must have iterations, as "gs" and "ncis" have.
        attack: The attack, which runs once for all settings.
        out: Folder of the records. If it holds a part of the same tuning, the run resumes.
        iterations: Numbers of iterations to try.
        kernel_sizes: Kernel sizes to try ("gs"); none means the purifier's own.
        aware_images: Number of images to also attack through the chosen purifier.
        batch_size: Images in a batch.
        seed: Seed of the attack.
        dtype: The purifier's dtype; None means float32.

    Raises:
        OptionError: If the purifier does not have these options, or `out` holds results of other settings.
        InputError: If there are no images, or the model does not have their labels.
    """
    source = _Source(purifier, Defences(model, {}).device, dtype)
    grid = source.grid(sorted(set(iterations)), kernel_sizes)
    settings = EvaluationSettings(batch_size=batch_size, seed=seed, pictures=0, probe_images=0)
    found = _measure(model, data, dict(grid), attack, Blind(), out, settings)
    undefended, *trials = _trials(out / "records", grid)
    chosen, aware = choose(trials), None
    if aware_images:
        folder, plain = out / f"aware-{chosen.name}-{aware_images}", {chosen.name: source.load(chosen.options)}
        through = _measure(model, data.spread(aware_images), plain, attack, Aware(), folder, settings)
        aware = next(row for row in through.rows if isinstance(row, Row) and row.threat == "aware")
    stated = {**found.settings, "attack": found.settings["attacks"][_ATTACK]}
    return Tuning(trials=tuple(trials), undefended=undefended, chosen=chosen, aware=aware, settings=stated)


def write_purifier(tuning: Tuning, folder: Path, purifier: str | Path) -> None:
    """Writes the purifier with the chosen options, as a folder for `Purifier.from_pretrained`.

    Args:
        tuning: What `tune` returned.
        folder: Folder to write.
        purifier: The purifier that was tuned.
    """
    chosen = _Source(purifier).load(tuning.chosen.options)
    figures, aware = tuning.chosen.to_dict(), tuning.aware
    told = "not measured" if aware is None else f"{aware.robust_accuracy:.1%} of {aware.images} images"
    note = (
        f"\n## Tuned\n\n`purifier tune` chose `{tuning.chosen.name}` for {tuning.settings['model']['name']}: standard "
        f"accuracy {figures['standard_accuracy']:.1%}, accuracy under a purifier-blind "
        f"{tuning.settings['attack']['name']} attack {figures['blind_accuracy']:.1%}, both on the "
        f"{tuning.chosen.images} images of the choice itself; purifier-aware: {told}. Figures above this section are "
        "of other settings.\n"
    )
    chosen.card = (chosen.card or str(chosen.generate_model_card())).rstrip("\n") + "\n" + note
    chosen.save_pretrained(folder)


class _Continuing(Purifier):
    """A purifier that continues from the output of the setting with fewer iterations.

    Applying F i + j times equals applying it j times to the output of i applications if each application ends with the
    clamp that a purifier ends with.
    """

    tried: Mapping[str, int]
    # A tuple, because a module in an attribute would become a part of this one.
    before: tuple[Purifier, ...] = ()
    _last: tuple[Tensor, Tensor] | None = None

    def purify(self, images: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not images:
            start, total = images, self.iterations
            for before in self.before:
                start = before.purify(images)
                self.iterations = total - before.iterations
            self._last = (images, super().purify(start))
            self.iterations = total
        return self._last[1]


@dataclass(frozen=True)
class _Source:
    """The purifier to tune, and where and in which dtype it runs."""

    name: str | Path
    device: torch.device | None = None
    dtype: str | torch.dtype | None = None

    def load(self, options: Mapping[str, int], kind: type[Purifier] = Purifier) -> Purifier:
        others: dict[str, Any] = {name: value for name, value in options.items() if name != "iterations"}
        purifier = kind.from_pretrained(self.name, device=self.device, dtype=self.dtype, **others)
        if not hasattr(purifier, "iterations"):
            raise OptionError(
                f"expected a purifier with iterations to tune, such as gs or ncis, got {str(self.name)!r}"
            )
        purifier.iterations = options["iterations"]
        return purifier

    def grid(self, iterations: Sequence[int], kernel_sizes: Sequence[int]) -> dict[str, _Continuing]:
        """Returns the purifier of each setting, by the setting's name."""
        if not iterations or iterations[0] < 1:
            raise OptionError(f"expected numbers of iterations from 1, got {list(iterations)}")
        grid = {}
        for kernel in [{"kernel_size": size} for size in dict.fromkeys(kernel_sizes)] or [{}]:
            before: tuple[Purifier, ...] = ()
            for number in iterations:
                options = {"iterations": number, **kernel}
                purifier = cast(_Continuing, self.load(options, _Continuing))
                # The cost of gs does not grow with the iterations, so it starts again, without rounding in between.
                if purifier.method.options.get("clamp") is True and "iterations" in purifier.method.tunable:
                    purifier.before = before
                purifier.tried = options
                grid[setting_name(options)] = purifier
                before = (purifier,)
        return grid


def _measure(
    model: LoadedModel,
    data: LabelledImages,
    purifiers: Mapping[str, Purifier],
    attack: Attack,
    threat: ThreatModel,
    out: Path,
    settings: EvaluationSettings,
) -> Evaluation:
    from tqdm import tqdm

    with tqdm(total=2 * len(data), unit="image", desc=f"purifier-{threat.name}", disable=None) as bar:
        return evaluate(
            model,
            data,
            purifiers=purifiers,
            attacks={_ATTACK: attack},
            threats={threat.name: threat},
            out=out,
            settings=settings,
            progress=bar.update,
        )


def _trials(records: Path, grid: Mapping[str, _Continuing]) -> list[Trial]:
    """Reads the trial without a purifier, then the one of each setting."""
    clean, blind = (_correct(records / f"{cell}.jsonl") for cell in (CLEAN, f"blind--{_ATTACK}"))
    options: dict[str, Mapping[str, int]] = {UNDEFENDED: {}} | {name: purifier.tried for name, purifier in grid.items()}
    return [Trial(options=options[name], standard=clean[name], blind=blind[name]) for name in options]


def _correct(records: Path) -> dict[str, tuple[bool, ...]]:
    """Returns whether the prediction for each image is correct, by setting."""
    found = [record for _, record in sorted(read_records(records).items())]
    predictions = [record["predictions"][Variant().key] for record in found]
    return {
        name: tuple(by[name] == record["label"] for by, record in zip(predictions, found, strict=True))
        for name in predictions[0]
    }
