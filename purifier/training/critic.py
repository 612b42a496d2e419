"""NRP's critic, which tells clean crops from purified ones, and the two losses of that contest (section 3.3, eq. 7).

Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020, https://arxiv.org/abs/2006.04924.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import OptionError

_WIDTHS = (64, 128, 256, 512, 512)


class Critic(nn.Module):
    """Five blocks, each of two convolutions with batch norm and leaky ReLU. The second convolution halves the size.

    The paper gives the kinds of layers and the number of blocks. Widths and kernel sizes are those of ESRGAN (Wang et
    al., ECCVW 2018, https://arxiv.org/abs/1809.00219), which the paper cites for the purifier.

    Args:
        crop_size: Side of the crops, in pixels; a multiple of 32.

    Raises:
        OptionError: If the side is not a multiple of 32.
    """

    def __init__(self, crop_size: int) -> None:
        super().__init__()
        if crop_size < 32 or crop_size % 32:
            raise OptionError(
                f"expected a crop_size that is a multiple of 32 with a critic, got {crop_size}; change it, or train "
                "without one (adversarial_weight=0)"
            )
        layers: list[nn.Module] = []
        before = 3
        for number, width in enumerate(_WIDTHS):
            # The first layer has no batch norm, which would remove the colours.
            layers += _layer(before, width, 3, 1, norm=number > 0) + _layer(width, width, 4, 2)
            before = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(before * (crop_size // 32) ** 2, 100), nn.LeakyReLU(0.2), nn.Linear(100, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Scores crops (N, 3, crop_size, crop_size): (N, 1), higher for clean ones."""
        scores: Tensor = self.head(self.blocks(images))
        return scores


def adversarial_loss(fake: Tensor, real: Tensor, *, relativistic: bool) -> Tensor:
    """L_adv (eq. 7): high if the critic tells purified images from clean ones.

    Args:
        fake: Scores (N, 1) of purified images.
        real: Scores (N, 1) of clean images; ignored unless relativistic.
        relativistic: Whether to compare with the mean score of the other kind (the average form of
            Jolicoeur-Martineau, "The relativistic discriminator", ICLR 2019, https://arxiv.org/abs/1807.00734).

    Returns:
        -log sigmoid(C(P(x')) - mean C(x)), or the vanilla GAN's -log sigmoid(C(P(x'))).
    """
    return F.softplus(-(fake - real.mean())).mean() if relativistic else F.softplus(-fake).mean()


def critic_loss(fake: Tensor, real: Tensor, *, relativistic: bool) -> Tensor:
    """The mirrored loss, which the critic minimises; arguments as for `adversarial_loss`."""
    if relativistic:
        return (F.softplus(-(real - fake.mean())).mean() + F.softplus(fake - real.mean()).mean()) / 2
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def contest(
    critic: nn.Module, purified: Tensor, clean: Tensor, *, relativistic: bool
) -> tuple[Tensor, Callable[[], Tensor]]:
    """Computes the losses of purifier and critic on a batch.

    Args:
        critic: Gives scores (N, 1) of crops.
        purified: Purified crops (N, 3, H, W). Gradients of the first loss flow to them.
        clean: Clean crops of the same shape.
        relativistic: As for `adversarial_loss`.

    Returns:
        The purifier's loss, and a function that computes the critic's loss. Call it after the critic's parameters
        require gradients again, as the training loop does.
    """
    with torch.no_grad():
        real = critic(clean).float()

    def of_critic() -> Tensor:
        return critic_loss(critic(purified.detach()).float(), critic(clean).float(), relativistic=relativistic)

    return adversarial_loss(critic(purified).float(), real, relativistic=relativistic), of_critic


def _layer(before: int, after: int, kernel: int, stride: int, *, norm: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(before, after, kernel, stride, 1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(after))
    return [*layers, nn.LeakyReLU(0.2)]
