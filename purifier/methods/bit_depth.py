"""Bit-depth reduction.

Xu et al., "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks", NDSS 2018, section III-B
(https://arxiv.org/abs/1704.01155).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from purifier._options import check_integer
from purifier.methods._base import Method, Stage


class BitDepth(Method):
    """Rounds every value to one of 2^bits levels. The exact gradient is zero almost everywhere.

    Args:
        bits: Bits per channel, 1 .. 8.
    """

    differentiable = False
    tunable = ("bits",)

    def __init__(self, *, bits: int = 4) -> None:
        super().__init__()
        self.bits = check_integer("bits", bits, low=1, high=8)

    @property
    def options(self) -> dict[str, Any]:
        return {"bits": self.bits}

    def stages(self) -> list[Stage]:
        return [Stage(self._round, halo=0)]

    def _round(self, images: Tensor) -> Tensor:
        levels = 2**self.bits - 1
        return (images * levels).round() / levels
