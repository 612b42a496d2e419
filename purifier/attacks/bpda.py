"""BPDA: backward pass differentiable approximation, where the exact gradient of a purifier is useless.

Athalye, Carlini & Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018, section 4.1,
https://arxiv.org/abs/1802.00420.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from purifier._errors import InputError
from purifier._purified_model import PurifiedModel
from purifier.methods import Method
from purifier.methods._gate import Gate, may_close


class StraightThrough(nn.Module):
    """A purifier whose forward pass is exact and whose backward pass is that of another function.

    Args:
        purifier: A `Purifier`, or any module whose `purify` maps images to images.
        substitute: Differentiable map of images (N, 3, H, W) in [0, 1] to images of that shape. Its gradient replaces
            the purifier's. None means the identity.
    """

    def __init__(self, purifier: nn.Module, substitute: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.purifier = purifier
        self.substitute = substitute
        self.training = purifier.training

    def purify(self, images: Tensor) -> Tensor:
        """Purifies images (N, 3, H, W) or (3, H, W) exactly; gradients are those of the substitute.

        Raises:
            InputError: If the substitute changes the shape.
        """
        with torch.no_grad():
            purified: Tensor = self.purifier.purify(images)  # type: ignore[operator]
        if not torch.is_grad_enabled():
            return purified
        stand_in = images if self.substitute is None else self.substitute(images)
        if stand_in.shape != purified.shape:
            raise InputError(
                f"expected a substitute that keeps the shape {tuple(purified.shape)} of the images, got "
                f"{tuple(stand_in.shape)}"
            )
        # The added term is exactly zero and carries the gradient.
        return purified + (stand_in - stand_in.detach()).to(purified)

    forward = purify


def straight_through(defended: PurifiedModel, substitute: Callable[[Tensor], Tensor] | None = None) -> PurifiedModel:
    """Returns the defended model with another backward pass for its purifier. Model and purifier are shared.

    Args:
        defended: A model behind a purifier. A chain of purifiers is replaced as a whole.
        substitute: See `StraightThrough`.
    """
    purifier = StraightThrough(defended.purifier, substitute)
    return PurifiedModel.of(defended.model, purifier, defended.convention, defended.images)


def through_floors(defended: PurifiedModel) -> PurifiedModel:
    """Returns the defended model with the gradient that its gates have without their floors and thresholds.

    Below them a gate has no gradient, so an attack would not see how close to opening it is. Outputs are the same.
    Weights and the model are shared; a defended model without any is returned as it is.

    Args:
        defended: A model behind a purifier.
    """
    purifier = defended.purifier
    if not any(isinstance(part, Method) and may_close(part) for part in purifier.modules()):
        return defended
    tensors = itertools.chain(purifier.parameters(), purifier.buffers())
    shared: list[object] = [*tensors, getattr(purifier, "_compiler", None)]
    twin = copy.deepcopy(purifier, {id(one): one for one in shared})
    for part in twin.modules():
        if isinstance(part, Gate):
            part.gradient_ignores_floor = True
    return PurifiedModel.of(defended.model, twin, defended.convention, defended.images)
