"""Optimisations for forward passes that record no gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from purifier._tracing import is_plain, is_tracing

# Feature pixels per chunk on the CPU. With 64 channels, several layers of these fit a cache.
_PIXELS = 2 * 112 * 112


def may_overwrite() -> bool:
    """Whether a module may overwrite its own intermediate features: no gradient and no graph is being recorded.

    A module must never overwrite its input.
    """
    return not torch.is_grad_enabled() and not is_tracing()


def may_choose(images: Tensor) -> bool:
    """Whether a module may look at values to choose which images it computes: no gradient and no graph is recorded.

    Not inside CUDA graphs, `torch.func` transforms or tensor subclasses either, whose values cannot be read.
    """
    if not may_overwrite() or not is_plain(images) or images.is_meta:
        return False
    return not (images.is_cuda and torch.cuda.is_current_stream_capturing())


def by_parts(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Applies a network to images (N, C, H, W). On the CPU, without gradients, works in chunks to bound the memory.

    With gradients the whole batch is processed at once, because its graph is kept anyway.
    """
    if images.device.type != "cpu" or not may_overwrite():
        return network(images)
    count = max(1, _PIXELS // (images.shape[-2] * images.shape[-1]))
    if len(images) <= count:
        return network(images)
    return torch.cat([network(part) for part in images.split(count)])
