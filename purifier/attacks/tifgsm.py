"""TI-FGSM and DIM-TI: gradients smoothed by a kernel, as if averaged over shifted images.

Dong et al., "Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks", CVPR 2019,
eq. 6 and 7; DIM-TI is its TI-DIM, the strongest attack of the purification papers' tables.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._errors import OptionError
from purifier.attacks._balls import Norm
from purifier.attacks.base import Loss
from purifier.attacks.difgsm import DIFGSM
from purifier.attacks.mifgsm import MIFGSM


class TIFGSM(MIFGSM):
    """Steps along gradients that are smoothed by a Gaussian kernel.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, same units; eps / steps where None.
        steps: Number of gradient steps.
        norm: "Linf" or "L2".
        targeted: Whether `targets` is where to go instead of what to leave.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar; cross entropy where None.
        decay: Share of the running sum of gradients that is kept at each step; 1 is the paper's TI-MI-FGSM.
        kernel_size: Side of the kernel in pixels, odd; 1 smooths nothing.

    Raises:
        OptionError: Where an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.TIFGSM(eps=8 / 255, steps=5)(model, images, labels)
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
        decay: float = 0.0,
        kernel_size: int = 15,
    ) -> None:
        super().__init__(eps=eps, alpha=alpha, steps=steps, norm=norm, targeted=targeted, loss=loss, decay=decay)
        self.kernel_size = _checked(kernel_size)

    def _direct(self, gradient: Tensor, previous: Tensor) -> Tensor:
        return super()._direct(smooth(gradient, self.kernel_size), previous)


class DITIFGSM(DIFGSM):
    """DIM-TI: gradients through random views, smoothed, with momentum.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, same units; eps / steps where None.
        steps: Number of gradient steps.
        norm: "Linf" or "L2".
        targeted: Whether `targets` is where to go instead of what to leave.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar; cross entropy where None.
        decay: Share of the running sum of gradients that is kept at each step.
        shrink: Smallest scale of a view, in (0, 1].
        probability: How often the view is taken instead of the images as they are.
        kernel_size: Side of the smoothing kernel in pixels, odd.
        generator: Source of the views; torch's global one where None.

    Raises:
        OptionError: Where an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.DITIFGSM(eps=8 / 255, steps=5)(model, images, labels)
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
        kernel_size: int = 15,
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
            shrink=shrink,
            probability=probability,
            generator=generator,
        )
        self.kernel_size = _checked(kernel_size)

    def _direct(self, gradient: Tensor, previous: Tensor) -> Tensor:
        return super()._direct(smooth(gradient, self.kernel_size), previous)


def smooth(gradients: Tensor, kernel_size: int) -> Tensor:
    """Convolves each channel of gradients (N, C, H, W) with a Gaussian kernel; zero padded, shape kept.

    The kernel is of side 2k + 1 and of standard deviation k / sqrt(3), as in the paper.
    """
    k = kernel_size // 2
    if k == 0:
        return gradients
    places = torch.arange(-k, k + 1, dtype=gradients.dtype, device=gradients.device)
    row = torch.exp(-1.5 * (places / k) ** 2)
    row = (row / row.sum()).expand(gradients.shape[1], 1, 1, -1)
    across = F.conv2d(gradients, row, padding=(0, k), groups=gradients.shape[1])
    return F.conv2d(across, row.transpose(2, 3), padding=(k, 0), groups=gradients.shape[1])


def _checked(kernel_size: int) -> int:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise OptionError(f"expected an odd kernel_size >= 1, got {kernel_size}; 15 is the paper's")
    return kernel_size
