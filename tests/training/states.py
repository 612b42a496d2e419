"""Weights of runs, compared."""

from __future__ import annotations

from pathlib import Path

import torch

from purifier.training.checkpoints import load_checkpoint

State = dict[str, torch.Tensor]


def weights(folder: Path, network: str = "model") -> State:
    """What the checkpoint of a run holds of a network."""
    return load_checkpoint(folder / "checkpoint.pt")[network]


def gradients(network: torch.nn.Module) -> State:
    """Gradients of the last step, which Adam would hide the scale of."""
    return {name: weight.grad for name, weight in network.named_parameters()}


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def close(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.allclose(one[key], two[key], rtol=1e-3, atol=1e-5) for key in one)
