"""GAD's small residual network: changes pixels towards black or white, and starts as the identity.

It is for small images and for training against attackers who know the purifier (`purifier train gad --threat aware`).
The images are cut into patches of p x p pixels, p = 2 for images of 32 pixels, so that most of the work is done at
1 / p and 1 / 2p of the resolution. Every output pixel depends on the whole image, through the mean of the coarse
features.

With `skip`, the network gives a change t in (-1, 1) for every value x of the image. The output is x + t (1 - x) for
t > 0 and x + t x for t < 0. It stays in [0, 1] without a clamp, which would have no gradient; t = 0 is the identity.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import OptionError
from purifier._options import LARGE, SLOW, check_bool, check_integer
from purifier.methods._base import Method, Stage
from purifier.methods._borders import crop, reflect_pad

# Factor on the last layer. Steps of the same length in all layers would otherwise blacken and whiten the image at once.
_GENTLE = 0.1
# Images of mean 0.5 get about a mean of 0 and a standard deviation of 1.
_SCALE = 4.0


class ChannelAffine(nn.Module):
    """Scales and shifts every channel. In training, a batch norm may stand in its place, of which this is the rest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        return torch.addcmul(self.bias.view(-1, 1, 1), features, self.weight.view(-1, 1, 1))


class PreActivation(nn.Module):
    """Scaling, ReLU, convolution, scaling, ReLU, convolution, plus the input (He et al., https://arxiv.org/abs/1603.05027).

    Args:
        before: Number of channels of the input.
        after: Number of channels of the output. If it is another number, the output has half the resolution.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride = 1 if before == after else 2
        self.norm1, self.norm2 = ChannelAffine(before), ChannelAffine(after)
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False) if self.stride > 1 else None

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.norm1(features))
        kept = features if self.shortcut is None else self.shortcut(F.avg_pool2d(inner, 2))
        out: Tensor = kept + self.conv2(F.relu(self.norm2(self.conv1(inner))))
        return out


class GADResidual(Method):
    """Purifies with a residual network on patches of pixels.

    Images of any size are padded by reflection to a multiple of twice the patch and cropped back.

    Args:
        filters: Width of the features of patches; twice as many at half their resolution.
        fine_blocks: Number of residual blocks at the resolution of patches.
        blocks: Number of residual blocks at half that resolution, after the one that halves it.
        patch: Side of a patch in pixels, a power of 2. With 2 for 32 pixels, 8 for 128 and 16 for 256, the work is the
            same.
        skip: Whether the network changes the image. A new one then returns its input. Without it, the network draws the
            image anew, (1 + t) / 2, and a new one returns grey: no perturbation gets past the features.

    Raises:
        OptionError: If an option is out of its range.
    """

    def __init__(
        self, *, filters: int = 64, fine_blocks: int = 1, blocks: int = 2, patch: int = 2, skip: bool = True
    ) -> None:
        super().__init__()
        self.filters = check_integer("filters", filters, low=1, high=1024, why=LARGE)
        self.fine_blocks = check_integer("fine_blocks", fine_blocks, low=0, high=64, why=SLOW)
        self.blocks = check_integer("blocks", blocks, low=0, high=64, why=SLOW)
        self.patch = check_integer("patch", patch, low=1, high=64, why=LARGE)
        if patch & (patch - 1):
            raise OptionError(f"expected a power of 2 as patch, got {patch}")
        self.skip = check_bool("skip", skip)
        wide = 2 * filters
        self.stem = nn.Conv2d(3 * patch**2, filters, 3, padding=1)
        self.fine = nn.Sequential(*(PreActivation(filters, filters) for _ in range(fine_blocks)))
        coarse = [PreActivation(filters, wide), *(PreActivation(wide, wide) for _ in range(blocks))]
        self.coarse = nn.Sequential(*coarse, ChannelAffine(wide), nn.ReLU())
        self.context = nn.Conv2d(wide, wide, 1)
        self.up = nn.Conv2d(wide, 4 * filters, 1)
        self.merge = PreActivation(filters, filters)
        self.last = nn.Conv2d(filters, 3 * patch**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    @property
    def options(self) -> dict[str, Any]:
        sizes = {"filters": self.filters, "fine_blocks": self.fine_blocks, "blocks": self.blocks}
        return {**sizes, "patch": self.patch, "skip": self.skip}

    def stages(self) -> list[Stage]:
        return [Stage(self.purify, halo=None)]

    def purify(self, images: Tensor) -> Tensor:
        """Applies the network to images (N, 3, H, W). The output has the same shape and range."""
        return self._decoded(images, *self._encoded(images))

    def features(self, images: Tensor) -> Tensor:
        """Returns one vector per image, (N, 2 * filters): the mean of the coarse features."""
        return self._encoded(images)[1].mean((2, 3))

    def purified_and_features(self, images: Tensor, *, detach: bool = False) -> tuple[Tensor, Tensor]:
        """Returns the outputs of `purify` and `features` for the work of one of them.

        Args:
            images: Images (N, 3, H, W).
            detach: Whether no gradient flows from the first output to the features that both have in common.
        """
        fine, coarse = self._encoded(images)
        features = coarse.mean((2, 3))
        if detach:
            fine, coarse = fine.detach(), coarse.detach()
        return self._decoded(images, fine, coarse), features

    def _encoded(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the features at the resolution of patches and at half of it."""
        bottom, right = (-side % (2 * self.patch) for side in images.shape[-2:])
        patches = F.pixel_unshuffle((reflect_pad(images, 0, right, 0, bottom) - 0.5) * _SCALE, self.patch)
        fine = self.fine(self.stem(patches))
        return fine, self.coarse(fine)

    def _decoded(self, images: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        # The mean over the image tells every position what the image shows.
        coarse = F.relu(coarse + self.context(coarse.mean((2, 3), keepdim=True)))
        fine = self.merge(fine + F.pixel_shuffle(self.up(coarse), 2))
        change = crop(F.pixel_shuffle(_GENTLE * self.last(fine), self.patch), height, width).tanh()
        if not self.skip:
            return 0.5 + 0.5 * change
        return images + change * torch.where(change >= 0, 1 - images, images)
