"""GS: iterative Gaussian smoothing.

Cha et al., "NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024,
section 3.3 (https://arxiv.org/abs/2106.11644): G^i, i passes of a K x K Gaussian kernel with sigma = (K - 1) / 6.

The paper does not state the border. Ours is whole-sample symmetric ("reflect"), of any width. A symmetric kernel
preserves that symmetry, so i passes equal one pass of the kernel convolved i times with itself, which is one linear map
per axis: y = A_H x A_W^T. The negligible ends of that kernel are left out, so its halo grows with the square root of i
and the cost hardly grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._options import SLOW, check_integer
from purifier._tracing import is_exporting, is_tracing
from purifier.methods._base import Method, Stage
from purifier.methods._borders import reflect_index, reflect_pad

# First sample, and the one after the last.
_Range = tuple[int, int]

# An axis is smoothed in blocks of at most this many samples, each by a product with its part of the matrix. These
# sizes were the fastest: on a CPU blocks avoid products with zeros, on a GPU each block costs a kernel launch.
_BLOCK_CPU = 128
_BLOCK_GPU = 384
# Compiled code uses one dense matrix per axis up to this size and a convolution above it. Both allow dynamic sizes.
_DENSE_COMPILED = 384
# Taps at each end of the kernel are left out while their sum is at most this. Single precision resolves 6e-8.
_NEGLIGIBLE = 1e-9
# Largest reach, in pixels, of all passes together. The time to compute the kernel grows with its square.
_FARTHEST = 1024


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
    # Lists, because torch.compile cannot trace generators.
    for _ in range(iterations):
        border = [0.0] * (kernel_size - 1)
        wide = border + taps + border
        taps = [sum([once[k] * wide[n + k] for k in range(kernel_size)]) for n in range(len(taps) + kernel_size - 1)]
    return taps


@lru_cache(maxsize=32)
def _known_taps(kernel_size: int, iterations: int) -> tuple[float, ...]:
    return tuple(trimmed(gaussian_kernel(kernel_size, iterations)))


def trimmed(taps: list[float]) -> list[float]:
    """Removes the ends of a symmetric kernel, which change no output by more than 2e-9 of the range."""
    dropped, lost = 0, 0.0
    while lost + taps[dropped] <= _NEGLIGIBLE:
        lost += taps[dropped]
        dropped += 1
    return taps[dropped : len(taps) - dropped]


def _matrix(
    taps: Sequence[float], size: int, span: _Range, seen: _Range, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Returns the rows `span` and the columns `seen` of the (size, size) matrix that smooths an axis with its borders.

    Args:
        taps: The kernel.
        size: Number of samples of the axis.
        span: First output sample, and the one after the last.
        seen: First input sample that an output of the span depends on, and the one after the last.
        dtype: Dtype of the matrix.
        device: Device of the matrix.
    """
    radius = len(taps) // 2
    offsets = torch.arange(-radius, radius + 1, device=device)
    sources = reflect_index(torch.arange(*span, device=device)[:, None] + offsets, size) - seen[0]
    # Taps that fold onto one sample are summed, in single precision or better.
    exact = torch.promote_types(dtype, torch.float32)
    weights = torch.tensor(taps, dtype=exact, device=device).expand(span[1] - span[0], -1)
    matrix = torch.zeros(span[1] - span[0], seen[1] - seen[0], dtype=exact, device=device)
    return matrix.scatter_add(1, sources, weights).to(dtype)


