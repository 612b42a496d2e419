"""Random numbers from a generator of any device, so that equal seeds give equal attacks on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws from [0, 1), with the dtype and device of `like`."""
    device = like.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws from the standard normal distribution, with the dtype and device of `like`."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def signs(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws from {-1, 1}, with the dtype and device of `like`."""
    return torch.where(uniform(shape, like, generator) < 0.5, -1.0, 1.0).to(like.dtype)


def integers(count: int, top: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws `count` integers from 0 to `top`, both included, on the device of `like`."""
    device = like.device if generator is None else generator.device
    return torch.randint(top + 1, (count,), generator=generator, device=device).to(like.device)
