"""GAD for detection: trained in front of the kit's YOLOX-Nano on photographs, and measured on COCO images.

    export PURIFIER_KIT=<folder>
    python benchmarks/gad_yolox.py train [--minutes M] [--set KEY=VALUE ...]
    python benchmarks/gad_yolox.py measure [--images 100]

The photographs have no boxes: those that the detector itself is sure of (score of at least 0.5) take their place.
`train` goes on where it was stopped, in --out. `measure` attacks with PGD (eps 8/255, 10 steps of 2/255) on the scores,
the boxes, and both: the bare detector, and the whole by an attacker who knows the purifier; it writes
benchmarks/results/gad_yolox.json. The purifier stays in --out: the detector is the kit's, so it would be of no use
without.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from _kit import environment, kit, write_result
from _training_script import curve, read_changes, run_commands
from _yolox import Detector, loss_of, yolox
from torchvision.ops import box_convert
from tqdm import tqdm

from purifier import Purifier
from purifier._files import write_text
from purifier.attacks import BPDA, PGD, Aware, Blind
from purifier.evaluation import EvaluationSettings, boxed_images, evaluate_detector
from purifier.training._data import read_rgb, to_tensor
from purifier.training.gad import GADTraining, train

LOSSES = ("cls", "loc", "cls+loc")
# The paper has four halvings; two, with a start from the identity, learn in the time that a CPU has.
SETTINGS: dict[str, Any] = {
    "task": "_yolox_task:YoloxTask",
    "filters": 16,
    "blocks": 4,
    "downsamples": 2,
    "norm": "none",
    "start": "identity",
    "size": 192,
    "perceptual_weight": 0.0,
    "critic_filters": 16,
    "learning_rate": 5e-4,
    "detach_clean": True,
    # Its loss is ten times a cross entropy, which the other weights are made for.
    "task_weight": 0.1,
    "warmup_steps": 50,
    "batch_size": 4,
    "steps": 350,
    "ema_decay": 0.99,
    "precision": "no",
    "device": "cpu",
    "validation_images": 24,
    "validate_every": 50,
    "checkpoint_every": 50,
}


@torch.no_grad()
def label(detector: Detector, photos: Path, file: Path) -> Path:
    """Writes what the detector is sure of in each photograph as a COCO file, unless that is done."""
    if file.exists():
        return file
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, path in enumerate(tqdm(sorted(photos.glob("*.jpg")), desc="boxes", unit="image")):
        (found,) = detector([to_tensor(read_rgb(path))])
        images.append({"id": number, "file_name": path.name})
        sure = found["scores"] >= 0.5
        pairs = zip(box_convert(found["boxes"][sure], "xyxy", "xywh"), found["labels"][sure], strict=True)
        boxes += [{"image_id": number, "bbox": box.tolist(), "category_id": int(kind)} for box, kind in pairs]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"images": images, "annotations": boxes}))
    return file


def learn(args: argparse.Namespace) -> None:
    # The settings name the task by its module.
    sys.path.insert(0, str(Path(__file__).parent))
    detector, photos = yolox(), kit() / "photos"
    places = {"data": str(photos), "annotations": str(label(detector, photos, args.out / "boxes.json"))}
    config = GADTraining(**{**SETTINGS, **places, **read_changes(GADTraining, args.set)})
    print(train(config, args.out, model=detector, minutes=args.minutes))


def measure(args: argparse.Namespace) -> None:
    detector, folder = yolox(), kit() / "coco_val100"
    gad, jpeg = Purifier.from_pretrained(args.out / "gad"), Purifier.from_pretrained("jpeg")
    blind = {"jpeg": jpeg, "gs i=3": Purifier.from_pretrained("gs", iterations=3), "gad": gad}
    both = Purifier.chain(gad, jpeg)
    blind["gad, jpeg"] = both
    parts = {
        "blind": (blind, {"blind": Blind()}, args.images),
        "aware": ({"gad": gad}, {"aware": Aware()}, args.aware_images),
        "bpda": ({"gad, jpeg": both}, {"bpda": BPDA()}, args.aware_images),
    }
    found: dict[str, Any] = {}
    for part, (purifiers, threats, count) in parts.items():
        for kind in LOSSES:
            with tqdm(desc=f"{part} {kind}", unit="image") as bar:
                evaluation = evaluate_detector(
                    detector,
                    boxed_images(folder / "images", None, count, annotations=folder / "instances.json"),
                    loss=loss_of(detector, kind),
                    purifiers=purifiers,
                    attacks={f"PGD 8/255, {kind}": PGD(eps=8 / 255, alpha=2 / 255, steps=10)},
                    threats=threats,
                    out=args.work / f"{part}-{kind}-{count}",
                    settings=EvaluationSettings(batch_size=4, probe_images=0, pictures=2),
                    progress=bar.update,
                )
            rows = [row.to_dict() for row in evaluation.rows]
            found[f"{part} {kind}"] = {"settings": evaluation.settings, "rows": rows}
            for row in rows:
                print(part, row["purifier"], row["attack"], row["robust"])
    write_result("gad_yolox", {"parts": found, "training": curve(args.out), "environment": environment()})


def main() -> None:
    run_commands(__doc__, learn, measure, Path("runs/gad_yolox"), images=100, aware_images=10)


if __name__ == "__main__":
    main()
