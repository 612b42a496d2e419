"""What the live checks share: the defended model as a function of [0, 1] images, and its losses and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from purifier._purified_model import PurifiedModel
from purifier._random import isolated_randomness
from purifier.attacks.base import Attack, Loss
from purifier.attacks.losses import cross_entropy, mean_margin
from purifier.attacks.threats import bare_model, whole_model

View = Callable[[Tensor], Any]


@dataclass
class Context:
    """A defended model, a few images, and what the checks ask of them.

    Attributes:
        view: The defended model as a function of [0, 1] images.
        bare: The model without the purifier, likewise; None if it is not known.
        purifier: The purifier; None if it is not known.
        images: (N, 3, H, W) in [0, 1].
        labels: The targets of the loss; (N,) for classification.
        attack: The attack of the evaluation, or None.
        loss: The loss function that the attack increases; None for a built-in loss.
        entropy: Whether the attack increases cross entropy.
        samples: Number of calls over which the attack averages its loss (EOT).
        submissions: How often each attacked image is submitted.
    """

    view: View
    bare: View | None
    purifier: Any
    images: Tensor
    labels: Any
    attack: Attack | None
    loss: Loss | None
    entropy: bool
    samples: int
    submissions: int

    @classmethod
    def of(
        cls,
        defended: Callable[..., Any],
        images: Tensor,
        labels: Any,
        attack: Attack | None,
        loss: Loss | None,
        samples: int,
        submissions: int,
    ) -> Self:
        """Reads view, bare model and purifier off the defended model, and loss and samples off the attack."""
        view, bare, purifier = defended, None, None
        if isinstance(defended, PurifiedModel):
            view, bare, purifier = whole_model(defended), bare_model(defended), defended.purifier
        # An attack that runs another attack leaves the loss to that one.
        climbed = loss if loss is not None else getattr(getattr(attack, "attack", attack), "loss", None)
        entropy = climbed in (None, "ce", cross_entropy)
        own = climbed if callable(climbed) and not entropy else None
        many = max(samples, getattr(attack, "samples", 1))
        return cls(view, bare, purifier, images.detach().clamp(0, 1), labels, attack, own, entropy, many, submissions)

    @cached_property
    def outputs(self) -> Any:
        """The defended model's outputs for the images."""
        return self.call(self.view, self.images)

    @cached_property
    def difference(self) -> float:
        """How much the outputs of two calls on the same images differ, as a share of their largest value."""
        with torch.no_grad():
            first, second = (_tensors(self.view(self.images)) for _ in range(2))
        differences = [
            float((a - b).abs().max()) / max(float(a.abs().max()), 1e-12) if a.shape == b.shape else 1.0
            for a, b in zip(first, second, strict=False)
            if a.numel() and b.numel()
        ]
        return max(differences, default=0.0)

    @property
    def classifies(self) -> bool:
        """Whether outputs are (N, K) and labels (N,)."""
        shaped = isinstance(self.outputs, Tensor) and self.outputs.ndim == 2 and self.outputs.shape[1] > 1
        return shaped and isinstance(self.labels, Tensor) and self.labels.shape == self.outputs.shape[:1]

    def objective(self, outputs: Any) -> Tensor:
        """The loss that the checks increase: the given one, or else the margin, which never saturates."""
        return (self.loss or mean_margin)(outputs, self.labels)

    def call(self, model: View, images: Tensor) -> Any:
        """Calls a model without gradients and with fixed randomness."""
        with torch.no_grad(), isolated_randomness(images.device, seed=0):
            return model(images)

    def value(self, images: Tensor) -> Tensor:
        """The objective for some images, (N,) or scalar, with fixed randomness."""
        with torch.no_grad():
            return self.objective(self.call(self.view, images)).float()

    def gradient(self, images: Tensor) -> Tensor | None:
        """The exact gradient of the objective by the images, in their shape; None if the graph does not reach them."""
        leaf = images.detach().clone().requires_grad_(True)
        with torch.enable_grad(), isolated_randomness(images.device, seed=0):
            total = self.objective(self.view(leaf)).sum()
            if not total.requires_grad:
                return None
            return torch.autograd.grad(total, leaf, allow_unused=True)[0]

    def correct(self, images: Tensor, model: View | None = None) -> Tensor:
        """Whether the prediction for each image is its label, (N,) bool."""
        verdict: Tensor = self.call(model or self.view, images).argmax(1) == self.labels
        return verdict


def _tensors(outputs: object) -> list[Tensor]:
    """The float tensors in nested outputs."""
    if isinstance(outputs, Tensor):
        return [outputs.detach().float()] if outputs.is_floating_point() else []
    if isinstance(outputs, dict):
        return _tensors(list(outputs.values()))
    if isinstance(outputs, list | tuple):
        return [tensor for value in outputs for tensor in _tensors(value)]
    return []
