"""More of our attacks beside independent implementations, on CIFAR-10: many queries are cheap there.

Install the other packages as benchmarks/accuracy/crosscheck_attacks.py says. Then run:

    PURIFIER_KIT=<kit> PYTHONPATH=<folder> python -m benchmarks.accuracy.crosscheck_cifar10

adv-lib needs visdom, websocket-client, tornado, jsonpatch, jsonpointer and networkx besides. It is here because the L2
projection of FMN in foolbox 3.3.4 leaves every point where it is. Rotations and shifts are compared with torchvision's:
foolbox shifts before it rotates, unlike the paper. HopSkipJump of foolbox gets one image at a time, because it divides
the direction of a jump by the norm over the whole batch: with 20 images its jumps are about a quarter as long.

The model is `purifier.reference_model("cifar10-resnet20")`, undefended; the images are evenly spread over the kit's
CIFAR-10 test set. For attacks with a radius, compare the robust accuracy. The others fool nearly every image: compare
the median norm of their perturbations. Finished rows stay in benchmarks/results/crosscheck_cifar10.json, so a run that
was stopped resumes; --again names attacks to measure again.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

import purifier
from benchmarks.accuracy.crosscheck_attacks import BOUND, SEED, Other, predict, resumed
from benchmarks.accuracy.tables import crosscheck_cifar10
from benchmarks.kit import environment, write_result
from benchmarks.recipes.cifar10 import load_part
from purifier import attacks
from purifier.evaluation.metrics.classification import interval

NAME = "crosscheck_cifar10"
EPS, STEPS = 2 / 255, 10
# Largest relative difference of the median norms.
NORM_BOUND = 0.03
Run = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Pair:
    """Our attack, the other implementation, the number of images, and the norm to compare (None: accuracy)."""

    ours: attacks.Attack
    other: Other
    images: int
    norm: float | None = None


class AdvLib(Other):
    """An attack of adv-lib, a function of model, images and labels."""

    def bind(self, model: nn.Module) -> Run:
        """Returns a function from images (N, 3, H, W) and labels (N,) to adversarial images."""
        import adv_lib.attacks

        attack = getattr(adv_lib.attacks, self.attack)
        return lambda x, y: attack(model, x, y, **self.options)


class OneByOne(Other):
    """Another implementation, called with one image at a time. Images that start wrong stay as they are."""

    def bind(self, model: nn.Module) -> Run:
        """Returns a function from images (N, 3, H, W) and labels (N,) to adversarial images."""
        run = super().bind(model)

        def each(images: Tensor, labels: Tensor) -> Tensor:
            found, right = images.clone(), predict(model, images) == labels
            for index in right.nonzero()[:, 0].tolist():
                found[index] = run(images[index : index + 1], labels[index : index + 1])[0]
            return found

        return each


class Affine(Other):
    """The grid of rotations and shifts by torchvision's `affine`; the first version that fools the model is kept."""

    def bind(self, model: nn.Module) -> Run:
        """Returns a function from images (N, 3, H, W) and labels (N,) to adversarial images."""
        turns, moves = (torch.linspace(-1, 1, self.options[key]).tolist() for key in ("angles", "shifts"))

        def run(images: Tensor, labels: Tensor) -> Tensor:
            found = images.clone()
            for angle, down, right in itertools.product(turns, moves, moves):
                # The shifts are floats here, although torchvision's annotation has integers.
                shift: Any = [right * self.options["pixels"], down * self.options["pixels"]]
                moved = affine(images, angle * self.options["degrees"], shift, 1.0, [0.0], InterpolationMode.BILINEAR)
                left = predict(model, found) == labels
                found[left] = moved[left]
            return found

        return run


