"""NI-FGSM: momentum with Nesterov's look-ahead, for perturbations that transfer to other models.

Lin et al., "Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks", ICLR 2020, eq. 6 to 8,
https://arxiv.org/abs/1908.06281. Each gradient is divided by its mean absolute value, as in the authors' code, so that
the look-ahead has the size of a step. Divided by the L1 norm, as in the equations, it would be close to zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from purifier.attacks.mifgsm import MIFGSM


@dataclass(kw_only=True, eq=False, repr=False)
class NIFGSM(MIFGSM):
    """Takes each gradient where the running sum of gradients leads, instead of at the current point.

    The look-ahead is `alpha * decay` times the running sum. Its points may leave the ball and [0, 1]; the result does
    not.

    Args:
        eps, alpha, steps: See `MIFGSM`.
        decay: Share of the running sum that is kept at each step. 0 gives BIM.
        norm, targeted, loss, generator: See `PGD`.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.NIFGSM(eps=8 / 255, steps=5)(model, images, labels)
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    def _ahead(self, points: Tensor, direction: Tensor) -> Tensor:
        # Gradients of L1 norm 1 become gradients of mean 1 for Linf, and of a length near 1 for L2.
        values = points[0].numel()
        scale = values if self.norm == "Linf" else math.sqrt(values)
        return points + self.alpha * self.decay * scale * direction
