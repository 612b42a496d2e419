"""Attacks that evade a purifier's gate while they fool the model behind it.

The sum of both losses is that of Carlini and Wagner, "Adversarial Examples Are Not Easily Detected", AISec 2017,
section 3, https://arxiv.org/abs/1705.07263.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from purifier._errors import OptionError, shown
from purifier.attacks.base import Attack, Loss, per_image
from purifier.attacks.eot import EOT, climbed_loss, with_loss

# Logits that are low enough: the gate's weight is below 0.003 there.
_LOW = -6.0


class GateBeside(nn.Module):
    """A function of images that returns the defended model's outputs, and how far the gate is open.

    Args:
        model: The defended model as a function of RGB images in [0, 1].
        purifier: Its purifier, which has one gate.
    """

    def __init__(self, model: Any, purifier: Any) -> None:
        super().__init__()
        self.model, self.purifier = model, purifier
        self.training = getattr(model, "training", False)

    def forward(self, images: Tensor) -> tuple[Any, Tensor]:
        """Returns the outputs and the mean excess of the gate's logits over low ones, (N,)."""
        excess = (self.purifier.gate_logits(images) - _LOW).clamp_min(0).mean((1, 2, 3))
        return self.model(images), excess


def hiding(attack: Attack, purifier: Any, model: Any, weight: float) -> tuple[Attack, Any]:
    """Returns an attack on its loss minus `weight` times the gate's excess, and the model that it attacks.

    Raises:
        OptionError: If the purifier has not one gate, or the attack climbs no loss.
    """
    if not hasattr(purifier, "gated_part"):
        raise OptionError(f"expected a purifier with a gate for a gate_weight above 0, got {type(purifier).__name__}")
    purifier.gated_part()
    return _hidden(attack, weight), GateBeside(model, purifier)


def _hidden(attack: Attack, weight: float) -> Attack:
    inner = attack
    while isinstance(inner, EOT):
        inner = inner.attack
    loss = climbed_loss(inner)
    if loss is None:
        raise OptionError(
            f"expected an attack that climbs a loss, such as PGD, for a gate_weight above 0, got {shown(inner)}"
        )
    return with_loss(attack, _less_excess(loss, -weight if getattr(inner, "targeted", False) else weight))


def _less_excess(loss: Loss, weight: float) -> Loss:
    def both(outputs: tuple[Any, Tensor], targets: Any) -> Tensor:
        found, excess = outputs
        climbed = loss(found, targets)
        return per_image(climbed, excess) - weight * excess if climbed.ndim else climbed - weight * excess.sum()

    return both
