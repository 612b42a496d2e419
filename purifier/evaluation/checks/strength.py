"""Attacks that are too weak: with a larger eps or more steps they must fool more images.

Sources: Carlini et al., "On evaluating adversarial robustness", 2019, sections 5.2 and 5.3 (unbounded attacks reach
zero, iterative attacks beat one step), https://arxiv.org/abs/1902.06705; Zimmermann et al., "Increasing confidence in
adversarial robustness evaluations", NeurIPS 2022, https://arxiv.org/abs/2206.13991.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from purifier.attacks._gradient import GradientAttack
from purifier.attacks.apgd import APGD
from purifier.attacks.base import Loss
from purifier.attacks.losses import cross_entropy
from purifier.attacks.pgd import PGD
from purifier.evaluation.checks.context import Context
from purifier.evaluation.checks.finding import Check, Finding

UNBOUNDED = Check(
    "eps = 1 not reaching zero",
    "with a gradient attack on the defended model that may change every pixel at will (Linf, eps = 1), over 5 % of the "
    "images stay correct",
    "Such an attack can turn any image into any other, so it failed because the gradient is not usable, and a smaller "
    "eps says no more. Correct the gradient (see the other findings), or use BPDA, EOT and Square.",
)
ONE_STEP = Check(
    "iterative weaker than one-step",
    "clearly more images stay correct under an iterative attack with the gradient than under one step of the same "
    "size, or its loss is lower on most images",
    "Small steps follow the gradient better than one large step. If they do worse, the gradient is masked, or the step "
    "size or number of steps is wrong. Check alpha and steps, and the findings about gradients.",
)
LEFT = 0.05
# Step size and number of steps.
_UNBOUNDED_STEPS = ((0.1, 10), (0.05, 40))


def unbounded(context: Context) -> Finding | None:
    """Attacks with eps = 1; images that stay correct are attacked again with more and smaller steps."""
    if not context.classifies or context.gradient(context.images) is None:
        return None
    left = context
    for alpha, steps in _UNBOUNDED_STEPS:
        pgd = PGD(eps=1.0, alpha=alpha, steps=steps, random_start=False, loss=_objective(left))
        correct = left.correct(pgd(left.view, left.images, left.labels))
        if int(correct.sum()) <= LEFT * len(context.images):
            return None
        left = replace(left, images=left.images[correct], labels=left.labels[correct])
    return UNBOUNDED.found(f"{len(left.images)} of {len(context.images)} images are still correct at eps = 1")


def _objective(context: Context) -> Loss:
    return lambda outputs, _: context.objective(outputs)


def one_step(context: Context) -> Finding | None:
    """Compares the evaluation's attack, if it is iterative and bounded, with one step of its gradient."""
    if not context.classifies or context.gradient(context.images) is None:
        return None
    # Attacks on another loss, or on none (SSP, Square, C&W), need not beat one step on this loss.
    inner: Any = getattr(context.attack, "attack", context.attack)
    climbs = isinstance(inner, GradientAttack | APGD) and inner.steps > 1 and not inner.targeted
    # Nor need attacks that search only a part of the ball.
    climbs = climbs and inner.bounded and inner._whole_ball
    attack = inner if climbs else PGD(eps=8 / 255, alpha=2 / 255, steps=10)
    eps, norm = attack.eps, attack.norm
    once = PGD(eps=eps, alpha=eps, steps=1, norm=norm, random_start=False, loss=context.loss)
    many = attack.seeded(0)
    first, last = (run(context.view, context.images, context.labels) for run in (once, many))
    correct = [int(context.correct(images).sum()) for images in (first, last)]
    before, after = (_climbed(context, images) for images in (first, last))
    # Losses that differ by rounding only count as equal. An attack on a third loss need not win at this one.
    lower = int((after < before - 1e-4 * before.abs().clamp_min(1e-3)).sum())
    # A difference of one image may come from the random start.
    if correct[1] <= correct[0] + 1 and (lower <= after.numel() / 2 or not (context.entropy or context.loss)):
        return None
    return ONE_STEP.found(
        f"of {len(context.images)} images, {correct[0]} are correct after one step of {eps:.4g}, {correct[1]} after "
        f"{attack.name}; its loss is lower on {lower} of {after.numel()}"
    )


def _climbed(context: Context, images: Tensor) -> Tensor:
    """The loss that both attacks increase, (N,) or scalar."""
    loss: Loss = context.loss or cross_entropy
    return loss(context.call(context.view, images), context.labels).detach().float()
