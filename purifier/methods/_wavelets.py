"""Wavelet denoising: soft thresholds for the details of the Haar transform, one for each of its bands."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier.methods._borders import crop, reflect_pad

# RGB to luma and chroma, ITU-R BT.601. The scale of a row does not matter.
_CHANNELS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
# The inverse. An exported graph cannot compute it.
_COLOURS = torch.linalg.inv(torch.tensor(_CHANNELS, dtype=torch.float64)).tolist()
# Combinations of the pixels of a 2 x 2 square: mean and details, as rows of an orthogonal matrix.
_HAAR = ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, -0.5, -0.5), (0.5, -0.5, 0.5, -0.5), (0.5, -0.5, -0.5, 0.5))
# Least variance of a band beside the noise's. It keeps thresholds finite where a band holds noise only.
_LEAST = 1e-12


def denoised(images: Tensor, sigma: float, levels: int) -> Tensor:
    """Removes Gaussian noise from images by BayesShrink in luma and chroma.

    Each band gets the threshold of Chang, Yu and Vetterli, "Adaptive Wavelet Thresholding for Image Denoising and
    Compression", 2000 (https://doi.org/10.1109/83.862633): the variance of the noise, divided by the standard deviation
    of the details without the noise.

    Args:
        images: RGB images (N, 3, H, W) in [0, 1]. Sizes that are not multiples of 2**levels are padded by reflection.
        sigma: Standard deviation of the noise in each colour, in units of the [0, 1] range.
        levels: Number of scales.

    Returns:
        Denoised images of the same shape, not clamped. Gradients are exact.
    """
    to_channels = images.new_tensor(_CHANNELS)
    height, width = images.shape[-2:]
    bottom, right = (-size % 2**levels for size in (height, width))
    channels = torch.einsum("ij,njhw->nihw", to_channels, reflect_pad(images, 0, right, 0, bottom))
    variances = (sigma**2 * to_channels.square().sum(1)).view(1, 3, 1, 1, 1)
    restored = _shrunk(channels, variances, levels)
    return crop(torch.einsum("ij,njhw->nihw", images.new_tensor(_COLOURS), restored), height, width)


def _shrunk(channels: Tensor, variances: Tensor, levels: int) -> Tensor:
    """Shrinks the details of channels (N, 3, H, W) at every level."""
    if not levels:
        return channels
    haar = channels.new_tensor(_HAAR)
    count, _, height, width = channels.shape
    squares = F.pixel_unshuffle(channels, 2).view(count, 3, 4, height // 2, width // 2)
    bands = torch.einsum("ij,ncjhw->ncihw", haar, squares)
    mean, details = bands[:, :, :1], bands[:, :, 1:]
    spread = (details.square().mean((3, 4), keepdim=True) - variances).clamp_min(_LEAST).sqrt()
    shrunk = F.relu(details - variances / spread) - F.relu(-details - variances / spread)
    coarse = _shrunk(mean[:, :, 0], variances, levels - 1)
    bands = torch.cat((coarse[:, :, None], shrunk), 2)
    squares = torch.einsum("ij,ncihw->ncjhw", haar, bands)
    return F.pixel_shuffle(squares.flatten(1, 2), 2)
