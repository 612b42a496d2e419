"""Measures gad-cifar10-resnet20 under the attacks of GAD's tables, which are bounded in Linf.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.cifar10
    PURIFIER_KIT=<folder> python -m benchmarks.recipes.gad_linf

Blind attacks on the reference ResNet-20 of CIFAR-10, with the paper's eps of 0.031: PGD (8 steps of 0.0075), DeepFool
in Linf, cut to the ball, and the loss of C&W climbed by PGD (30 steps of 0.0075; the paper states no number of steps).
Test images. Result: gad_linf.json. A run that was stopped resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy.evaluations import measured
from benchmarks.kit import environment, weights_of, write_result
from benchmarks.recipes import cifar10_targets
from benchmarks.recipes.cifar10 import CLASSES, extract_part
from benchmarks.recipes.gad_measure import SHIPPED, part_of
from benchmarks.recipes.tables import gad_task
from purifier import Purifier
from purifier.attacks import PGD, Attack, Blind, DeepFool
from purifier.attacks.losses import mean_margin
from purifier.evaluation import labelled_images

NAME, EPS, ALPHA = "gad_linf", 0.031, 0.0075


def attacks() -> dict[str, Attack]:
    return {
        "PGD Linf": PGD(eps=EPS, alpha=ALPHA, steps=8),
        "DeepFool Linf": DeepFool(norm="Linf", eps=EPS),
        "C&W Linf": PGD(eps=EPS, alpha=ALPHA, steps=30, loss=mean_margin),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--work", type=Path, default=Path("runs/gad_linf"), help="folder for records")
    args = parser.parse_args(arguments)
    purifiers = {name: Purifier.from_pretrained(name) for name in ("jpeg", "median", "gs", "ncis", SHIPPED)}
    purifiers[f"{SHIPPED}, jpeg"] = Purifier.chain(purifiers[SHIPPED], "jpeg")
    evaluation = measured(
        "Linf", cifar10_targets.resnet20(),
        labelled_images(extract_part("test", Path("runs/cifar10")), 32, args.images, classes=CLASSES),
        purifiers=purifiers, attacks=attacks(), threats={"blind": Blind()}, out=args.work / str(args.images),
        batch_size=100,
    )  # fmt: skip
    found = {"parts": {"blind": part_of(evaluation)}, "weights": weights_of({SHIPPED: purifiers[SHIPPED]})}
    write_result(NAME, {**found, "environment": environment()})
    print(gad_task(found))


if __name__ == "__main__":
    main()
