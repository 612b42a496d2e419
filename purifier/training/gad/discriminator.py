"""The discriminator, which tells clean outputs from adversarial ones at each place of a picture."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from purifier._options import check_integer

_WIDEST = 8


class PatchDiscriminator(nn.Module):
    """Convolutions with leaky ReLU that halve the size, then a score for each remaining place.

    A patch discriminator at one scale, as in pix2pixHD (Wang et al., CVPR 2018, https://arxiv.org/abs/1711.11585). The
    paper uses its generator. Normalisation is over all channels, for the reason given in `purifier.methods.gad`.

    Args:
        filters: Width of the first layer. Each later layer doubles it, up to eight times.
        layers: Number of halvings.

    Raises:
        OptionError: If one is below 1.
    """

    def __init__(self, *, filters: int = 64, layers: int = 3) -> None:
        super().__init__()
        check_integer("critic_filters", filters, low=1)
        check_integer("critic_layers", layers, low=1)
        widths = [filters * min(2**number, _WIDEST) for number in range(layers + 1)]
        blocks = [_block(3, widths[0], 2, norm=False)]
        blocks += [
            _block(before, after, 2 if number < layers else 1)
            for number, (before, after) in enumerate(pairwise(widths), start=1)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(widths[-1], 1, 4, padding=2)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores images (N, 3, H, W) of any size.

        Returns:
            Scores (N, 1, h, w), near 1 for clean outputs, and the features of every layer, for eq. 4.
        """
        features: list[Tensor] = []
        for block in self.blocks:
            features.append(block(features[-1] if features else images))
        scores: Tensor = self.head(features[-1])
        return scores, features


def _block(before: int, after: int, stride: int, *, norm: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(before, after, 4, stride, 2)]
    if norm:
        layers.append(nn.GroupNorm(1, after))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))
