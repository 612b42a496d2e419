"""The critic of NRP and its losses: is a crop real, or purified? (Figure 3: VGG-like, five blocks; eq. 7.)"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import OptionError

_WIDTHS = (64, 128, 256, 512, 512)


class Critic(nn.Module):
    """Five blocks, each of two convolutions with batch norm and leaky ReLU, the second of which halves the size.

    The paper gives the kinds of layers and the number of blocks; widths and kernel sizes are those of its citation
    for the purifier (Wang et al., "ESRGAN", ECCVW 2018).

    Args:
        crop_size: Side of the crops, in pixels; a multiple of 32.

    Raises:
        OptionError: Where the side is none.
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
            # Without the first batch norm, which would take the colours away.
            layers += _layer(before, width, 3, 1, norm=number > 0) + _layer(width, width, 4, 2)
            before = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(before * (crop_size // 32) ** 2, 100), nn.LeakyReLU(0.2), nn.Linear(100, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Scores crops (N, 3, crop_size, crop_size): (N, 1), higher for real."""
        scores: Tensor = self.head(self.blocks(images))
        return scores


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


def contest(
    critic: nn.Module, purified: Tensor, clean: Tensor, *, relativistic: bool
) -> tuple[Tensor, Callable[[], Tensor]]:
    """What a purifier loses against a critic on a batch, and what gives the critic's own loss on it.

    Args:
        critic: Gives scores (N, 1) of crops.
        purified: Purified crops (N, 3, H, W); the first loss has gradients to them.
        clean: Clean ones.
        relativistic: As for `adversarial_loss`.

    Returns:
        The purifier's loss, and a function that computes the critic's: to be called when the parameters of the critic
        have gradients again, as the training loop does.
    """
    with torch.no_grad():
        real = critic(clean).float()

    def judged() -> Tensor:
        return critic_loss(critic(purified.detach()).float(), critic(clean).float(), relativistic=relativistic)

    return adversarial_loss(critic(purified).float(), real, relativistic=relativistic), judged


def _layer(before: int, after: int, kernel: int, stride: int, *, norm: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(before, after, kernel, stride, 1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(after))
    return [*layers, nn.LeakyReLU(0.2)]
