"""Trains nrp and nrp-resg on the kit's photographs, by presets.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.train_nrp PRESET [--minutes M] [--init FOLDER] [--set K=V ...]

    resg-cpu-shallow   8 blocks, 48 px crops, from the identity, without a critic: the start that a CPU can do
    resg-cpu           all 23 blocks, 64 px crops, grown from that (--init runs/nrp/resg-cpu-shallow/nrp-resg)
    resg-cpu-long      the same for longer, in bfloat16 and with step sizes that vary; an hour on two cores
    resg-gpu           23 blocks, 128 px crops, with the critic; --init runs/nrp/resg-cpu/nrp-resg or from the identity
    nrp-gpu            the full network, 64 px crops, without a critic, from the identity: minutes of a GPU

Goes on where it was stopped. The purifier is written to --out/PRESET/{nrp,nrp-resg}, in fp32; with --export FOLDER
also in fp16, in shards of at most 15 MB, as `weights/` has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.kit import kit
from benchmarks.recipes.training_script import photographs, read_changes, run_presets
from purifier.training.nrp import NRPTraining, train

# Small perturbations and clean images too, so that those are left alone.
_COMMON: dict[str, Any] = {"features": "benchmarks.kit:feature_extractor", "eps_low": 4 / 255, "clean_share": 0.125}
_CPU = {"network": "nrp-resg", "start": "identity", "precision": "no", "device": "cpu", "adversarial_weight": 0.0}
_CPU |= {"batch_size": 8, "attack_steps": 3, "attack_alpha": 0.5, "attack_alpha_low": 0.5}
_CPU |= {"checkpoint_every": 50, "validation_images": 24}
# From attacks that end inside the ball to those on its border, from none to the strongest.
_VARIED: dict[str, Any] = {"attack_alpha": 0.75, "attack_alpha_low": 0.25, "eps_low": 0.0039, "clean_share": 0.25}
_GPU = {"start": "identity", "precision": "bf16", "device": "cuda", "workers": 12, "attack_steps": 5, **_VARIED}
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
    "resg-cpu-long": {
        **_CPU,
        **_VARIED,
        "crop_size": 64,
        "precision": "bf16",
        "steps": 2700,
        "learning_rate": 4e-4,
        "attack_steps": 4,
        "ema_decay": 0.998,
        "seed": 2,
        "validate_every": 450,
    },
    "resg-gpu": {**_GPU, "network": "nrp-resg", "steps": 20_000, "compile": True},
    "nrp-gpu": {
        **_GPU,
        "network": "nrp",
        "crop_size": 64,
        "steps": 1500,
        "learning_rate": 3e-4,
        "warmup_steps": 100,
        "attack_steps": 4,
        "clean_share": 0.25,
        "gradient_norm": 1.0,
        "adversarial_weight": 0.0,
        "critic_from": 0,
        "ema_decay": 0.998,
    },
}


def settings(preset: str, changes: list[str], init: str = "") -> NRPTraining:
    """Returns a preset's settings with KEY=VALUE changes, each read as the type of the field's default."""
    values: dict[str, Any] = {"data": photographs(), **_COMMON, **PRESETS[preset], "init": init}
    if (kit() / "objects" / "test").is_dir():
        values["labelled"] = str(kit() / "objects" / "test")
    return NRPTraining(**(values | read_changes(NRPTraining, changes)))


def main() -> None:
    run_presets(__doc__, PRESETS, settings, train, Path("runs/nrp"))


if __name__ == "__main__":
    main()
