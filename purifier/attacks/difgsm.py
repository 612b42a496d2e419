"""DI-FGSM (DIM): the gradient is taken at a randomly resized and padded view of the images.

Xie et al., "Improving Transferability of Adversarial Examples with Input Diversity", CVPR 2019, eq. 4 and 6,
https://arxiv.org/abs/1803.06978. Our deviation: the view is shrunk and padded back to the images' size instead of
enlarged, so that it fits models of a fixed input size and dense outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from purifier._errors import OptionError
from purifier.attacks._random import uniform
from purifier.attacks.mifgsm import MIFGSM


@dataclass(kw_only=True, eq=False, repr=False)
class DIFGSM(MIFGSM):
    """Steps with momentum along the gradients of a random view: the batch, shrunk and padded anew at each step.

    Args:
        decay: Share of the running sum of gradients that is kept at each step. 1 gives the paper's M-DI2-FGSM, later
            called DIM; 0 gives its DI2-FGSM.
        shrink: Smallest scale of a view, in (0, 1].
        probability: Probability of using the view instead of the images themselves, in [0, 1].
        eps, alpha, steps: See `MIFGSM`.
        norm, targeted, loss, generator: See `PGD`.
    """

    shrink: float = 0.9
    probability: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.shrink <= 1 and 0 <= self.probability <= 1):
            raise OptionError(
                f"expected shrink in (0, 1] and probability in [0, 1], got shrink={self.shrink}, "
                f"probability={self.probability}"
            )

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
