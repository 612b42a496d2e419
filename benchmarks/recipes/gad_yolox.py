"""GAD for detection: trained in front of the kit's YOLOX-Nano on photographs, and measured on COCO images.

    export PURIFIER_KIT=<folder>
    python -m benchmarks.recipes.gad_yolox train [--minutes M] [--set init=runs/gad_camvid/gad] [--set KEY=VALUE ...]
    python -m benchmarks.recipes.gad_yolox measure [--images 100]

The photographs have no boxes: those that the detector itself is sure of (score of at least 0.5) take their place. They
are small: while training the detector sees them at 160 pixels for 240, about as much smaller as it sees the images of
COCO, so that what an attack changes looks to the purifier as it will there. It may start from a generator that was
trained in front of another model. After `start`, which learns to undo attacks, `finish` draws it nearer to clean
images.

`train` goes on where it was stopped, in --out. `measure` attacks with PGD (eps 8/255, 10 steps of 2/255) on the scores,
the boxes, and both: the bare detector, and the whole by an attacker who knows the purifier; it writes
benchmarks/results/gad_yolox.json. The purifier stays in --out: the detector is the kit's, so it would be of no use
without.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torchvision.ops import box_convert
from tqdm import tqdm

from benchmarks.accuracy.yolox import Detector, loss_of, yolox
from benchmarks.kit import environment, kit, write_result
from benchmarks.recipes.gad_measure import evaluated, parts
from benchmarks.recipes.training_script import curve, joined, read_changes, run_commands
from benchmarks.recipes.yolox_task import KINDS
from purifier._files import write_text
from purifier.attacks import PGD
from purifier.data.crops import resized
from purifier.data.images import read_pixels, to_tensor
from purifier.evaluation import EvaluationSettings, boxed_images, evaluate
from purifier.training.gad import GADTraining, train

# Side of what the detector sees of a sample while training, in pixels; COCO's 640 become 416.
SIDE = 160
# The paper has four halvings; two, with a start from the identity, learn in the time that a CPU has.
SETTINGS: dict[str, Any] = {
    "task": "benchmarks.recipes.yolox_task:YoloxTask",
    "filters": 16,
    "blocks": 4,
    "downsamples": 2,
    "norm": "none",
    "start": "identity",
    "size": 240,
    "perceptual_weight": 0.0,
    "critic_filters": 16,
    "learning_rate": 5e-4,
    "detach_clean": True,
    "task_weight": 0.5,
    "warmup_steps": 50,
    "batch_size": 3,
    "steps": 2000,
    "ema_decay": 0.99,
    "precision": "no",
    "device": "cpu",
    "validation_images": 24,
    "validate_every": 200,
    "checkpoint_every": 50,
}
FINISH: dict[str, Any] = {"reconstruction_weight": 30.0, "steps": 400, "validate_every": 50, "seed": 1}


@torch.no_grad()
def label(detector: Detector, photos: Path, size: int, file: Path) -> Path:
    """Writes what the detector is sure of in photographs, seen at the samples' size, as COCO, unless that is done."""
    if file.exists():
        return file
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, path in enumerate(tqdm(sorted(photos.glob("*.jpg")), desc="boxes", unit="image")):
        pixels = read_pixels(path)
        (found,) = detector([to_tensor(resized(pixels, size, size))])
        images.append({"id": number, "file_name": path.name})
        sure = found["scores"] >= 0.5
        found_boxes = found["boxes"][sure] * torch.tensor([pixels.shape[1] / size, pixels.shape[0] / size] * 2)
        pairs = zip(box_convert(found_boxes, "xyxy", "xywh"), found["labels"][sure], strict=True)
        boxes += [{"image_id": number, "bbox": box.tolist(), "category_id": int(kind)} for box, kind in pairs]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"images": images, "annotations": boxes}))
    return file


def learn(args: argparse.Namespace) -> None:
    # The settings name the task by its module.
    detector, photos = yolox(side=SIDE), kit() / "photos"
    changes = read_changes(GADTraining, args.set)
    size = {**SETTINGS, **changes}["size"]
    places = {"data": str(photos), "annotations": str(label(detector, photos, size, args.out / f"boxes-{size}.json"))}
    start = GADTraining(**{**SETTINGS, **places, **changes})
    trained = train(start, args.out / "start", model=detector, minutes=args.minutes)
    # The last step of a training is validated, whatever its number.
    if [entry["step"] for entry in curve(args.out / "start")["history"]][-1:] == [start.steps]:
        finish = GADTraining(**{**SETTINGS, **FINISH, **places, **changes, "init": str(trained)})
        trained = train(finish, args.out / "finish", model=detector, minutes=args.minutes)
    print(trained)


def measure(args: argparse.Namespace) -> None:
    detector, folder = yolox(), kit() / "coco_val100"
    found: dict[str, Any] = {}
    gad = args.out / "finish" / "gad"
    for part, (purifiers, threats, count) in parts(gad, 3, args.images, args.aware_images).items():
        for kind in KINDS:
            measured = partial(
                evaluate,
                detector,
                boxed_images(folder / "images", None, count, annotations=folder / "instances.json"),
                loss=loss_of(detector, kind),
                purifiers=purifiers,
                attacks={f"PGD 8/255, {kind}": PGD(eps=8 / 255, alpha=2 / 255, steps=10)},
                threats=threats,
                out=args.work / f"{part}-{kind}-{count}",
                settings=EvaluationSettings(batch_size=4, probe_images=0, pictures=2),
            )
            found[f"{part} {kind}"] = evaluated(f"{part} {kind}", measured)
    training = joined(curve(args.out / "start"), curve(args.out / "finish"))
    write_result("gad_yolox", {"parts": found, "training": training, "environment": environment()})


def main() -> None:
    run_commands(__doc__, learn, measure, Path("runs/gad_yolox"), images=100, aware_images=10)


if __name__ == "__main__":
    main()
