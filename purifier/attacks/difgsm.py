"""DI-FGSM (DIM): the gradient is taken at a randomly resized and padded view of the images.

Xie et al., "Improving Transferability of Adversarial Examples with Input Diversity", CVPR 2019, eq. 4 and 6. Our
deviation: the view is shrunk and padded back to the images' size instead of enlarged, so that models of a fixed input
size, and dense outputs, still fit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._errors import OptionError
from purifier.attacks._balls import Norm
from purifier.attacks._random import uniform
from purifier.attacks.base import Loss
from purifier.attacks.mifgsm import MIFGSM


class DIFGSM(MIFGSM):
    """Steps with momentum along gradients that were taken through a random view, one for the batch at each step.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, same units; eps / steps where None.
        steps: Number of gradient steps.
        norm: "Linf" or "L2".
        targeted: Whether `targets` is where to go instead of what to leave.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar; cross entropy where None.
        decay: Share of the running sum of gradients that is kept at each step. 1 is the paper's M-DI2-FGSM, later
            called DIM; 0 its DI2-FGSM.
        shrink: Smallest scale of a view, in (0, 1].
        probability: How often the view is taken instead of the images as they are.
        generator: Source of the views; torch's global one where None.

    Raises:
        OptionError: Where an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.DIFGSM(eps=8 / 255, steps=5)(model, images, labels)
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    def __init__(
        self,
        *,
        eps: float = 8 / 255,
        alpha: float | None = None,
        steps: int = 10,
        norm: Norm = "Linf",
        targeted: bool = False,
        loss: Loss | None = None,
        decay: float = 1.0,
        shrink: float = 0.9,
        probability: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            eps=eps,
            alpha=alpha,
            steps=steps,
            norm=norm,
            targeted=targeted,
            loss=loss,
            decay=decay,
            generator=generator,
        )
        if not (0 < shrink <= 1 and 0 <= probability <= 1):
            raise OptionError(
                f"expected shrink in (0, 1] and probability in [0, 1], got shrink={shrink}, probability={probability}"
            )
        self.shrink = shrink
        self.probability = probability

    def _view(self, images: Tensor) -> Tensor:
        chance, scale, across, down = uniform((4,), images, self.generator).tolist()
        if chance >= self.probability:
            return images
        height, width = images.shape[-2:]
        scale = self.shrink + (1 - self.shrink) * scale
        size = max(1, round(scale * height)), max(1, round(scale * width))
        top, left = round(down * (height - size[0])), round(across * (width - size[1]))
        view = F.interpolate(images, size, mode="nearest")
        return F.pad(view, (left, width - size[1] - left, top, height - size[0] - top))