@lru_cache(maxsize=32)
def _kept(
    taps: tuple[float, ...], size: int, span: _Range, seen: _Range, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Returns a cached matrix. Later calls may need a gradient and may run on another stream."""
    with torch.inference_mode(False), torch.no_grad():
        matrix = _matrix(taps, size, span, seen, dtype, device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return matrix


def _kept_matrix(taps: list[float], size: int, span: _Range, seen: _Range, like: Tensor) -> Tensor:
    """Returns the same as `_matrix`, from a cache unless a graph is being recorded."""
    captured = like.is_cuda and torch.cuda.is_current_stream_capturing()
    if type(like) is not Tensor or is_tracing() or captured:
        return _matrix(taps, size, span, seen, like.dtype, like.device)
    return _kept(tuple(taps), size, span, seen, like.dtype, like.device)


def _blocks(taps: list[float], size: int, longest: int, like: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Yields (first, last, matrix) per block of outputs: the span of its input samples and its part of the matrix."""
    radius, length = len(taps) // 2, -(-size // -(-size // longest))
    made: dict[tuple[int, int, int], Tensor] = {}
    for start in range(0, size, length):
        stop = min(start + length, size)
        first, last = max(0, start - radius), min(size, stop + radius)
        # Blocks with equal shape and equal distances to their input span have the same matrix.
        shape = (start - first, stop - start, last - stop)
        if shape not in made:
            made[shape] = _kept_matrix(taps, size, (start, stop), (first, last), like)
        yield first, last, made[shape]


def _smooth_blocks(images: Tensor, taps: list[float]) -> Tensor:
    """Smooths both axes block by block. An axis of one block is a product with one dense matrix."""
    height, width = images.shape[-2:]
    longest = _BLOCK_CPU if images.device.type == "cpu" else _BLOCK_GPU
    lines = images.flatten(0, -2)
    parts = [lines[:, a:b] @ matrix.transpose(-1, -2) for a, b, matrix in _blocks(taps, width, longest, images)]
    rows = _joined(parts, 1).unflatten(0, images.shape[:-1])
    return _joined([matrix @ rows[..., a:b, :] for a, b, matrix in _blocks(taps, height, longest, images)], -2)


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def _smooth_dense(images: Tensor, taps: list[float]) -> Tensor:
    height, width = ((0, size) for size in images.shape[-2:])
    rows = images @ _matrix(taps, width[1], width, width, images.dtype, images.device).transpose(-1, -2)
    return _matrix(taps, height[1], height, height, images.dtype, images.device) @ rows


def _smooth_any_size(images: Tensor, taps: list[float]) -> Tensor:
    """Returns the same output with a graph for every size: one convolution per axis, after padding."""
    radius, channels = len(taps) // 2, images.shape[1]
    kernel = torch.tensor(taps, dtype=images.dtype, device=images.device).expand(channels, 1, 1, -1)
    rows = F.conv2d(reflect_pad(images, radius, radius, 0, 0), kernel, groups=channels)
    return F.conv2d(reflect_pad(rows, 0, 0, radius, radius), kernel.transpose(-1, -2), groups=channels)


def _smooth(images: Tensor, taps: list[float]) -> Tensor:
    if len(taps) == 1:
        return images
    if is_exporting() or torch.onnx.is_in_onnx_export():
        return _smooth_any_size(images, taps)
    if torch.compiler.is_compiling():
        return (_smooth_dense if max(images.shape[-2:]) <= _DENSE_COMPILED else _smooth_any_size)(images, taps)
    return _smooth_blocks(images, taps)


class GaussianSmoothing(Method):
    """Smooths with a Gaussian kernel, several times.

    Args:
        kernel_size: K, odd and positive; sigma is (K - 1) / 6 pixels.
        iterations: i, the number of passes. 0 returns the images unchanged, which defends nothing.
    """

    tunable = ("kernel_size", "iterations")

    def __init__(self, *, kernel_size: int = 5, iterations: int = 7) -> None:
        super().__init__()
        self.kernel_size = check_integer("kernel_size", kernel_size, low=1, high=255, odd=True, why=SLOW)
        self.iterations = check_integer("iterations", iterations, low=0, high=self.most_iterations, why=SLOW)

    @property
    def most_iterations(self) -> int:
        return _FARTHEST // max(1, self.kernel_size // 2)

    @property
    def options(self) -> dict[str, Any]:
        return {"kernel_size": self.kernel_size, "iterations": self.iterations}

    def stages(self) -> list[Stage]:
        if is_tracing():
            taps = trimmed(gaussian_kernel(self.kernel_size, self.iterations))
        else:
            taps = list(_known_taps(self.kernel_size, self.iterations))
        return [Stage(partial(_smooth, taps=taps), halo=len(taps) // 2)]
