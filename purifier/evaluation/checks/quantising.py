"""A purifier with steps in it: rounding, a codec, a histogram.

Athalye et al., "Obfuscated gradients give a false sense of security", ICML 2018, section 4.1 (BPDA).
"""

from __future__ import annotations

import torch
from torch import Tensor

from purifier.evaluation.checks.context import Scene, same_randomness
from purifier.evaluation.checks.finding import Check, Finding

QUANTISING = Check(
    "quantising purifier",
    "the purifier states that it is not differentiable, or its output is a step function of its input whose exact "
    "gradient is zero almost everywhere",
    "The exact gradient leads an attack nowhere. The figure that counts is the one of the BPDA threat model "
    "(backward through the identity or a smooth substitute), with Square beside it.",
)
# A change that a step function does not notice, and one that it does.
_TINY, _PLAIN = 1e-5, 8 / 255
_MOST, _SOME = 0.9, 0.1


def quantising(scene: Scene) -> Finding | None:
    """Raised where BPDA is needed."""
    if scene.purifier is None:
        return None
    if getattr(scene.purifier, "differentiable", True) is False:
        return QUANTISING.found("purifier.differentiable is False")
    still = _still(scene, _TINY)
    if still < _MOST or 1 - _still(scene, _PLAIN) < _SOME or not _flat(scene):
        return None
    return QUANTISING.found(f"a change of 1e-5 leaves {still:.0%} of the purified values as they were, gradient zero")


def _still(scene: Scene, size: float) -> float:
    """Share of purified values that stay the very same under random changes of the input of that size."""
    images = scene.images.clamp(size, 1 - size)
    generator = torch.Generator().manual_seed(0)
    signs = (torch.randint(2, images.shape, generator=generator) * 2 - 1).to(images)
    before, after = (scene.call(scene.purifier, x) for x in (images, images + size * signs))
    return float((before == after).float().mean())


def _flat(scene: Scene) -> bool:
    """Whether the gradient of the purified values is zero for most input values, or missing."""
    leaf = scene.images.detach().clone().requires_grad_(True)
    with torch.enable_grad(), same_randomness(leaf.device):
        purified: Tensor = scene.purifier(leaf)
        if not purified.requires_grad:
            return True
        (gradient,) = torch.autograd.grad((purified * torch.rand_like(purified)).sum(), leaf, allow_unused=True)
    return gradient is None or float((gradient == 0).float().mean()) >= _MOST
