"""Writes the golden tensors: outputs of tiny purifiers for one image. Run it after a deliberate change only.

python -m tests.golden.make
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from purifier import Purifier
from purifier.methods import METHODS

FOLDER = Path(__file__).resolve().parent
OPTIONS = {
    "alloy": {"iterations": 2, "filters": 4, "blocks": 2},
    "gad": {"filters": 4, "blocks": 1, "downsamples": 1},
    "gad-residual": {"filters": 4, "blocks": 1},
    "gs": {"kernel_size": 5, "iterations": 7},
    "ncis": {"iterations": 2, "filters": 4, "layers": 3},
    "nrp": {"filters": 4, "blocks": 1, "growth": 2},
    "nrp-resg": {"filters": 4, "blocks": 2},
    "tvm": {"keep": 0.5, "weight": 0.03, "steps": 20},
}


def wave(*shape: int, phase: float) -> Tensor:
    """Returns numbers in [-1, 1] that do not depend on a random generator, which may change."""
    count = int(torch.tensor(shape).prod())
    return torch.sin(torch.arange(count, dtype=torch.float64) ** 2 * 0.37 + phase).float().view(shape)


def purifier(name: str) -> Purifier:
    method = METHODS[name](**OPTIONS[name])
    state = {}
    for number, (key, value) in enumerate(sorted(method.state_dict().items())):
        scale = 0.3 if value.ndim == 1 else value[0].numel() ** -0.5
        state[key] = (
            scale * wave(*value.shape, phase=number) * (value != 0 if "context" in key and value.ndim == 4 else 1)
        )
    for key in ("trunk_conv.bias", "conv_last.bias", "network.3.bias"):
        if key in state:
            state[key] = state[key] + 0.5
    method.load_state_dict(state)
    return Purifier(method)


def picture() -> Tensor:
    return wave(1, 3, 9, 12, phase=0.5) / 2 + 0.5


def main() -> None:
    for name in OPTIONS:
        with torch.no_grad():
            save_file({"out": purifier(name)(picture())}, FOLDER / f"{name}.safetensors")


if __name__ == "__main__":
    main()
