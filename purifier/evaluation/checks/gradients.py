"""Gradients that are zero, not finite, missing or wrong.

Sources: Athalye et al., "Obfuscated gradients give a false sense of security", ICML 2018, section 3,
https://arxiv.org/abs/1802.00420; for the comparison with finite differences Carlini et al., "On evaluating adversarial
robustness", 2019, section 5.5, https://arxiv.org/abs/1902.06705.
"""

from __future__ import annotations

import torch
from torch import Tensor

from purifier.evaluation.checks.context import Context
from purifier.evaluation.checks.finding import Check, Finding

ZERO = Check(
    "zero gradients",
    "the exact gradient of the loss by the image is zero, not finite or missing for at least one image",
    "A gradient attack cannot move there, so its robust accuracy means nothing. Look for detach(), torch.no_grad(), "
    "rounding or a dead layer in the purifier and the model; also attack with BPDA and with Square.",
)
UNTRUE = Check(
    "untrue gradients",
    "for over a quarter of the images, the gradient differs by over 30 % from the measured slope of the loss along it",
    "A part of the computation hides its true gradient (a detached branch, a custom backward pass, rounding), so "
    "gradient attacks are weaker than they could be. Use the exact graph, or BPDA, with Square beside it.",
)
# Pixels are kept this far from 0 and 1, and are moved by at most this much.
_REACH = 1 / 255
_STEPS = (_REACH / 4, _REACH / 16)
_OFF, _SHARE = 0.3, 0.25
# A slope is measurable if rounding in single precision accounts for less than this share of it.
_NOISE = 0.05


def zero_gradients(context: Context) -> Finding | None:
    """Checks whether a gradient attack can move every image."""
    gradient = context.gradient(context.images)
    if gradient is None:
        return ZERO.found("the graph of the loss does not reach the images: a part of the computation is detached")
    flat = gradient.flatten(1)
    strange = ~torch.isfinite(flat).all(1)
    zero = (flat == 0).all(1) & ~strange
    if not bool((zero | strange).any()):
        return None
    return ZERO.found(
        f"of {len(flat)} images, {int(zero.sum())} have a zero and {int(strange.sum())} no finite gradient"
    )


def untrue_gradients(context: Context) -> Finding | None:
    """Compares the gradient with finite differences. Skipped if half precision or noise hides the slopes."""
    half = (torch.float16, torch.bfloat16)
    outputs = context.outputs.dtype if isinstance(context.outputs, Tensor) else None
    if outputs in half or getattr(context.purifier, "dtype", None) in half:
        return None
    base = context.images.clamp(_REACH, 1 - _REACH)
    value, gradient = context.value(base), context.gradient(base)
    if gradient is None or not bool(torch.isfinite(gradient).all()) or not torch.equal(value, context.value(base)):
        return None
    errors = _errors(context, base, gradient, value)
    off = errors > _OFF
    if len(errors) == 0 or int(off.sum()) <= _SHARE * len(errors):
        return None
    return UNTRUE.found(
        f"of {len(errors)} measurable slopes, {int(off.sum())} are off by over {_OFF:.0%}; the median error is "
        f"{float(errors.median()):.0%}"
    )


def _errors(context: Context, base: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
    """Relative errors of the measurable slopes: one for each image, or one in all for a scalar loss."""
    largest = gradient.abs().flatten(1).amax(1).clamp_min(torch.finfo(torch.float32).tiny).view(-1, 1, 1, 1)
    direction = gradient / largest
    expected = (gradient * direction).flatten(1).sum(1).double()
    expected = expected if value.ndim else expected.sum()
    # The loss is computed from larger logits, so its rounding error is taken as a few units of theirs.
    scale = context.outputs.abs().amax().item() if isinstance(context.outputs, Tensor) else value.abs().amax().item()
    best = torch.full_like(expected, torch.inf)
    for step in _STEPS:
        slope = (context.value(base + step * direction).double() - context.value(base - step * direction).double()) / (
            2 * step
        )
        visible = expected * 2 * step * _NOISE > 4 * torch.finfo(torch.float32).eps * max(scale, 1.0)
        error = torch.where(visible, (slope / expected.clamp_min(1e-30) - 1).abs(), torch.inf)
        best = torch.minimum(best, error)
    return best[torch.isfinite(best)].reshape(-1)
