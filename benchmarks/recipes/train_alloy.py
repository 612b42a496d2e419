"""Trains alloy and alloy-s on the kit's photographs, by presets.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.train_alloy PRESET [--minutes M] [--init FOLDER] [--set K=V ...]

    alloy-warm               no networks, noise only, 64 px crops: minutes on a CPU, for others to start from
    alloy-s-warm             the pixels of its teacher, alloy, on attacked crops of 128 px: the same, in half an hour
    alloy-gate, alloy-s-gate the gate alone, of an --init that may have none: 35 minutes on one CPU core
    alloy-cpu, alloy-s-cpu   128 px crops, batches of 8, float32: an hour or two on two CPU cores, from a warm start
    alloy-gpu, alloy-s-gpu   the network alone, from random weights: 128 px crops, batches of 64, bfloat16, minutes

A setting that is a tuple takes its entries separated by commas: --set sources=ssp:vgg:0.5:2-3,none:0.5. The extractors
are the kit's VGG-19 and MobileNetV2 and the demo classifier; no other model and no evaluation image of the kit is read.

Goes on where it was stopped. The purifier is written to --out/PRESET/{alloy,alloy-s}, in fp32; with --export FOLDER
also in fp16, in shards of at most 15 MB, as `weights/` has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.recipes.training_script import photographs, read_changes, run_presets
from purifier.training.alloy import AlloyTraining, train

# VGG-19 costs ten times what MobileNetV2 does, so the loss looks at a quarter of each crop with it.
_DEPTHS = "+".join(f"net.features.{block}" for block in (3, 6, 10, 13, 17))
EXTRACTORS = (
    "vgg=benchmarks.kit:feature_extractor:0",
    "centre=benchmarks.kit:centre_extractor:0.25",
    f"mobilenet=benchmarks.kit:mobilenet@{_DEPTHS}:1.0",
    "demo=reference:demo@stages:0.25",
)
_ATTACKED_ONLY = tuple(f"{line.rpartition(':')[0]}:0" for line in EXTRACTORS if not line.startswith("centre"))
SOURCES = (
    "ssp:vgg:0.20:2",
    "ssp:mobilenet:0.18:2-4",
    "kl:mobilenet:0.27:3-6",
    "ssp:demo:0.03:2-4",
    "kl:demo:0.05:3-6",
    "gaussian:0.04",
    "sign:0.06",
    "none:0.17",
)
# What a gate has to tell from clean images: weaker attacks, too, and with more steps. Nothing but that is asked.
_GATE_SOURCES = (
    "ssp:vgg:0.05:2-4",
    "ssp:mobilenet:0.14:2-6",
    "kl:mobilenet:0.35:2-8",
    "l2:mobilenet:0.15:2-8",
    "mi:mobilenet:0.04:2-6",
    "square:mobilenet:0.08:4-40",
    "ssp:demo:0.07:2-6",
    "kl:demo:0.08:2-8",
    "square:demo:0.04:4-40",
)
# A 224 x 224 image costs 23.0e9 multiply-accumulates with the first, 4.1e9 with the second.
_LARGE: dict[str, Any] = {"name": "alloy", "patch": 2, "filters": 64, "blocks": 4, "levels": 3, "gate": 32}
_LARGE |= {"iterations": 1}
_SMALL: dict[str, Any] = {"name": "alloy-s", "patch": 2, "filters": 32, "blocks": 2, "levels": 4, "gate": 32}
_SMALL |= {
    "iterations": 1,
    "teacher": "alloy",
    "pixel_weight": 0.0,
    "prediction_weight": 0.05,
    "gradient_norm": 4.0,
}
_COMMON: dict[str, Any] = {"extractors": EXTRACTORS, "sources": SOURCES}
_CPU: dict[str, Any] = {"precision": "no", "device": "cpu", "crop_size": 128, "batch_size": 8, "warmup_steps": 20}
_CPU |= {"learning_rate": 4e-4, "checkpoint_every": 50, "validate_every": 500, "validation_images": 24}
_CPU["ema_decay"] = 0.99
# The first steps teach to tell noise from pictures; they need neither large crops nor other networks.
_WARM: dict[str, Any] = {**_CPU, "extractors": (), "sources": ("gaussian:0.4", "sign:0.4", "none:0.2")}
_WARM |= {"crop_size": 64, "steps": 800, "learning_rate": 1e-3}
_TAUGHT: dict[str, Any] = {**_CPU, "extractors": _ATTACKED_ONLY, "prediction_weight": 0.0, "steps": 1500}
_TAUGHT |= {"learning_rate": 1e-3, "warmup_steps": 50}
_GATE: dict[str, Any] = {
    **_CPU,
    "extractors": _ATTACKED_ONLY,
    "sources": _GATE_SOURCES,
    "only_gate": True,
    "teacher": "",
}
# Small crops, so that there is something to shrink; and all that makes pictures grainy without an attacker.
_GATE |= {"precision": "bf16", "crop_size": 96, "shrink": 0.5, "aliased": 0.4, "vary": 0.5, "eps_low": 0.5 / 255}
_GATE |= {"eps": 6 / 255, "batch_size": 16, "accumulate": 2, "prediction_weight": 0.0, "gradient_norm": 0.0}
_GATE |= {"steps": 2400, "learning_rate": 2e-3, "warmup_steps": 50, "checkpoint_every": 100, "validate_every": 5000}
# More of everything: VGG-19 sees whole crops, and predictions weigh twice as much, as the gate spares clean images.
_GPU_EXTRACTORS = (
    "vgg=benchmarks.kit:feature_extractor:0.5",
    f"mobilenet=benchmarks.kit:mobilenet@{_DEPTHS}:1.0",
    "demo=reference:demo@stages:0.25",
)
_GPU_SOURCES = (
    "ssp:vgg:0.14:2-4",
    "ssp:mobilenet:0.12:2-5",
    "kl:mobilenet:0.30:3-8",
    "l2:mobilenet:0.04:3-6",
    "mi:mobilenet:0.10:3-6",
    "di:mobilenet:0.10:3-6",
    "square:mobilenet:0.02:10-20",
    "ssp:demo:0.03:2-4",
    "kl:demo:0.04:3-6",
    "gaussian:0.03",
    "sign:0.03",
    "none:0.05",
)
_GPU: dict[str, Any] = {"precision": "bf16", "device": "cuda", "crop_size": 128, "batch_size": 64, "workers": 8}
_GPU |= {"extractors": _GPU_EXTRACTORS, "sources": _GPU_SOURCES, "eps_low": 4 / 255, "gate": 0}
_GPU |= {"views": 0.25, "prediction_weight": 1.0, "pixel_weight": 3.0, "gradient_norm": 4.0, "shrink": 0.7}
_GPU |= {"warmup_steps": 200, "steps": 6000, "learning_rate": 6e-4, "validate_every": 6000, "checkpoint_every": 1000}

PRESETS: dict[str, dict[str, Any]] = {
    "alloy-warm": {**_LARGE, **_WARM},
    "alloy-s-warm": {**_SMALL, **_TAUGHT},
    "alloy-gate": {**_LARGE, **_GATE},
    "alloy-s-gate": {**_SMALL, **_GATE},
    "alloy-cpu": {**_LARGE, **_CPU, "steps": 1500},
    "alloy-s-cpu": {**_SMALL, **_CPU, "steps": 2050, "learning_rate": 3e-4, "warmup_steps": 100},
    "alloy-gpu": {**_LARGE, **_GPU},
    "alloy-s-gpu": {**_SMALL, **_GPU, "teacher": ""},
}


def settings(preset: str, changes: list[str], init: str = "") -> AlloyTraining:
    """Returns a preset's settings with KEY=VALUE changes, each read as the type of the field's default."""
    values: dict[str, Any] = {"data": photographs(), **_COMMON, **PRESETS[preset], "init": init}
    return AlloyTraining(**(values | read_changes(AlloyTraining, changes)))


def main() -> None:
    run_presets(__doc__, PRESETS, settings, train, Path("runs/alloy"))


if __name__ == "__main__":
    main()
