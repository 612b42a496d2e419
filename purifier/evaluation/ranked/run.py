"""How well purifiers give a service with ranked labels its clean answers back, after attacks that are made without it.

"NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024, section 5.4 and
supplement 4, https://arxiv.org/abs/2106.11644. The number of iterations is chosen as there, on pairs of its own: the
highest mean of the prediction accuracy on clean and on attacked images.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from purifier._errors import InputError, OptionError, shown
from purifier._identity import model_identity, purifier_identity, versions_of_figures
from purifier._opening import as_path
from purifier._options import check_fields, check_integer, check_number, check_seed
from purifier._purifier import Purifier
from purifier._random import isolated_randomness, seed_of
from purifier._records import Records
from purifier.attacks import PGD, Attack
from purifier.attacks.identity import attack_settings
from purifier.data.images import read_rgb
from purifier.data.outputs import check_outside
from purifier.data.sets import ImageSet
from purifier.evaluation.metrics.ranked import RankedScores, ranked_scores
from purifier.evaluation.plan import UNDEFENDED
from purifier.evaluation.ranked.checks import (
    check_kinds,
    check_purifiers,
    service_name,
    together,
)
from purifier.evaluation.ranked.client import Asked, Client, Labels
from purifier.evaluation.ranked.pairs import Left, Pair, Search, take
from purifier.evaluation.run import remove_results
from purifier.inference.precision import resolve_device

# The attack of the paper.
ATTACK = PGD(eps=16 / 255, alpha=1.6 / 255, steps=10, targeted=True)


@dataclass(frozen=True, kw_only=True)
class RankedSettings:
    """How an evaluation of a service runs.

    Attributes:
        pairs: Number of pairs to report on.
        validation_pairs: Number of further pairs to choose the iterations on.
        k: Number of labels that count, the likeliest ones.
        per_second: Largest number of calls of the client a second; 0 means no limit.
        seed: Seed of the order of the images, of their goals and of the attacks.

    Raises:
        OptionError: If an option is out of its range.
    """

    pairs: int = 100
    validation_pairs: int = 20
    k: int = 5
    per_second: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("pairs", "validation_pairs", "k"):
            check_integer(name, getattr(self, name), low=1)
        check_seed(self.seed)
        if self.per_second:
            check_number("per_second", self.per_second, low=1e-4, high=1e6)


@dataclass(frozen=True, kw_only=True)
class RankedRow:
    """The figures of one purifier.

    Attributes:
        purifier: Its name; "none" without one.
        iterations: The number of iterations that was chosen; None if it was not chosen.
        clean: What the service says of purified clean images, compared with the clean ones.
        attacked: What it says of purified attacked images.
    """

    purifier: str
    iterations: int | None
    clean: RankedScores
    attacked: RankedScores

    @property
    def mean(self) -> float:
        """Mean of the prediction accuracy on clean and on attacked images."""
        return (self.clean.prediction_accuracy + self.attacked.prediction_accuracy) / 2

    def to_dict(self) -> dict[str, Any]:
        """Returns everything, ready for JSON."""
        return {
            "purifier": self.purifier,
            "iterations": self.iterations,
            "clean": self.clean.to_dict(),
            "attacked": self.attacked.to_dict(),
            "mean": self.mean,
        }


@dataclass(frozen=True, kw_only=True)
class RankedEvaluation:
    """The results.

    Attributes:
        settings: Everything that the figures depend on.
        rows: One for no purifier, then one for each.
        pairs: Number of pairs of the rows.
        left: How many of the images that were tried are in no pair, by the reason.
        choices: For each purifier with a choice, the mean prediction accuracy by number of iterations.
        validation_pairs: Number of pairs of the choices.
        calls: Number of calls of the client in this run.
    """

    settings: dict[str, Any]
    rows: list[RankedRow]
    pairs: int
    left: dict[str, int]
    choices: dict[str, dict[int, float]]
    validation_pairs: int
    calls: int

    @property
    def tried(self) -> int:
        """Number of images that were tried until there were enough pairs."""
        return self.pairs + self.validation_pairs + sum(self.left.values())


def evaluate_ranked(
    client: Client,
    data: ImageSet,
    *,
    surrogates: Sequence[Callable[..., Any]],
    purifiers: Mapping[str, Purifier],
    out: str | Path,
    name: str = "",
    attack: Attack = ATTACK,
    iterations: Sequence[int] = (),
    settings: RankedSettings | None = None,
    device: str | torch.device = "cpu",
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> RankedEvaluation:
    """Measures a service behind purifiers, under attacks on other models.

    The attacker knows neither the service nor the purifier (transfer). Only pairs of which the service has no label in
    common count, so without a purifier every figure on attacked images is 0. Every answer is recorded in `out`, so the
    same call goes on after a kill, and asks at most for the answer again that it was waiting for.

    Args:
        client: Maps a PIL image, RGB, to the service's labels as texts, the likeliest first. It encodes, sends and
            tries again by itself.
        data: The images, such as `unlabelled_images(folder, 224)`. Those that cannot be read are left out.
        surrogates: Classifiers that are attacked together, by the mean of their logits: modules or functions of images
            in [0, 1], in eval mode, on `device`.
        purifiers: The purifiers, by name.
        out: Folder for answers and attacked images.
        name: Name of the service, which tells it from others in the records; "" means that of the function.
        attack: The attack. For a targeted one, the goal of each image is a random class.
        iterations: Numbers of iterations to choose from, for purifiers of which one method iterates; () means that
            each keeps its own.
        settings: How the evaluation runs.
        device: Where images go to be attacked.
        overwrite: Whether to remove what an evaluation left in `out` first; every answer is asked for again.
        progress: Called with the number of answers since the last call.

    Raises:
        InputError: If the client fails, there are no images or too few pairs, or a surrogate does not classify.
        OptionError: If an option is out of its range, or `out` holds answers of other settings.
    """
    chosen = RankedSettings() if settings is None else settings
    if not isinstance(chosen, RankedSettings):
        raise OptionError(f"expected settings as RankedSettings, got {shown(settings)}")
    check_kinds(client, data, attack)
    folder, place = as_path(out, wanted="a folder for the results"), resolve_device(device)
    check_outside(folder, data.root)
    numbers = check_purifiers(purifiers, iterations)
    surrogate = together(surrogates, data, place)
    stated = {
        "task": "ranked",
        "service": service_name(client, name),
        "data": data.fingerprint(),
        "images": len(data),
        "size": data.size,
        "surrogates": [model_identity(one) for one in surrogates],
        "attack": attack_settings(attack),
        "k": chosen.k,
        "seed": chosen.seed,
        "versions": versions_of_figures(),
    }
    if overwrite:
        remove_results(folder)
    asked = Asked(client, k=chosen.k, per_second=chosen.per_second, progress=progress)
    run = _Run(data, folder, stated, chosen, numbers, asked)
    search = Search(
        asked=asked, data=data, surrogate=surrogate, attack=attack, records=run.records("pairs", {}),
        folder=folder / "pictures" / "attacked", k=chosen.k, seed=chosen.seed, device=place,
    )  # fmt: skip
    return run(purifiers, search)


@dataclass(frozen=True)
class _Run:
    """One evaluation; see `evaluate_ranked`."""

    data: ImageSet
    out: Path
    stated: dict[str, Any]
    settings: RankedSettings
    iterations: list[int]
    asked: Asked

    def __call__(self, purifiers: Mapping[str, Purifier], search: Search) -> RankedEvaluation:
        settings = self.settings
        # Those of the choice come first, so that more pairs to report on do not change them.
        held = (
            settings.validation_pairs
            if self.iterations and any(hasattr(one, "iterations") for one in purifiers.values())
            else 0
        )
        pairs, left = take(search(), held + settings.pairs)
        validation, pairs = pairs[:held], pairs[held:]
        if not pairs:
            raise InputError(_too_few(len(validation), held, left, settings.k))
        rows, choices = [_without(pairs, settings.k)], dict[str, dict[int, float]]()
        for name, given in purifiers.items():
            # A copy, because the number of iterations is set on it.
            purifier, best = copy.deepcopy(given), None
            if self.iterations and hasattr(purifier, "iterations"):
                means = choices[name] = self._choice(purifier, validation)
                best = purifier.iterations = max(means, key=lambda number: (means[number], -number))
            clean, attacked = self._scores(purifier, pairs)
            rows.append(RankedRow(purifier=name, iterations=best, clean=clean, attacked=attacked))
        described = {name: purifier_identity(purifier) for name, purifier in purifiers.items()}
        return RankedEvaluation(
            settings={**self.stated, **asdict(settings), "iterations": self.iterations, "purifiers": described},
            rows=rows, pairs=len(pairs), left={why.value: count for why, count in left.items()}, choices=choices,
            validation_pairs=len(validation), calls=self.asked.calls,
        )  # fmt: skip

    def records(self, name: str, head: Mapping[str, Any]) -> Records:
        """Opens the records of the pairs, or of a purifier."""
        return Records(
            self.out / "records" / f"{name}.jsonl", {**self.stated, **head},
            instead="choose another --out, or pass --overwrite, which asks for everything again",
        )  # fmt: skip

    def _choice(self, purifier: Purifier, pairs: Sequence[Pair]) -> dict[int, float]:
        """Returns the mean prediction accuracy on pairs by number of iterations."""
        found = {}
        for number in self.iterations:
            purifier.iterations = number
            clean, attacked = self._scores(purifier, pairs)
            # Rounded, so that equal means are equal.
            found[number] = round((clean.prediction_accuracy + attacked.prediction_accuracy) / 2, 9)
        return found

    def _scores(self, purifier: Purifier, pairs: Sequence[Pair]) -> tuple[RankedScores, RankedScores]:
        """Asks for the labels of purified clean and attacked images, and compares them with the clean ones."""
        identity = purifier_identity(purifier)
        # Named after what the purifier is, so that its answers are found again wherever it stands in the list.
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        records = self.records(f"purified--{digest}", {"purifier": identity})

        def labels(pair: Pair, attacked: bool) -> Labels:
            def purified() -> Tensor:
                image = read_rgb(pair.attacked) if attacked else self.data.load([pair.index])[0][0]
                seed = seed_of(self.settings.seed, "purified", pair.index, attacked)
                with isolated_randomness(purifier.device, seed=seed):
                    return purifier(image.to(purifier.device))

            return self.asked(records, 2 * pair.index + attacked, purified)

        truths = [pair.labels for pair in pairs]
        clean, wrong = ([labels(pair, attacked) for pair in pairs] for attacked in (False, True))
        return ranked_scores(truths, clean, k=self.settings.k), ranked_scores(truths, wrong, k=self.settings.k)


def _without(pairs: Sequence[Pair], k: int) -> RankedRow:
    """Returns the row without a purifier, which follows from what a pair is."""
    labels = [pair.labels for pair in pairs]
    return RankedRow(
        purifier=UNDEFENDED,
        iterations=None,
        clean=ranked_scores(labels, labels, k=k),
        attacked=ranked_scores(labels, [()] * len(labels), k=k),
    )


def _too_few(found: int, held: int, left: Counter[Left], k: int) -> str:
    """Returns the message for images without enough pairs."""
    why = ", ".join(f"{count} with {one.value}" for one, count in left.items())
    advice = (
        "give more images, or attack surrogates closer to the service or at a larger eps"
        if left[Left.SHARED] >= left[Left.FEW]
        else f"compare fewer labels than {k}"
    )
    return (
        f"expected more than {held} images whose labels all change under the attack, got {found} (and {why}); {advice}"
    )
