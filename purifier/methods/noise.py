"""Projected Gaussian noise, the first half of dynamic inference.

Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020, appendix B.1
(https://arxiv.org/abs/2006.04924). Against attackers who know the purifier, noise of sigma 0.05 is added before
purifying, limited to an absolute value of 16/255; the noisy image is clamped to [0, 1].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from purifier._options import check_number
from purifier.methods._base import Method, Stage


class ProjectedNoise(Method):
    """Adds Gaussian noise, clipped to [-eps, eps] and new in every call. Gradients flow.

    Args:
        sigma: Standard deviation, in units of the [0, 1] range.
        eps: Largest absolute value of the noise, in the same units.
    """

    random = True
    tunable = ("sigma", "eps")
    export_obstacle = "its noise is drawn by torch"

    def __init__(self, *, sigma: float = 0.05, eps: float = 16 / 255) -> None:
        super().__init__()
        self.sigma = check_number("sigma", sigma, low=0, high=1)
        self.eps = check_number("eps", eps, low=0, high=1)
        self.generator: torch.Generator | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {"sigma": self.sigma, "eps": self.eps}

    def stages(self) -> list[Stage]:
        return [Stage(self._add, halo=None)]

    def _add(self, images: Tensor) -> Tensor:
        device = images.device if self.generator is None else self.generator.device
        noise = torch.randn(images.shape, generator=self.generator, device=device, dtype=images.dtype)
        return (images + (self.sigma * noise).clamp(-self.eps, self.eps).to(images.device)).clamp(0, 1)
