"""How well purifiers give a service with ranked labels its clean answers back, after attacks that are made without it.

"NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024, section 5.4 and
supplement 4, https://arxiv.org/abs/2106.11644. The number of iterations is chosen as there, on pairs of its own: the
highest mean of the prediction accuracy on clean and on attacked images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from purifier._errors import InputError, OptionError, shown
from purifier._identity import model_identity, purifier_identity, versions
from purifier._opening import as_path
from purifier._options import check_fields, check_integer, check_number
from purifier._purifier import Purifier
from purifier._records import Records
from purifier.attacks import PGD, Attack, Ensemble
from purifier.attacks.identity import attack_settings
from purifier.data.images import read_rgb
from purifier.data.sets import ImageSet
from purifier.evaluation.metrics.ranked import RankedScores, ranked_scores
from purifier.evaluation.ranked.client import Asked, Client, Labels
from purifier.evaluation.ranked.pairs import Pair, Search, take
from purifier.methods import innermost

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
        check_number("per_second", self.per_second, low=0, high=1e6)


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
        tried: Number of images that were tried until there were enough pairs.
        choices: For each purifier with a choice, the mean prediction accuracy by number of iterations.
        validation_pairs: Number of pairs of the choices.
        calls: Number of calls of the client in this run.
    """

    settings: dict[str, Any]
    rows: list[RankedRow]
    pairs: int
    tried: int
    choices: dict[str, dict[int, float]]
    validation_pairs: int
    calls: int


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
    progress: Callable[[int], object] = lambda _: None,
) -> RankedEvaluation:
    """Measures a service behind purifiers, under attacks on other models.

    The attacker knows neither the service nor the purifier (transfer). Only pairs of which the service has no label in
    common count, so without a purifier every figure on attacked images is 0. Every answer is recorded in `out`, so the
    same call goes on after a kill and asks for none twice.

    Args:
        client: Maps a PIL image, RGB, to the service's labels as texts, the likeliest first. It encodes, sends and
            tries again by itself.
        data: The images, of one size, such as `unlabelled_images(folder, 224)`.
        surrogates: Classifiers that are attacked together, by the mean of their logits: modules or functions of images
            in [0, 1], in eval mode, on `device`.
        purifiers: The purifiers, by name.
        out: Folder for answers and attacked images.
        name: Name of the service in the records; "" means that of the function.
        attack: The attack. For a targeted one, the goal of each image is a random class.
        iterations: Numbers of iterations to choose from, for purifiers that iterate; () means that each keeps its own.
        settings: How the evaluation runs.
        device: Where images go to be attacked.
        progress: Called with the number of answers since the last call.

    Raises:
        InputError: If the client fails, there are no images or too few pairs, or a surrogate does not classify.
        OptionError: If an option is out of its range, or `out` holds answers of other settings.
    """
    chosen = RankedSettings() if settings is None else settings
    if not isinstance(chosen, RankedSettings):
        raise OptionError(f"expected settings as RankedSettings, got {shown(settings)}")
    if not callable(client):
        raise OptionError(f"expected a function from a picture to labels as client, got {shown(client)}")
    numbers = sorted(set(iterations))
    for number in numbers:
        check_integer("iterations", number, low=1)
    asked = Asked(client, k=chosen.k, per_second=chosen.per_second, progress=progress)
    surrogate = Ensemble(*surrogates).eval()
    stated = {
        "task": "ranked",
        "service": name or getattr(client, "__qualname__", type(client).__qualname__),
        "data": data.fingerprint(),
        "images": len(data),
        "size": data.size,
        "surrogates": [model_identity(one) for one in surrogates],
        "attack": attack_settings(attack),
        "k": chosen.k,
        "seed": chosen.seed,
        "versions": {key: value for key, value in versions().items() if key != "python"},
    }
    return _Run(data, as_path(out, wanted="a folder for the results"), stated, chosen, numbers, asked)(
        purifiers, surrogate, attack, torch.device(device)
    )


