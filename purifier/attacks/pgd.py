"""PGD: projected gradient descent.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, section 2.1,
https://arxiv.org/abs/1706.06083. The L2 form steps along the direction of the gradient. With a loss of its own, PGD
attacks models of any task.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from purifier._options import check_bool
from purifier.attacks._balls import random_start
from purifier.attacks._gradient import GradientAttack
from purifier.attacks.base import COMPUTED


@dataclass(kw_only=True, eq=False, repr=False)
class PGD(GradientAttack):
    """Increases a model's loss by gradient steps inside a norm ball around each image, from a random point of the ball.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, in the same units. None means eps / 4.
        steps: Number of gradient steps.
        norm: "Linf" or "L2".
        targeted: Whether to lower the loss, so that the model predicts `targets`, instead of raising it.
        restarts: Number of random starts. For each image, the start with the highest loss wins.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar. None means cross entropy.
        random_start: Whether to start at a random point of the ball instead of the image.
        generator: Source of randomness. None means torch's global generator.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.PGD(eps=8 / 255, steps=5)(model, images, labels)
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    alpha: float = COMPUTED
    steps: int = 10
    restarts: int = 1
    random_start: bool = True
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bool("random_start", self.random_start)

    def _start(self, images: Tensor) -> Tensor:
        if not self.random_start:
            return super()._start(images)
        return random_start(images, self.eps, self.norm, self.generator)
