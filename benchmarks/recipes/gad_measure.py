"""Measures trained GAD purifiers in front of their models.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.gad_measure camvid runs/gad_camvid
    PURIFIER_KIT=<folder> python -m benchmarks.recipes.gad_measure yolox runs/gad_yolox-1 runs/gad_yolox-2
    PURIFIER_KIT=<folder> python -m benchmarks.recipes.gad_measure resnet20|vgg8 runs/gad_cifar10/*

The folders are those of `purifier train gad`. Each part of a result has one threat model: attacks on the bare model
(blind), with exact gradients through the purifier (aware), and with BPDA for the chain of GAD and jpeg, which has none.

camvid, yolox   The segmenter and the detector of the kit: BIM (eps 0.03, 4 steps of 0.01, as the paper tests), and PGD
                (eps 8/255, 10 steps of 2/255) on scores, boxes and both. Several folders are the stages of one
                training; the last has the purifier. Results: gad_camvid.json, gad_yolox.json.
resnet20, vgg8  The CIFAR-10 classifiers: PGD, DeepFool and C&W, as the paper tests, behind the bundled
                gad-cifar10-resnet20 and every folder's purifier, those for the other classifier too (the paper's Table
                15). Results: gad_cifar10_<classifier>_<part>.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.evaluations import measured
from benchmarks.accuracy.yolox import KINDS, loss_of, yolox
from benchmarks.kit import environment, kit, model, write_result
from benchmarks.recipes import cifar10_targets
from benchmarks.recipes.cifar10 import CLASSES, extract_part
from benchmarks.recipes.tables import gad_accuracy, gad_task, gad_task_targets
from purifier import Purifier
from purifier.attacks import BIM, BPDA, CW, PGD, Attack, Aware, Blind, DeepFool
from purifier.attacks.threats import ThreatModel
from purifier.evaluation import Evaluation, boxed_images, labelled_images, masked_images

SHIPPED = "gad-cifar10-resnet20"
# Images of the blind and of the other parts, and iterations of the gs beside GAD.
COUNTS = {"camvid": (117, 20, 5), "yolox": (100, 10, 3), "resnet20": (1000, 200, 7), "vgg8": (1000, 200, 7)}
_PLACES = ("data", "masks", "annotations", "init", "teacher")
Parts = dict[str, tuple[dict[str, Purifier], ThreatModel, int]]


def curve(runs: Sequence[Path]) -> dict[str, Any]:
    """Returns how a training went: settings without places, validations and seconds; several runs are its stages."""
    settings: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    seconds = 0.0
    for run in runs:
        state = torch.load(run / "checkpoint.pt", weights_only=True)
        done = history[-1]["step"] if history else 0
        settings.append({name: value for name, value in state["settings"].items() if name not in _PLACES})
        history += [{**entry, "step": done + entry["step"]} for entry in state["history"]]
        seconds += state["seconds"]
    return {"settings": settings if len(runs) > 1 else settings[0], "history": history, "seconds": seconds}


def parts_of(own: dict[str, Purifier], others: dict[str, Purifier], images: int, aware_images: int) -> Parts:
    """Returns the purifiers, threat model and number of images of each part.

    GAD (`own`) is also measured with jpeg after it; the `others` are measured under the blind attacks only.
    """
    chained = {f"{name}, jpeg": Purifier.chain(purifier, "jpeg") for name, purifier in own.items()}
    return {
        "blind": ({**others, **own, **chained}, Blind(), images),
        "aware": (own, Aware(), aware_images),
        "bpda": (chained, BPDA(), aware_images),
    }


def others(iterations: int) -> dict[str, Purifier]:
    gs = Purifier.from_pretrained("gs", iterations=iterations)
    return {"jpeg": Purifier.from_pretrained("jpeg"), f"gs i={iterations}": gs}


def part_of(found: Evaluation) -> dict[str, Any]:
    return {"settings": found.settings, "rows": [row.to_dict() for row in found.rows]}


def measure_camvid(parts: Parts, work: Path) -> dict[str, Any]:
    folder, found = kit() / "camvid", {}
    for part, (purifiers, threat, count) in parts.items():
        data = masked_images(folder / "test", None, count, masks=folder / "test_labels")
        evaluation = measured(
            part, model("lraspp_camvid"), data, ignore_index=11, purifiers=purifiers, threats={part: threat},
            attacks={"BIM 0.03, 4 steps": BIM(eps=0.03, alpha=0.01, steps=4)}, out=work / f"{part}-{count}",
            batch_size=4,
        )  # fmt: skip
        found[part] = part_of(evaluation)
    return found


def measure_yolox(parts: Parts, work: Path) -> dict[str, Any]:
    detector, folder, found = yolox(), kit() / "coco_val100", {}
    for part, (purifiers, threat, count) in parts.items():
        data = boxed_images(folder / "images", None, count, annotations=folder / "instances.json")
        for kind in KINDS:
            evaluation = measured(
                f"{part} {kind}", detector, data, loss=loss_of(detector, kind), purifiers=purifiers,
                threats={part: threat}, attacks={f"PGD 8/255, {kind}": PGD(eps=8 / 255, alpha=2 / 255, steps=10)},
                out=work / f"{part}-{kind}-{count}", batch_size=4,
            )  # fmt: skip
            found[f"{part} {kind}"] = part_of(evaluation)
    return found


def measure_cifar10(target: str, runs: Sequence[Path], args: argparse.Namespace) -> None:
    """Measures and writes every part in front of a CIFAR-10 classifier."""
    network = getattr(cifar10_targets, target)()
    found = {SHIPPED: Purifier.from_pretrained(SHIPPED)}
    found |= {f"gad {run.name}": Purifier.from_pretrained(run / "gad") for run in runs}
    plain = {name: Purifier.from_pretrained(name) for name in ("jpeg", "median", "gs", "ncis")}
    parts = parts_of(found, plain, args.images, args.aware_images)
    pgd: dict[str, Attack] = {"PGD 8/255": PGD(eps=8 / 255, alpha=0.0075, steps=8)}
    more: dict[str, Attack] = {"DeepFool": DeepFool(), "C&W L2": CW(steps=60, c=1.0, search=3)}
    for part, (purifiers, threat, count) in parts.items():
        if part != "blind":
            purifiers = {name: purifier for name, purifier in purifiers.items() if target in name}
        evaluation = measured(
            f"{target} {part}", network,
            labelled_images(extract_part("test", Path("runs/cifar10")), 32, count, classes=CLASSES),
            purifiers=purifiers, threats={part: threat}, out=args.work / f"{part}-{count}", batch_size=100,
            attacks={**pgd, **more} if part == "blind" else pgd,
        )  # fmt: skip
        write_result(f"gad_cifar10_{target}_{part}", {**part_of(evaluation), "environment": environment()})
    print(gad_accuracy(target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=COUNTS)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of trainings")
    parser.add_argument("--images", type=int, help="number of images under blind attacks")
    parser.add_argument("--aware-images", type=int, help="number of images under the other attacks")
    parser.add_argument("--work", type=Path, help="folder for records")
    args = parser.parse_args()
    images, aware_images, iterations = COUNTS[args.target]
    args.images, args.aware_images = args.images or images, args.aware_images or aware_images
    args.work = args.work or Path("runs/gad_measured") / args.target
    if args.target not in ("camvid", "yolox"):
        measure_cifar10(args.target, args.runs, args)
        return
    gad = Purifier.from_pretrained(args.runs[-1] / "gad")
    parts = parts_of({"gad": gad}, others(iterations), args.images, args.aware_images)
    measure = measure_camvid if args.target == "camvid" else measure_yolox
    result = {"parts": measure(parts, args.work), "training": curve(args.runs), "environment": environment()}
    write_result(f"gad_{args.target}", result)
    print(gad_task(result), gad_task_targets(result), sep="\n\n")


if __name__ == "__main__":
    main()
