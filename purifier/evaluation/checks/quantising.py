"""A purifier that rounds: a codec, a reduction of bit depth, a histogram.

Source: Athalye et al., "Obfuscated gradients give a false sense of security", ICML 2018, section 4.1 (BPDA),
https://arxiv.org/abs/1802.00420.
"""

from __future__ import annotations

import torch
from torch import Tensor

from purifier._random import isolated_randomness
from purifier.evaluation.checks.context import Context
from purifier.evaluation.checks.finding import Check, Finding

QUANTISING = Check(
    "quantising purifier",
    "the purifier states that it is not differentiable, or its output is a step function of its input, whose exact "
    "gradient is zero almost everywhere",
    "The exact gradient gives an attack no direction. Use the figure of the BPDA threat model (backward through the "
    "identity or a smooth substitute), with Square beside it.",
)
# A change that a step function does not show, and one that it shows.
_TINY, _PLAIN = 1e-5, 8 / 255
_MOST, _SOME = 0.9, 0.1


def quantising(context: Context) -> Finding | None:
    """Checks whether the purifier needs BPDA."""
    if context.purifier is None:
        return None
    if getattr(context.purifier, "differentiable", True) is False:
        return QUANTISING.found("purifier.differentiable is False")
    constant = _constant(context, _TINY)
    if constant < _MOST or 1 - _constant(context, _PLAIN) < _SOME or not _flat(context):
        return None
    return QUANTISING.found(f"a change of 1e-5 leaves {constant:.0%} of the purified values unchanged, gradient zero")


def _constant(context: Context, size: float) -> float:
    """Share of purified values that stay equal under random changes of the input of that size."""
    images = context.images.clamp(size, 1 - size)
    generator = torch.Generator().manual_seed(0)
    signs = (torch.randint(2, images.shape, generator=generator) * 2 - 1).to(images)
    before, after = (context.call(context.purifier, x) for x in (images, images + size * signs))
    return float((before == after).float().mean())


def _flat(context: Context) -> bool:
    """Whether the gradient of the purified values is zero for most input values, or missing."""
    leaf = context.images.detach().clone().requires_grad_(True)
    with torch.enable_grad(), isolated_randomness(leaf.device, seed=0):
        purified: Tensor = context.purifier(leaf)
        if not purified.requires_grad:
            return True
        (gradient,) = torch.autograd.grad((purified * torch.rand_like(purified)).sum(), leaf, allow_unused=True)
    return gradient is None or float((gradient == 0).float().mean()) >= _MOST
