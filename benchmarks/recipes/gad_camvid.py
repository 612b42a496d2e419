"""GAD for segmentation: trained in front of the kit's LR-ASPP on CamVid, and measured on the test part.

    export PURIFIER_KIT=<folder>
    python -m benchmarks.recipes.gad_camvid train [--minutes M] [--set KEY=VALUE ...]
    python -m benchmarks.recipes.gad_camvid measure [--images 117]

`train` goes on where it was stopped, in --out. `measure` attacks with BIM (eps 0.03, 4 steps of 0.01, the paper's when
testing): the bare model, and the whole by an attacker who knows the purifier; it writes
benchmarks/results/gad_camvid.json. The purifier stays in --out: LR-ASPP is the kit's, so it would be of no use without.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.kit import environment, kit, model, write_result
from benchmarks.recipes.gad_measure import evaluated, parts
from benchmarks.recipes.training_script import curve, read_changes, run_commands
from purifier.attacks import BIM
from purifier.attacks.base import Attack
from purifier.evaluation import EvaluationSettings, evaluate, masked_images
from purifier.training.gad import GADTraining, train

# The paper has four halvings; two, with a start from the identity, learn in the time that a CPU has.
SETTINGS: dict[str, Any] = {
    "task": "segmentation",
    "ignore_index": 11,
    "filters": 16,
    "blocks": 4,
    "downsamples": 2,
    "norm": "none",
    "start": "identity",
    "size": 128,
    "vectors": 1024,
    "perceptual_weight": 0.0,
    "critic_filters": 16,
    "learning_rate": 8e-4,
    "detach_clean": True,
    "warmup_steps": 50,
    "batch_size": 8,
    "steps": 1500,
    "ema_decay": 0.99,
    "precision": "no",
    "device": "cpu",
    "validation_images": 16,
    "validate_every": 150,
    "checkpoint_every": 50,
}


def attack() -> dict[str, Attack]:
    return {"BIM 0.03, 4 steps": BIM(eps=0.03, alpha=0.01, steps=4)}


def learn(args: argparse.Namespace) -> None:
    places = {"data": str(kit() / "camvid" / "train"), "masks": str(kit() / "camvid" / "train_labels")}
    config = GADTraining(**{**SETTINGS, **places, **read_changes(GADTraining, args.set)})
    print(train(config, args.out, model=model("lraspp_camvid"), minutes=args.minutes))


def measure(args: argparse.Namespace) -> None:
    found: dict[str, Any] = {}
    for part, (purifiers, threats, count) in parts(args.out / "gad", 5, args.images, args.aware_images).items():
        measured = partial(
            evaluate,
            model("lraspp_camvid"),
            masked_images(kit() / "camvid" / "test", None, count, masks=kit() / "camvid" / "test_labels"),
            ignore_index=11,
            purifiers=purifiers,
            attacks=attack(),
            threats=threats,
            out=args.work / f"{part}-{count}",
            settings=EvaluationSettings(batch_size=4, probe_images=0, pictures=2),
        )
        found[part] = evaluated(part, measured)
    write_result("gad_camvid", {"parts": found, "training": curve(args.out), "environment": environment()})


def main() -> None:
    run_commands(__doc__, learn, measure, Path("runs/gad_camvid"), images=117, aware_images=20)


if __name__ == "__main__":
    main()
