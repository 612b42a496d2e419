"""Median smoothing.

Xu et al., "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks", NDSS 2018, section III-C
(https://arxiv.org/abs/1704.01155).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from purifier._options import LARGE, check_integer
from purifier._tracing import is_exporting
from purifier.methods._base import Method, Stage
from purifier.methods._borders import reflect_pad


class Median(Method):
    """Replaces every value by the median of its K x K window, with reflect borders. Its gradient goes to that median.

    Args:
        kernel_size: K, odd, at most 15.
    """

    tunable = ("kernel_size",)

    def __init__(self, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.kernel_size = check_integer("kernel_size", kernel_size, low=1, high=15, odd=True, why=LARGE)

    @property
    def options(self) -> dict[str, Any]:
        return {"kernel_size": self.kernel_size}

    def stages(self) -> list[Stage]:
        return [Stage(self._median, halo=self.kernel_size // 2)]

    def _median(self, images: Tensor) -> Tensor:
        radius = self.kernel_size // 2
        padded = reflect_pad(images, radius, radius, radius, radius)
        if is_exporting() or torch.onnx.is_in_onnx_export():
            return self._median_any_size(images, padded)
        windows = padded.unfold(-2, self.kernel_size, 1).unfold(-2, self.kernel_size, 1)
        return windows.flatten(-2).median(-1).values

    def _median_any_size(self, images: Tensor, padded: Tensor) -> Tensor:
        """Returns the same values, with operators that other runtimes have too."""
        rows, columns = (torch.arange(size, device=images.device) for size in images.shape[-2:])
        places = range(self.kernel_size)
        shifted = [padded.index_select(-2, rows + y) for y in places]
        windows = torch.stack([part.index_select(-1, columns + x) for part in shifted for x in places], -1)
        return windows.topk(self.kernel_size**2 // 2 + 1, -1).values[..., -1]
