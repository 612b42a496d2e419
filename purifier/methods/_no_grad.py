"""What a network may do to save time and memory where nobody asks for its gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Feature pixels that go through a network at once on the CPU: with 64 channels, several layers of these fit a cache.
_PIXELS = 2 * 112 * 112


def may_overwrite() -> bool:
    """Whether features that nobody needs any more may be overwritten: not for a gradient, nor while a graph is made.

    What is overwritten must be the caller's own: never what a module was given.
    """
    return not torch.is_grad_enabled() and not makes_graph()


def by_parts(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Applies a network to images (N, C, H, W), on the CPU to a few at a time: the same output in bounded memory.

    Where a gradient is recorded they all go at once: their graph is kept anyway.
    """
    if images.device.type != "cpu" or not may_overwrite():
        return network(images)
    count = max(1, _PIXELS // (images.shape[-2] * images.shape[-1]))
    if len(images) <= count:
        return network(images)
    return torch.cat([network(part) for part in images.split(count)])


def makes_graph() -> bool:
    """Whether what runs now is being made into a graph."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
