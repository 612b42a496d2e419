"""Trains nrp and nrp-resg on the kit's photographs, by presets.

    PURIFIER_KIT=<folder> python benchmarks/train_nrp.py PRESET [--minutes M] [--init FOLDER] [--set KEY=VALUE ...]

    resg-cpu-shallow   8 blocks, 48 px crops, from the identity, without a critic: the start that a CPU can do
    resg-cpu           all 23 blocks, 64 px crops, grown from that (--init runs/nrp/resg-cpu-shallow/nrp-resg)
    resg-gpu           23 blocks, 128 px crops, with the critic; --init runs/nrp/resg-cpu/nrp-resg or from the identity
    nrp-gpu            the full network, the same

Goes on where it was stopped. The purifier is written to --out/PRESET/{nrp,nrp-resg}, in fp32; with --export FOLDER
also in fp16, in shards of at most 15 MB, as `weights/` has it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from _kit import kit
from _settings import read_changes

from purifier import Purifier
from purifier.training.nrp import NRPTraining, train

# Small perturbations and clean images too, so that those are left alone.
_COMMON: dict[str, Any] = {"features": "_kit:feature_extractor", "eps_low": 4 / 255, "clean_share": 0.125}
_CPU = {"network": "nrp-resg", "start": "identity", "precision": "no", "device": "cpu", "adversarial_weight": 0.0}
_CPU |= {"batch_size": 8, "attack_steps": 3, "attack_alpha": 0.5, "checkpoint_every": 50, "validation_images": 24}
_GPU = {"start": "identity", "precision": "bf16", "device": "cuda", "workers": 12, "attack_steps": 5}
_GPU |= {"batch_size": 16, "critic_from": 2000, "warmup_steps": 200, "learning_rate": 2e-4, "validate_every": 2000}

PRESETS: dict[str, dict[str, Any]] = {
    "resg-cpu-shallow": {
        **_CPU,
        "blocks": 8,
        "crop_size": 48,
        "steps": 1000,
        "learning_rate": 6e-4,
        "validate_every": 200,
    },
    "resg-cpu": {**_CPU, "crop_size": 64, "steps": 300, "learning_rate": 3e-4, "validate_every": 100},
    "resg-gpu": {**_GPU, "network": "nrp-resg", "steps": 20_000, "compile": True},
    "nrp-gpu": {**_GPU, "network": "nrp", "steps": 20_000, "compile": True},
}


def settings(preset: str, changes: list[str], init: str = "") -> NRPTraining:
    """Returns a preset's settings with KEY=VALUE changes, each read as the type of the field's default."""
    # The small kit of benchmarks/pack_kit.py has no objects.
    data = [kit() / name for name in ("photos", "objects/train") if (kit() / name).is_dir()]
    values: dict[str, Any] = {"data": tuple(map(str, data)), **_COMMON, **PRESETS[preset], "init": init}
    if (kit() / "objects" / "test").is_dir():
        values["labelled"] = str(kit() / "objects" / "test")
    return NRPTraining(**(values | read_changes(NRPTraining, changes)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--minutes", type=float, help="stop after about that time; the next call goes on")
    parser.add_argument("--init", default="", help="name or folder of a trained purifier to start from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--out", type=Path, default=Path("runs/nrp"))
    parser.add_argument("--export", type=Path, help="folder for the fp16 weights")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    folder = train(settings(args.preset, args.set, args.init), args.out / args.preset, minutes=args.minutes)
    print(folder)
    if args.export:
        Purifier.from_pretrained(folder).half().save_pretrained(args.export)


if __name__ == "__main__":
    main()
