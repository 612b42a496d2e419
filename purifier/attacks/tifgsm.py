"""TI-FGSM and DIM-TI: gradients smoothed by a kernel, which approximates their mean over shifted images.

Dong et al., "Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks", CVPR 2019,
eq. 6 and 7, https://arxiv.org/abs/1904.02884. DIM-TI is the paper's TI-DIM, the strongest attack in the tables of
papers on purification.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._options import check_integer
from purifier.attacks.difgsm import DIFGSM
from purifier.attacks.mifgsm import MIFGSM


@dataclass(kw_only=True, eq=False, repr=False)
class TIFGSM(MIFGSM):
    """Steps along gradients that are smoothed by a Gaussian kernel.

    Args:
        decay: Share of the running sum of gradients that is kept at each step. 1 gives the paper's TI-MI-FGSM.
        kernel_size: Side of the kernel in pixels, odd. 1 smooths nothing.
        eps, alpha, steps: See `MIFGSM`.
        norm, targeted, loss: See `PGD`.
    """

    decay: float = 0.0
    kernel_size: int = 15
    generator: torch.Generator | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("kernel_size", self.kernel_size, low=1, odd=True)

    def _direct(self, gradient: Tensor, previous: Tensor) -> Tensor:
        return super()._direct(smooth(gradient, self.kernel_size), previous)


@dataclass(kw_only=True, eq=False, repr=False)
class DITIFGSM(TIFGSM, DIFGSM):
    """DIM-TI: gradients taken through random views, smoothed, with momentum.

    Args:
        kernel_size: Side of the smoothing kernel in pixels, odd.
        eps, alpha, steps, decay: See `MIFGSM`.
        shrink, probability: See `DIFGSM`.
        norm, targeted, loss, generator: See `PGD`.
    """

    decay: float = 1.0
    generator: torch.Generator | None = None


def smooth(gradients: Tensor, kernel_size: int) -> Tensor:
    """Convolves each channel of gradients (N, C, H, W) with a Gaussian kernel; zero padded, shape kept.

    A kernel of side 2k + 1 has the standard deviation k / sqrt(3), as in the paper.
    """
    k = kernel_size // 2
    if k == 0:
        return gradients
    places = torch.arange(-k, k + 1, dtype=gradients.dtype, device=gradients.device)
    row = torch.exp(-1.5 * (places / k) ** 2)
    row = (row / row.sum()).expand(gradients.shape[1], 1, 1, -1)
    across = F.conv2d(gradients, row, padding=(0, k), groups=gradients.shape[1])
    return F.conv2d(across, row.transpose(2, 3), padding=(k, 0), groups=gradients.shape[1])
