"""Low-frequency PGD: perturbations without fine detail, which smoothing and JPEG do not remove.

Guo, Frank & Weinberger, "Low Frequency Adversarial Perturbation", UAI 2019, section 3, https://arxiv.org/abs/1809.08758.
Sharma, Ding & Brubaker, "On the Effectiveness of Low Frequency Perturbations", IJCAI 2019, section 3,
https://arxiv.org/abs/1903.00073.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier.attacks.pgd import PGD


@dataclass(kw_only=True, eq=False, repr=False)
class LowFrequencyPGD(PGD):
    """PGD whose steps have the lowest frequencies of the discrete cosine transform (DCT-II) only.

    The random start, the gradients and the steps are projected onto these frequencies. Steps that leave the ball or
    [0, 1] are clipped, which adds some higher frequencies.

    Args:
        share: Share of the frequencies that is kept along each axis, in (0, 1]. 1 gives PGD.
        eps, alpha, steps, norm, targeted, restarts, loss, random_start, generator: See `PGD`.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.LowFrequencyPGD(eps=8 / 255, steps=5, share=0.5)(model, images, labels)
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    _whole_ball: ClassVar[bool] = False

    share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise OptionError(f"expected share in (0, 1], got {self.share}")

    def _start(self, images: Tensor) -> Tensor:
        return low_pass(super()._start(images), self.share).clamp(-self.eps, self.eps)

    def _step(self, direction: Tensor) -> Tensor:
        return low_pass(super()._step(low_pass(direction, self.share)), self.share)


def low_pass(values: Tensor, share: float) -> Tensor:
    """Returns values (N, C, H, W) with a share of the DCT frequencies along each axis, at least the constant one."""
    if share == 1:
        return values
    rows, columns = (_projection(size, share).to(values) for size in values.shape[-2:])
    return rows @ values @ columns


@functools.lru_cache(maxsize=8)
def _projection(size: int, share: float) -> Tensor:
    """Returns, in float64, the projection (size, size) onto the lowest frequencies of the orthonormal DCT-II."""
    places = torch.arange(size, dtype=torch.float64)
    frequencies = places[: math.ceil(share * size)].unsqueeze(1)
    waves = torch.cos(math.pi * (places + 0.5) * frequencies / size)
    waves = waves / waves.norm(dim=1, keepdim=True)
    return waves.T @ waves
