"""Measures a purifier that was trained against attackers who know it (`gad-aware.yaml`), in front of its classifier.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.cifar10
    PURIFIER_KIT=<folder> python -m benchmarks.recipes.aware_measure runs/gad-aware/gad --part auto-8
    PURIFIER_KIT=<folder> python -m benchmarks.recipes.aware_measure runs/gad-aware/gad --part auto-4
    PURIFIER_KIT=<folder> python -m benchmarks.recipes.aware_measure runs/gad-aware/gad --part steps --images 200

auto-8  Standard AutoAttack through purifier and classifier with exact gradients at 8/255, and blind PGD at 8/255.
        Hours on one core; a run that was stopped resumes.
auto-4  The same at 4/255.
steps   PGD through both at 8/255 with 10, 20, 50 and 100 steps, and with 5 restarts of 50: more steps must not find
        much more than few.

The images are from the test set of CIFAR-10, which took no part in the training or its validation. They are attacked in
slices of 100, and the result is written after each slice, so that a larger --images, up to 1,000, extends it.
Results: gad_aware_<part>.json, with _ for -.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy.evaluations import measured
from benchmarks.kit import environment, weights_of, write_result
from benchmarks.markdown import MISSING, in_words, percent, table
from benchmarks.recipes import cifar10_targets
from benchmarks.recipes.cifar10 import CLASSES, extract_part
from benchmarks.recipes.gad_measure import part_of
from purifier import Purifier
from purifier.attacks import PGD, Attack, AutoAttack, Aware, Blind
from purifier.data.sets import LabelledImages
from purifier.evaluation import Row, labelled_images
from purifier.evaluation.rows import WORST_CASE

# The trained purifier's name in the results, and that of its folder in weights/.
NAME, SHIPPED = "gad-aware", "gad-cifar10-resnet20-aware"
PARTS = ("gad_aware_auto_8", "gad_aware_auto_4", "gad_aware_steps")
EPS = (8, 4)
STEPS = (10, 20, 50, 100)
# Images in a slice, and the most slices.
SLICE, SLICES = 100, 10
COUNTS = ("images", "standard", "robust", "fooled", "restored")


def pgd(steps: int, restarts: int = 1, eps: float = 8 / 255) -> PGD:
    """Returns PGD with steps of eps / 4."""
    return PGD(eps=eps, alpha=eps / 4, steps=steps, restarts=restarts)


def parts() -> dict[str, dict[str, dict[str, Attack]]]:
    """Returns the attacks of each part by threat model and name."""
    steps: dict[str, Attack] = {f"PGD 8/255, {number} steps": pgd(number) for number in STEPS}
    auto: dict[str, dict[str, dict[str, Attack]]] = {
        f"auto-{eps}": {
            "blind": {f"PGD {eps}/255": pgd(10, eps=eps / 255)},
            "aware": {f"AutoAttack {eps}/255": AutoAttack(eps=eps / 255)},
        }
        for eps in EPS
    }
    return {
        **auto,
        "steps": {"aware": {**steps, "PGD 8/255, 50 steps, 5 restarts": pgd(50, restarts=5)}},
    }


def markdown(*results: Mapping[str, Any]) -> str:
    """The table of result files: a row for each attack."""
    cells: dict[tuple[str, str, int], dict[str, str]] = {}
    for row in (row for found in results for row in found["rows"] if row["threat"] != WORST_CASE):
        entry = Row.from_dict(row)
        key = (entry.settings.get("attack_key", "none"), entry.threat, entry.images)
        cells.setdefault(key, {})[entry.purifier] = percent(entry.robust_accuracy, entry.robust_interval)
    if not cells:
        return MISSING
    # Clean images once, of the result with the most.
    clean = max(key for key in cells if key[1] == "none")
    lines = [
        [name, threat, str(images), found.get("none", "as blind"), found[NAME]]
        for (name, threat, images), found in cells.items()
        if threat != "none" or (name, threat, images) == clean
    ]
    return table(["attack", "attacker", "n", "ResNet-20 alone, %", f"behind {SHIPPED}, %"], lines)


def in_short(found: Mapping[str, Any]) -> str:
    """A sentence of the result of `auto-8`."""
    rows = {row["threat"]: Row.from_dict(row) for row in found["rows"] if row["purifier"] == NAME}
    if "aware" not in rows:
        return MISSING
    aware = rows["aware"]
    robust = in_words(aware.robust_accuracy, aware.robust_interval)
    clean = in_words(aware.standard_accuracy, aware.standard_interval)
    return (
        f"Behind `{SHIPPED}`, {robust} of {aware.images:,} test images of CIFAR-10 stay right under AutoAttack at "
        f"8/255 through purifier and model, and {clean} are right without an attack."
    )


def slice_of(part: str, purifier: Purifier, data: LabelledImages, work: Path) -> dict[str, Any]:
    """Attacks some images with the attacks of a part; returns the settings of each threat model, and all rows."""
    threats = {"blind": Blind(), "aware": Aware()}
    found: dict[str, Any] = {"rows": [], "settings": {}}
    for name, attacks in parts()[part].items():
        evaluation = measured(
            f"{part} {name}", cifar10_targets.resnet20(), data, purifiers={NAME: purifier}, attacks=attacks,
            threats={name: threats[name]}, out=work / name, batch_size=50,
        )  # fmt: skip
        made = part_of(evaluation)
        found["settings"][name] = made["settings"]
        found["rows"] += made["rows"]
    return found


def added(slices: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """Adds up the counts of slices, which have the same rows in the same order."""
    found = []
    for rows in zip(*slices, strict=True):
        counts = {name: sum(getattr(row, name) for row in rows) for name in COUNTS}
        found.append(replace(rows[0], milliseconds=None, **counts).to_dict())
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("purifier", type=Path, help="folder of the trained purifier")
    parser.add_argument("--part", choices=list(parts()), default="auto-8")
    parser.add_argument(
        "--images", type=int, default=1000, choices=range(SLICE, SLICE * SLICES + 1, SLICE), metavar="N"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/aware_measured"), help="folder for records")
    args = parser.parse_args(arguments)
    purifier = Purifier.from_pretrained(args.purifier, device="cpu", dtype="float32")
    data = labelled_images(extract_part("test", Path("runs/cifar10")), 32, SLICE * SLICES, classes=CLASSES)
    made = {"weights": weights_of({SHIPPED: purifier}), "environment": environment()}
    slices: list[list[Row]] = []
    for number in range(args.images // SLICE):
        # Neighbours in the set have the same class.
        chosen = data.pick(range(number, len(data), SLICES))
        part = slice_of(args.part, purifier, chosen, args.work / f"{args.part}-{number}")
        slices.append([Row.from_dict(row) for row in part["rows"]])
        found = {"rows": added(slices), "settings": part["settings"], **made}
        write_result(f"gad_aware_{args.part.replace('-', '_')}", found)
    print(markdown(found))


if __name__ == "__main__":
    main()
