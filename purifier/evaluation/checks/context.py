"""What the live checks share: the defended model on [0, 1] images, and its losses and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from purifier._purified_model import PurifiedModel
from purifier.attacks.base import Attack, Loss
from purifier.attacks.losses import mean_margin
from purifier.attacks.threats import bare_model, whole_model

View = Callable[[Tensor], Any]


def views(defended: Callable[..., Any]) -> tuple[View, View | None, Any]:
    """Returns the defended model and the bare one as functions of [0, 1] images, and the purifier.

    The bare model and the purifier are None where `defended` is no PurifiedModel.
    """
    if not isinstance(defended, PurifiedModel):
        return defended, None, None
    return whole_model(defended), bare_model(defended), defended.purifier


@contextmanager
def same_randomness(device: torch.device) -> Iterator[None]:
    """Sets torch's global generators to a fixed state inside, and back after."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


@dataclass
class Scene:
    """A defended model, a few images, and what the checks ask about them again and again.

    Attributes:
        view: The defended model, a map from [0, 1] images.
        bare: The model without the purifier, likewise; None where it is not known.
        purifier: The purifier; None where it is not known.
        images: (N, 3, H, W) in [0, 1].
        labels: What the loss takes; (N,) for classification.
        attack: The attack of the evaluation, or None.
        loss: The loss that the attack climbs where it is a function of its own; None for a built-in one.
        entropy: Whether the attack climbs cross entropy.
        samples: How many calls the attack averages its loss over.
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

    @cached_property
    def outputs(self) -> Any:
        """What the defended model says of the images."""
        return self.call(self.view, self.images)

    @property
    def classifies(self) -> bool:
        """Whether outputs are (N, K) and labels (N,)."""
        shaped = isinstance(self.outputs, Tensor) and self.outputs.ndim == 2 and self.outputs.shape[1] > 1
        return shaped and isinstance(self.labels, Tensor) and self.labels.shape == self.outputs.shape[:1]

    def objective(self, outputs: Any) -> Tensor:
        """The loss that the checks climb: the given one, else the margin, which never saturates."""
        return (self.loss or mean_margin)(outputs, self.labels)

    def call(self, model: View, images: Tensor) -> Any:
        """Calls a model without gradients, with fixed randomness."""
        with torch.no_grad(), same_randomness(images.device):
            return model(images)

    def value(self, images: Tensor) -> Tensor:
        """The objective at some images, (N,) or scalar, with fixed randomness."""
        with torch.no_grad():
            return self.objective(self.call(self.view, images)).float()

    def gradient(self, images: Tensor) -> Tensor | None:
        """The objective's exact gradient by the images, like them; None where the graph does not reach them."""
        leaf = images.detach().clone().requires_grad_(True)
        with torch.enable_grad(), same_randomness(images.device):
            total = self.objective(self.view(leaf)).sum()
            if not total.requires_grad:
                return None
            return torch.autograd.grad(total, leaf, allow_unused=True)[0]

    def right(self, images: Tensor, model: View | None = None) -> Tensor:
        """Whether each image gets its label, (N,) bool."""
        verdict: Tensor = self.call(model or self.view, images).argmax(1) == self.labels
        return verdict
