"""The losses of NRP, eq. 5 to 8 of the paper."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def pixel_loss(purified: Tensor, clean: Tensor) -> Tensor:
    """L_img (eq. 6): the Euclidean distance of each image (N, C, H, W) to its clean one, averaged over the batch.

    It is not divided by the number of pixels, so that it grows with the crop, as the equation says.
    """
    return (purified - clean).flatten(1).norm(dim=1).mean()


def feature_loss(purified: Tensor, clean: Tensor) -> Tensor:
    """L_feat (eq. 8): the mean absolute difference of features."""
    return (purified - clean).abs().mean()


def adversarial_loss(fake: Tensor, real: Tensor, *, relativistic: bool) -> Tensor:
    """L_adv (eq. 7): what the purifier loses where the critic tells its images from real ones.

    Args:
        fake: Scores (N, 1) of purified images.
        real: Scores (N, 1) of clean images; take no part where not relativistic.
        relativistic: Compare with the mean score of the other kind (Jolicoeur-Martineau, "The relativistic
            discriminator", ICLR 2019, its average form).

    Returns:
        -log sigmoid(C(P(x')) - mean C(x)), or the vanilla GAN's -log sigmoid(C(P(x'))).
    """
    return F.softplus(-(fake - real.mean())).mean() if relativistic else F.softplus(-fake).mean()


def critic_loss(fake: Tensor, real: Tensor, *, relativistic: bool) -> Tensor:
    """The mirrored loss, which the critic descends; arguments as for `adversarial_loss`."""
    if relativistic:
        return (F.softplus(-(real - fake.mean())).mean() + F.softplus(fake - real.mean()).mean()) / 2
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
