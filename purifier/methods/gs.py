"""GS: iterative Gaussian smoothing.

Cha et al., "NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024,
section 3.3: G^i, i passes of a K x K Gaussian kernel with sigma = (K - 1) / 6.

The paper does not state the border; ours is whole-sample symmetric ("reflect"), however wide. Such a border is
kept by a symmetric kernel, so i passes equal one pass of the kernel convolved i times with itself, and the whole
is one linear map per axis: y = A_H x A_W^T. The cost does not grow with i beyond that kernel's reach.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier.methods._base import Method, Stage
from purifier.methods._borders import reflect_index, reflect_pad
from purifier.methods._options import check_integer

# Up to this many samples an axis is smoothed by one dense matrix, above it by blocks of one banded matrix.
_DENSE_SIZE = 384
_BLOCK = 128


def gaussian_kernel(kernel_size: int, iterations: int = 1) -> list[float]:
    """Returns the one-dimensional kernel that equals `iterations` passes of the Gaussian of `kernel_size` taps.

    Each pass is sampled at integers with sigma = (kernel_size - 1) / 6 and sums to 1. Length:
    iterations * (kernel_size - 1) + 1; zero iterations give [1.0].
    """
    radius, sigma = kernel_size // 2, (kernel_size - 1) / 6
    once = [math.exp(-0.5 * (t / sigma) ** 2) if sigma else 1.0 for t in range(-radius, radius + 1)]
    total = sum(once)
    once = [tap / total for tap in once]
    taps = [1.0]
    # Lists rather than generators, which torch.compile cannot trace through.
    for _ in range(iterations):
        border = [0.0] * (kernel_size - 1)
        wide = border + taps + border
        taps = [sum([once[k] * wide[n + k] for k in range(kernel_size)]) for n in range(len(taps) + kernel_size - 1)]
    return taps


def _axis_matrix(size: int, taps: list[float], like: Tensor) -> Tensor:
    """(size, size) matrix that smooths one axis, reflect border included."""
    radius = len(taps) // 2
    offsets = torch.arange(-radius, radius + 1, device=like.device)
    sources = reflect_index(torch.arange(size, device=like.device)[:, None] + offsets, size)
    # Taps that fold onto one sample add up, so half-precision matrices are summed in single precision first.
    dtype = torch.promote_types(like.dtype, torch.float32)
    weights = torch.tensor(taps, dtype=dtype, device=like.device).expand(size, -1)
    matrix = torch.zeros(size, size, dtype=dtype, device=like.device)
    return matrix.scatter_add(1, sources, weights).to(like.dtype)


def _band_matrix(taps: list[float], like: Tensor) -> Tensor:
    """(_BLOCK + 2 * radius, _BLOCK) matrix that smooths one block of a padded axis."""
    matrix = torch.zeros(_BLOCK + len(taps) - 1, _BLOCK, dtype=like.dtype, device=like.device)
    for start, tap in enumerate(taps):
        matrix.diagonal(-start).fill_(tap)
    return matrix


def _smooth_last_axis(images: Tensor, taps: list[float]) -> Tensor:
    size, radius = images.shape[-1], len(taps) // 2
    if size <= _DENSE_SIZE:
        return images @ _axis_matrix(size, taps, images).mT
    padded = reflect_pad(images, radius, radius + -size % _BLOCK, 0, 0)
    windows = padded.unfold(-1, _BLOCK + 2 * radius, _BLOCK)
    return (windows @ _band_matrix(taps, images)).flatten(-2)[..., :size]


def _smooth_any_size(images: Tensor, taps: list[float]) -> Tensor:
    """The same map as a graph that holds for every size: one convolution an axis, after padding."""
    radius, channels = len(taps) // 2, images.shape[1]
    kernel = torch.tensor(taps, dtype=images.dtype, device=images.device).expand(channels, 1, 1, -1)
    rows = F.conv2d(reflect_pad(images, radius, radius, 0, 0), kernel, groups=channels)
    return F.conv2d(reflect_pad(rows, 0, 0, radius, radius), kernel.mT, groups=channels)


class GaussianSmoothing(Method):
    """Smooths with a Gaussian kernel, several times.

    Args:
        kernel_size: K, odd and positive; sigma is (K - 1) / 6 pixels.
        iterations: i, the number of passes; 0 returns the images unchanged.
    """

    tunable = ("kernel_size", "iterations")

    def __init__(self, *, kernel_size: int = 5, iterations: int = 7) -> None:
        super().__init__()
        self.kernel_size = check_integer("kernel_size", kernel_size, low=1, odd=True)
        self.iterations = check_integer("iterations", iterations, low=0)

    @property
    def options(self) -> dict[str, Any]:
        return {"kernel_size": self.kernel_size, "iterations": self.iterations}

    def stages(self) -> list[Stage]:
        return [Stage(self._smooth, halo=self.iterations * (self.kernel_size // 2))]

    def _smooth(self, images: Tensor) -> Tensor:
        if self.iterations == 0 or self.kernel_size == 1:
            return images
        taps = gaussian_kernel(self.kernel_size, self.iterations)
        if torch.compiler.is_exporting():
            return _smooth_any_size(images, taps)
        rows = _smooth_last_axis(images, taps)
        return _smooth_last_axis(rows.mT, taps).mT.contiguous()
