"""The critic: is a crop real, or purified? (NRP, Figure 3: VGG-like, five blocks and a fully connected layer.)"""

from __future__ import annotations

from torch import Tensor, nn

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


def _layer(before: int, after: int, kernel: int, stride: int, *, norm: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(before, after, kernel, stride, 1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(after))
    return [*layers, nn.LeakyReLU(0.2)]
