"""Attacks that are too weak to show anything: more freedom or more work must find more.

Carlini et al., "On evaluating adversarial robustness", 2019, section 5.2 and 5.3 (unbounded attacks reach zero,
iterative attacks beat one step); Zimmermann et al., "Increasing confidence in adversarial robustness evaluations",
NeurIPS 2022.
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
from purifier.evaluation.checks.context import Scene
from purifier.evaluation.checks.finding import Check, Finding

UNBOUNDED = Check(
    "eps = 1 not reaching zero",
    "a gradient attack through the whole that may change every pixel at will (Linf, eps = 1) leaves over 5 % of the "
    "images right",
    "Such an attack can turn any image into any other, so it fails for want of a usable gradient, and smaller eps "
    "tell no more. Mend the gradient (see the other findings) or use BPDA, EOT and Square.",
)
ONE_STEP = Check(
    "iterative weaker than one-step",
    "an iterative attack that sees the gradient leaves clearly more images right than one step of the same size, or "
    "reaches a lower loss on most images",
    "Small steps follow the gradient better than one large step; where they do worse the gradient is masked, or the "
    "step size or number of steps is wrong. Check alpha and steps, and the findings about gradients.",
)
LEFT = 0.05
# Step size and number of steps.
_UNBOUNDED_STEPS = ((0.1, 10), (0.05, 40))


def unbounded(scene: Scene) -> Finding | None:
    """Attacks with eps = 1, what is left with more and finer steps."""
    if not scene.classifies or scene.gradient(scene.images) is None:
        return None
    left = scene
    for alpha, steps in _UNBOUNDED_STEPS:
        pgd = PGD(eps=1.0, alpha=alpha, steps=steps, random_start=False, loss=_objective(left))
        right = left.right(pgd(left.view, left.images, left.labels))
        if int(right.sum()) <= LEFT * len(scene.images):
            return None
        left = replace(left, images=left.images[right], labels=left.labels[right])
    return UNBOUNDED.found(f"{len(left.images)} of {len(scene.images)} images are still right at eps = 1")


def _objective(scene: Scene) -> Loss:
    return lambda outputs, _: scene.objective(outputs)


def one_step(scene: Scene) -> Finding | None:
    """Compares the evaluation's attack, where it is an iterated one in a ball, with one step of its gradient."""
    if not scene.classifies or scene.gradient(scene.images) is None:
        return None
    # An attack that climbs another loss, or none (SSP, Square, C&W), need not beat a step of this one.
    inner: Any = getattr(scene.attack, "attack", scene.attack)
    climbs = isinstance(inner, GradientAttack | APGD) and inner.steps > 1 and not inner.targeted
    attack = inner if climbs else PGD(eps=8 / 255, alpha=2 / 255, steps=10)
    eps, norm = attack.eps, attack.norm
    once = PGD(eps=eps, alpha=eps, steps=1, norm=norm, random_start=False, loss=scene.loss)
    many = attack.seeded(0)
    first, last = (run(scene.view, scene.images, scene.labels) for run in (once, many))
    right = [int(scene.right(images).sum()) for images in (first, last)]
    before, after = (_climbed(scene, images) for images in (first, last))
    # Losses that are equal up to rounding are equal; an attack that climbs a third loss need not win at this one.
    lower = int((after < before - 1e-4 * before.abs().clamp_min(1e-3)).sum())
    # One image more is the luck of a random start.
    if right[1] <= right[0] + 1 and (lower <= after.numel() / 2 or not (scene.entropy or scene.loss)):
        return None
    return ONE_STEP.found(
        f"of {len(scene.images)} images, {right[0]} right after one step of {eps:.4g}, {right[1]} after {attack.name}; "
        f"the loss is lower on {lower} of {after.numel()}"
    )


def _climbed(scene: Scene, images: Tensor) -> Tensor:
    """The loss that both attacks climb, (N,) or scalar."""
    loss: Loss = scene.loss or cross_entropy
    return loss(scene.call(scene.view, images), scene.labels).detach().float()