_STEPS: dict[str, Any] = {"eps": EPS, "alpha": EPS / 4, "steps": STEPS, "decay": 1.0}
_VMI: dict[str, Any] = {**_STEPS, "samples": 5, "beta": 1.5}
_THEIR_VMI: dict[str, Any] = {**_STEPS, "N": 5, "beta": 1.5}
_GRID = {"pixels": 3, "degrees": 30, "shifts": 5, "angles": 5}
_HOP: dict[str, Any] = {"steps": 20, "samples": 100, "gamma": 0.01}
# foolbox divides gamma by the number of values.
_THEIR_HOP = {"steps": 20, "initial_gradient_eval_steps": 100, "gamma": 0.01 * 3 * 32 * 32}
# foolbox first changes its step sizes after 1,000 steps, ours after 10: only long walks can be compared.
_WALK = 10_000
_LINF = torch.inf
PAIRS: dict[str, Pair] = {
    "NI-FGSM": Pair(attacks.NIFGSM(**_STEPS), Other("torchattacks", "NIFGSM", _STEPS), 500),
    "FMN, L2": Pair(attacks.FMN(steps=30), AdvLib("adv-lib", "fmn", {"norm": 2, "steps": 30}), 60, 2),
    "FMN, Linf": Pair(attacks.FMN(steps=30, norm="Linf"), Other("foolbox", "LInfFMNAttack", {"steps": 30}), 60, _LINF),
    "VMI-FGSM": Pair(attacks.VMIFGSM(**_VMI), Other("torchattacks", "VMIFGSM", _THEIR_VMI), 100),
    "Spatial": Pair(attacks.Spatial(shift=3 / 32, angles=5), Affine("torchvision", "affine", _GRID), 100),
    "HopSkipJump, L2": Pair(attacks.HopSkipJump(**_HOP), OneByOne("foolbox", "HopSkipJumpAttack", _THEIR_HOP), 20, 2),
    "VNI-FGSM": Pair(attacks.VNIFGSM(**_VMI), Other("torchattacks", "VNIFGSM", _THEIR_VMI), 100),
    "Boundary": Pair(
        attacks.Boundary(steps=_WALK), Other("foolbox", "BoundaryAttack", {"steps": _WALK, "tensorboard": False}), 20, 2
    ),
    "HopSkipJump, Linf": Pair(
        attacks.HopSkipJump(**_HOP, norm="Linf"),
        OneByOne("foolbox", "HopSkipJumpAttack", {**_THEIR_HOP, "constraint": "linf"}),
        20,
        _LINF,
    ),
}
# The archive has 10,000 files.
_test_set = functools.cache(load_part)


def pictures(count: int) -> tuple[Tensor, Tensor]:
    """Returns images (count, 3, 32, 32) in [0, 1] and labels, evenly spread over the test set."""
    images, labels = _test_set("test")
    chosen = torch.arange(count) * len(labels) // count
    return images[chosen].float() / 255, labels[chosen]


def figures(model: nn.Module, run: Run, images: Tensor, labels: Tensor, norm: float | None) -> dict[str, Any]:
    """Attacks every image; returns counts, norms of perturbations, and time."""
    torch.manual_seed(SEED)
    began = time.monotonic()
    found = run(images, labels).detach()
    seconds = time.monotonic() - began
    before, after = predict(model, images) == labels, predict(model, found) == labels
    fooled, right = before & ~after, int(after.sum())
    norms = (found - images).flatten(1).norm(p=2 if norm is None else norm, dim=1)[fooled]
    return {
        "right": right,
        "robust_accuracy": right / len(labels),
        "interval": interval(right, len(labels)),
        "fooled": int(fooled.sum()),
        "median_norm_of_fooled": float(norms.median()),
        "seconds": round(seconds, 1),
    }


def compare(name: str, model: nn.Module) -> dict[str, Any]:
    """Returns one row of the result file."""
    pair = PAIRS[name]
    images, labels = pictures(pair.images)
    ours = pair.ours.seeded(SEED)
    row: dict[str, Any] = {
        "images": pair.images,
        "standard_accuracy": int((predict(model, images) == labels).sum()) / pair.images,
        "compared": "robust accuracy" if pair.norm is None else f"median L{pair.norm:g} norm",
        "settings": ours.settings(),
        "other": {
            "package": pair.other.package,
            "version": importlib.metadata.version(pair.other.package),
            "attack": pair.other.attack,
            "options": pair.other.options,
        },
        "ours": figures(model, lambda x, y: ours(model, x, y), images, labels, pair.norm),
        "theirs": figures(model, pair.other.bind(model), images, labels, pair.norm),
        "environment": environment(),
    }
    row["difference"] = row["ours"]["robust_accuracy"] - row["theirs"]["robust_accuracy"]
    row["norm_ratio"] = row["ours"]["median_norm_of_fooled"] / row["theirs"]["median_norm_of_fooled"]
    return row


def apart(row: dict[str, Any]) -> bool:
    """Whether the two implementations differ by more than the bound."""
    if row["compared"] == "robust accuracy":
        return bool(abs(row["difference"]) > BOUND)
    return bool(abs(row["norm_ratio"] - 1) > NORM_BOUND)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", nargs="+", default=[], choices=list(PAIRS), help="attacks to measure again")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    model = purifier.reference_model("cifar10-resnet20").requires_grad_(False)
    stated = {"model": "cifar10-resnet20", "seed": SEED, "bounds": {"accuracy": BOUND, "norm": NORM_BOUND}}

    def write(rows: dict[str, Any]) -> None:
        write_result(NAME, {**stated, "rows": rows})

    rows = resumed(NAME, list(PAIRS), args.again, lambda name: compare(name, model), write)
    print(crosscheck_cifar10({"rows": rows}))
    far = [name for name, row in rows.items() if apart(row)]
    if far:
        raise SystemExit(f"expected figures within the bounds of both implementations, got more for {', '.join(far)}")


if __name__ == "__main__":
    main()
