"""Small models to attack: a trained one, linear ones with a closed form, and a dense one."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES, SIDE = 5, 12


@cache
def _patterns() -> Tensor:
    return torch.rand(CLASSES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(11))


def examples(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy patterns (count, 3, 12, 12) in [0, 1] of five classes, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    noise = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    return (0.25 * _patterns()[labels] + 0.75 * noise).clamp(0, 1), labels


def trained() -> nn.Sequential:
    """A small convolutional classifier that has learnt `examples`, in eval mode; each call gives a fresh copy."""
    model = _network()
    model.load_state_dict(_learnt())
    return model.eval()


def _network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(8 * 5 * 5, CLASSES),
    )


@cache
def _learnt() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _network()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        images, labels = examples(200, seed=1)
        for _ in range(40):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.state_dict()


def linear(classes: int = 4, shape: tuple[int, int, int] = (3, 6, 6)) -> tuple[nn.Sequential, Tensor]:
    """A linear classifier (double), with its weights (classes, pixels)."""
    generator = torch.Generator().manual_seed(5)
    layer = nn.Linear(shape[0] * shape[1] * shape[2], classes).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64) * 0.3)
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    return nn.Sequential(nn.Flatten(), layer).eval(), layer.weight.detach()


def segmenter() -> nn.Conv2d:
    """A dense model: logits (N, 4, H, W)."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        model.weight.copy_(torch.randn(model.weight.shape, generator=generator))
    return model.eval()


def sizes(adversarial: Tensor, images: Tensor, norm: str) -> Tensor:
    """Size of each perturbation, (N,)."""
    delta = (adversarial - images).flatten(1)
    return delta.abs().amax(1) if norm == "Linf" else delta.norm(dim=1)