@dataclass(frozen=True)
class _Run:
    """One evaluation; see `evaluate_ranked`."""

    data: ImageSet
    out: Path
    stated: dict[str, Any]
    settings: RankedSettings
    iterations: list[int]
    asked: Asked

    def __call__(
        self, purifiers: Mapping[str, Purifier], surrogate: Ensemble, attack: Attack, device: torch.device
    ) -> RankedEvaluation:
        settings = self.settings
        search = Search(
            asked=self.asked, data=self.data, surrogate=surrogate, attack=attack,
            records=self._records("pairs", self.stated), folder=self.out / "attacked", k=settings.k,
            seed=settings.seed, device=device,
        )  # fmt: skip
        # Those of the choice come first, so that more pairs to report on do not change them.
        held = settings.validation_pairs if self.iterations else 0
        pairs, tried = take(search(), held + settings.pairs)
        validation, pairs = pairs[:held], pairs[held:]
        if not pairs:
            raise InputError(
                f"expected more than {held} images whose {settings.k} labels all change under the attack, got "
                f"{len(validation)} of {tried}; attack surrogates closer to the service, at a larger eps, or give more "
                "images"
            )
        rows, choices = [_without(pairs, settings.k)], dict[str, dict[int, float]]()
        for place, (name, given) in enumerate(purifiers.items()):
            # A copy, because the number of iterations is set on it.
            purifier, best = copy.deepcopy(given), None
            if self.iterations and _iterates(purifier):
                means = choices[name] = self._choice(f"{place}", purifier, validation)
                best = purifier.iterations = max(means, key=lambda number: (means[number], -number))
            clean, attacked = self._scores(f"{place}", purifier, pairs)
            rows.append(RankedRow(purifier=name, iterations=best, clean=clean, attacked=attacked))
        described = {name: purifier_identity(purifier) for name, purifier in purifiers.items()}
        return RankedEvaluation(
            settings={**self.stated, **asdict(settings), "purifiers": described}, rows=rows, pairs=len(pairs),
            tried=tried, choices=choices, validation_pairs=len(validation), calls=self.asked.calls,
        )  # fmt: skip

    def _records(self, name: str, head: Mapping[str, Any]) -> Records:
        return Records(self.out / "records" / f"{name}.jsonl", head)

    def _choice(self, name: str, purifier: Purifier, pairs: Sequence[Pair]) -> dict[int, float]:
        """Returns the mean prediction accuracy on pairs by number of iterations."""
        found = {}
        for number in self.iterations:
            purifier.iterations = number
            clean, attacked = self._scores(name, purifier, pairs)
            # Rounded, so that equal means are equal.
            found[number] = round((clean.prediction_accuracy + attacked.prediction_accuracy) / 2, 9)
        return found

    def _scores(self, name: str, purifier: Purifier, pairs: Sequence[Pair]) -> tuple[RankedScores, RankedScores]:
        """Asks for the labels of purified clean and attacked images, and compares them with the clean ones."""
        head = {**self.stated, "purifier": purifier_identity(purifier)}
        records = self._records(f"purified--{name}--{_count(purifier)}", head)

        def labels(pair: Pair, attacked: bool) -> Labels:
            def purified() -> Tensor:
                image = read_rgb(pair.attacked) if attacked else self.data.load([pair.index])[0][0]
                return purifier(image.to(purifier.device))

            return self.asked(records, 2 * pair.index + attacked, purified)

        truths = [pair.labels for pair in pairs]
        clean, wrong = ([labels(pair, attacked) for pair in pairs] for attacked in (False, True))
        return ranked_scores(truths, clean, k=self.settings.k), ranked_scores(truths, wrong, k=self.settings.k)


def _without(pairs: Sequence[Pair], k: int) -> RankedRow:
    """Returns the row without a purifier, which follows from what a pair is."""
    labels = [pair.labels for pair in pairs]
    return RankedRow(
        purifier="none",
        iterations=None,
        clean=ranked_scores(labels, labels, k=k),
        attacked=ranked_scores(labels, [()] * len(labels), k=k),
    )


def _iterates(purifier: Purifier) -> bool:
    return sum("iterations" in leaf.tunable for leaf in innermost(purifier.method)) == 1


def _count(purifier: Purifier) -> int:
    """Returns the number of iterations, for the name of a file; 1 if the purifier does not iterate."""
    return purifier.iterations if _iterates(purifier) else 1
