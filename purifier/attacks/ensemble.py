"""Ensemble: several models that are attacked as one, for perturbations that transfer to others.

Liu et al., "Delving into Transferable Adversarial Examples and Black-box Attacks", ICLR 2017, section 5,
https://arxiv.org/abs/1611.02770, averages probabilities. Dong et al., "Boosting Adversarial Attacks with Momentum",
CVPR 2018, section 3.4, https://arxiv.org/abs/1710.06081, compares means of logits, of probabilities and of losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from purifier._errors import InputError, OptionError
from purifier.attacks.losses import logits_in

OutputAverage = Literal["logits", "probabilities"]


class Ensemble(nn.Module):
    """The mean output of several models of images in [0, 1], as a model that any attack takes.

    Gradients flow through all of them. For the mean of losses, see `Transfer(..., average="losses")`.

    Args:
        *models: Models of one task, each with logits of the same shape.
        average: "logits" for the mean logits, or "probabilities" for the logarithm of the mean probabilities.

    Raises:
        OptionError: If there is no model, or `average` is neither of the two.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10)) for _ in range(2)]
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> attacks.MIFGSM(steps=2)(attacks.Ensemble(*models), images, labels).shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(self, *models: Callable[..., Any], average: OutputAverage = "logits") -> None:
        super().__init__()
        check_models(models, "Ensemble")
        if average not in ("logits", "probabilities"):
            raise OptionError(f"expected average='logits' or average='probabilities', got {average!r}")
        self.models = list(models)
        # Registered as modules, so that their modes are checked.
        self.modules_among = nn.ModuleList(model for model in models if isinstance(model, nn.Module))
        self.average = average
        self.training = any(model.training for model in self.modules_among)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of the shape that each model returns, in single or double precision.

        Args:
            images: (N, C, H, W) in [0, 1].

        Raises:
            InputError: If the models do not return logits of one shape.
        """
        outputs = [logits_in(model(images)) for model in self.models]
        shapes = [tuple(o.shape) if isinstance(o, Tensor) else type(o).__name__ for o in outputs]
        if len(set(shapes)) > 1 or not all(isinstance(o, Tensor) and o.ndim > 1 for o in outputs):
            raise InputError(
                f"expected surrogates with logits of one shape to average, got {', '.join(map(str, shapes))}; average "
                'their losses with Transfer(..., average="losses"), or attack them one by one, each in its own Transfer'
            )
        logits = torch.stack([output.to(torch.promote_types(output.dtype, torch.float32)) for output in outputs])
        if self.average == "logits":
            return logits.mean(0)
        return logits.log_softmax(2).logsumexp(0) - math.log(len(outputs))


def check_models(models: Sequence[Any], taker: str) -> None:
    """Checks that there is at least one model, and that each can be called.

    Raises:
        OptionError: If not.
    """
    if not models or not all(callable(model) for model in models):
        got = ", ".join(type(model).__name__ for model in models) or "none"
        raise OptionError(f"expected at least one surrogate model to attack, got {got}; pass {taker}(model)")
