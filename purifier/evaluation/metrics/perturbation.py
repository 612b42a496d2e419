"""How a perturbation is distributed in small patches: whether its mean is zero, and whether it is symmetric.

Perturbations of PGD nearly are both (Cha et al., WACV 2024, section 3.2, https://arxiv.org/abs/2106.11644), and that is
why smoothing removes them. Smoothing cannot remove what is the same over a whole patch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Side of a patch in pixels.
PATCH = 7


def patch_statistics(perturbation: Tensor, side: int = PATCH) -> dict[str, float]:
    """Returns how far the patches of a perturbation are from a zero mean and from symmetry.

    The paper draws patches at random; here they are all those of a grid, in each channel, that hold any change.

    Args:
        perturbation: Attacked minus clean image, (C, H, W).
        side: Side of a patch in pixels. A smaller image is one patch.

    Returns:
        patch_mean: Mean over the patches of |mean| / root mean square: 0 for patches with a mean of zero, 1 for
            constant ones. Independent signs give about 0.11 for patches of 7 x 7.
        patch_skewness: Mean over the patches of |mean - median| / mean |x - median|, the skewness of Groeneveld and
            Meeden (1984), in [0, 1].
        Both are 0 if nothing is changed.
    """
    height, width = perturbation.shape[-2:]
    tall, wide = min(side, height), min(side, width)
    columns = F.unfold(perturbation.double()[:, None], (tall, wide), stride=(tall, wide))
    patches = columns.transpose(1, 2).reshape(-1, tall * wide)
    patches = patches[patches.any(1)]
    if not len(patches):
        return {"patch_mean": 0.0, "patch_skewness": 0.0}
    size = patches.square().mean(1).sqrt()
    middle = patches.quantile(0.5, 1)
    spread = (patches - middle[:, None]).abs().mean(1)
    skewness = (patches.mean(1) - middle).abs() / spread.clamp_min(torch.finfo(torch.float64).tiny)
    skewness = torch.where(spread > 1e-9 * size, skewness, 0.0)
    return {
        "patch_mean": float((patches.mean(1).abs() / size).mean()),
        "patch_skewness": float(skewness.mean()),
    }
