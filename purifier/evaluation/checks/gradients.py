"""Gradients that are zero, not finite, missing, or not those of the function.

Athalye et al., "Obfuscated gradients give a false sense of security", ICML 2018, section 3; the comparison with
finite differences is after Carlini et al., "On evaluating adversarial robustness", 2019, section 5.5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from purifier.evaluation.checks.context import Scene
from purifier.evaluation.checks.finding import Check, Finding

ZERO = Check(
    "zero gradients",
    "the exact gradient of the loss by the image is zero, not finite or missing for any image",
    "A gradient attack stands still there, so its robust accuracy says nothing. Look for detach(), torch.no_grad(), "
    "rounding or a dead layer in the purifier and the model; attack with BPDA and with Square too.",
)
UNTRUE = Check(
    "untrue gradients",
    "along its own direction, the gradient is off the measured slope of the loss by over 30 % for over a quarter of "
    "the images",
    "A part of the computation hides its true gradient (a detached branch, a backward pass of its own, steps), so "
    "gradient attacks are weaker than they could be. Use the exact graph, or BPDA, and Square beside it.",
)
# Pixels are kept this far off 0 and 1, and moved by at most this much.
_REACH = 1 / 255
_STEPS = (_REACH / 4, _REACH / 16)
_OFF, _SHARE = 0.3, 0.25
# Share of the slope that rounding in single precision may make up.
_NOISE = 0.05


def zero_gradients(scene: Scene) -> Finding | None:
    """Raised where a gradient attack cannot move."""
    gradient = scene.gradient(scene.images)
    if gradient is None:
        return ZERO.found("the graph of the loss does not reach the images: something detaches")
    flat = gradient.flatten(1)
    strange = ~torch.isfinite(flat).all(1)
    zero = (flat == 0).all(1) & ~strange
    if not bool((zero | strange).any()):
        return None
    return ZERO.found(
        f"of {len(flat)} images, {int(zero.sum())} have a zero and {int(strange.sum())} no finite gradient"
    )


def untrue_gradients(scene: Scene) -> Finding | None:
    """Raised where the gradient is not that of the function. Skipped where half precision or noise hides slopes."""
    half = (torch.float16, torch.bfloat16)
    outputs = scene.outputs.dtype if isinstance(scene.outputs, Tensor) else None
    if outputs in half or getattr(scene.purifier, "dtype", None) in half:
        return None
    base = scene.images.clamp(_REACH, 1 - _REACH)
    value, gradient = scene.value(base), scene.gradient(base)
    if gradient is None or not bool(torch.isfinite(gradient).all()) or not torch.equal(value, scene.value(base)):
        return None
    errors = _errors(scene, base, gradient, value)
    off = errors > _OFF
    if len(errors) == 0 or int(off.sum()) <= _SHARE * len(errors):
        return None
    return UNTRUE.found(
        f"of {len(errors)} slopes that could be measured, {int(off.sum())} are off by over {_OFF:.0%}, "
        f"in the median by {float(errors.median()):.0%}"
    )


def _errors(scene: Scene, base: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
    """Relative errors of the slopes, one an image (or one in all for a scalar loss), measurable ones only."""
    largest = gradient.abs().flatten(1).amax(1).clamp_min(torch.finfo(torch.float32).tiny).view(-1, 1, 1, 1)
    direction = gradient / largest
    expected = (gradient * direction).flatten(1).sum(1).double()
    expected = expected if value.ndim else expected.sum()
    # Logits are sums of numbers larger than the loss, so its rounding is taken to be a few units of theirs.
    scale = scene.outputs.abs().amax().item() if isinstance(scene.outputs, Tensor) else value.abs().amax().item()
    best = torch.full_like(expected, torch.inf)
    for step in _STEPS:
        slope = (scene.value(base + step * direction).double() - scene.value(base - step * direction).double()) / (
            2 * step
        )
        visible = expected * 2 * step * _NOISE > 4 * torch.finfo(torch.float32).eps * max(scale, 1.0)
        error = torch.where(visible, (slope / expected.clamp_min(1e-30) - 1).abs(), torch.inf)
        best = torch.minimum(best, error)
    return best[torch.isfinite(best)].reshape(-1)
