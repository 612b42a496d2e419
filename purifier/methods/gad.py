"""GAD: an encoder-decoder that is trained in front of one given model.

"General Adversarial Defense via Pixel Level and Feature Level Distribution Alignment" (submitted to ICLR 2021; later
version: https://arxiv.org/abs/2212.05387), section 3 and appendix A.1. The network is the "global generator" of
pix2pixHD (Wang et al., CVPR 2018, https://arxiv.org/abs/1711.11585), with two down-sampling layers for classification
and four for segmentation and detection. No skip connection runs from input to output, because it would pass the
perturbation on.

Deviations: the default normalisation is over all channels together ("layer"). pix2pixHD's instance norm sets the mean
of every channel to 0, so a network with it cannot distinguish bright images from dark ones. The final hyperbolic
tangent is stretched by a tenth, so that finite features reach black and white.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor, nn

from purifier._errors import OptionError, shown
from purifier._options import LARGE, SLOW, check_integer
from purifier.methods._base import Method, Stage
from purifier.methods._borders import reflect_pad

Norm = Literal["layer", "instance", "none"]

# Half of the output's range; [0, 1] would be 0.5.
_HALF_RANGE = 0.55


class ResidualBlock(nn.Module):
    """Convolution, norm, ReLU, convolution, norm, plus the input."""

    def __init__(self, filters: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = _conv(filters, filters, 3)
        self.norm1 = _norm(norm, filters)
        self.conv2 = _conv(filters, filters, 3)
        self.norm2 = _norm(norm, filters)
        self.activation = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        inner = self.activation(self.norm1(self.conv1(features)))
        out: Tensor = features + self.norm2(self.conv2(inner))
        return out


class GAD(Method):
    """Purifies with an encoder-decoder: 7x7 stem, down-sampling, residual blocks, up-sampling, 7x7 head.

    Images of any size are padded by reflection to a multiple of 2**downsamples and cropped back. Through the
    normalisation, every output pixel depends on the whole image.

    Args:
        filters: Width at full size. Every down-sampling doubles it.
        blocks: Number of residual blocks at the smallest size.
        downsamples: Number of halvings.
        norm: "layer" (over all channels and positions of an image), "instance" (per channel, as in pix2pixHD) or
            "none", with larger initial weights, so that features keep their scale.

    Raises:
        OptionError: If an option is out of its range.
    """

    def __init__(self, *, filters: int = 32, blocks: int = 6, downsamples: int = 2, norm: Norm = "layer") -> None:
        super().__init__()
        self.filters = check_integer("filters", filters, low=1, high=1024, why=LARGE)
        self.blocks = check_integer("blocks", blocks, low=1, high=64, why=SLOW)
        self.downsamples = check_integer("downsamples", downsamples, low=1, high=8)
        if not isinstance(norm, str) or norm not in get_args(Norm):
            raise OptionError(f"expected norm='layer', 'instance' or 'none', got {shown(norm)}")
        self.norm: Norm = norm
        check_integer("filters * 2**downsamples", filters * 2**downsamples, low=2, high=8192, why=LARGE)
        widths = [filters * 2**number for number in range(downsamples + 1)]
        self.stem = nn.Sequential(_conv(3, filters, 7), _norm(norm, filters), nn.ReLU())
        self.down = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(wide, wide * 2, 3, 2, 1), _norm(norm, wide * 2), nn.ReLU())
                for wide in widths[:-1]
            )
        )
        self.body = nn.Sequential(*(ResidualBlock(widths[-1], norm) for _ in range(blocks)))
        self.up = nn.Sequential(
            *(
                nn.Sequential(nn.ConvTranspose2d(wide, wide // 2, 3, 2, 1, 1), _norm(norm, wide // 2), nn.ReLU())
                for wide in reversed(widths[1:])
            )
        )
        self.head = _conv(filters, 3, 7)
        if norm == "none":
            self.apply(_enlarge)
            for last in (self.head, *(block.conv2 for block in self.body if isinstance(block, ResidualBlock))):
                last.weight.data *= 0.1

    @property
    def options(self) -> dict[str, Any]:
        return {"filters": self.filters, "blocks": self.blocks, "downsamples": self.downsamples, "norm": self.norm}

    def stages(self) -> list[Stage]:
        return [Stage(self.purify, halo=None)]

    def purify(self, images: Tensor) -> Tensor:
        """Applies the network to images (N, 3, H, W). The output has the same shape, in [-0.05, 1.05]."""
        height, width = images.shape[-2:]
        multiple = 2**self.downsamples
        # At least two positions at the smallest size, because one has neither a reflection nor a variance.
        wanted = [max(-(-side // multiple), 2) * multiple for side in (height, width)]
        # At least four pixels, because the stem pads three by reflection.
        padded = reflect_pad(images, 0, max(wanted[1], 4) - width, 0, max(wanted[0], 4) - height)
        features = self.head(self.up(self.body(self.down(self.stem(padded)))))
        out: Tensor = 0.5 + _HALF_RANGE * features[..., :height, :width].tanh()
        return out


def _conv(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, padding_mode="reflect")


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    return nn.InstanceNorm2d(channels) if kind == "instance" else nn.Identity()


def _enlarge(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        # Each output of a transposed convolution of stride 2 uses a quarter of the kernel.
        gain = 1.0 if isinstance(module, nn.Conv2d) else 2.0
        fan = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        nn.init.normal_(module.weight, std=gain * (2 / fan) ** 0.5)
