"""The gate: a small network that estimates at every position how likely an image is attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._tracing import is_tracing
from purifier.methods._base import Stage
from purifier.methods._borders import crop, reflect_pad
from purifier.methods._no_grad import by_parts, may_choose
from purifier.methods.gs import GaussianSmoothing
from purifier.methods.nrp import ResidualBlock

# Scales the high frequencies of images to a range that suits a network.
_GAIN = 16
# Logits within this distance, in cells, are averaged, because a perturbation covers many cells.
_RADIUS = 4

_watch: ContextVar[list[Tensor] | None] = ContextVar("_watch", default=None)


class Gate(nn.Module):
    """Maps images (N, 3, H, W) to weights (N, 1, H, W) in [0, 1]: 1 where an attack is detected, 0 elsewhere.

    Its input is the high frequencies of the image, which one pass of GS removes; attacked and clean images differ in
    them. The idea of purifying attacked images only is from Meng and Chen, "MagNet: a Two-Pronged Defense against
    Adversarial Examples", CCS 2017 (https://arxiv.org/abs/1705.09064), whose detectors reject whole images. Sizes that
    are not multiples of the cell are padded by reflection.

    Args:
        filters: Width. The last two layers are twice as wide.
        blocks: Residual blocks at half the height and width. More blocks detect weaker attacks.
    """

    # Side, in pixels, of the square of one logit.
    cell = 8
    # Whether gradients pass as if there were no floor and no threshold. Only attacks set it, see purifier.attacks.bpda.
    gradient_ignores_floor = False

    def __init__(self, filters: int, blocks: int = 0) -> None:
        super().__init__()
        self.filters = filters
        self.blocks = blocks
        self.smoothing = GaussianSmoothing(iterations=1)
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, filters, 3, padding=1),
            nn.ReLU(),
            *(ResidualBlock(filters) for _ in range(blocks)),
            nn.Conv2d(filters, filters, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(filters, 2 * filters, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * filters, 2 * filters, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * filters, 1, 1),
        )
        for layer in self.layers.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for layer in self.layers:
            if isinstance(layer, ResidualBlock):
                # Start each block as the identity; otherwise every block would double the activations.
                nn.init.zeros_(layer.conv2.weight)

    @property
    def halo(self) -> int:
        """Largest distance, in pixels, between a weight and a pixel that it depends on."""
        # Interpolation: half a cell. Average: _RADIUS cells. Last 3 x 3 convolution: a cell. The other three: one
        # position each, at strides of 4, 2 and 2 pixels. Each block: two positions of 2 pixels. GS: 2 pixels.
        return self.cell // 2 - 1 + (1 + _RADIUS + 1) * self.cell + 4 + 2 + 2 + 4 * self.blocks + 2

    def stage(self) -> Stage:
        """Returns `logits` as a stage, for tiles."""
        return Stage(self.logits, halo=self.halo, align=self.cell, cell=self.cell)

    def smoothed(self, images: Tensor) -> Tensor:
        """Applies one pass of GS. Not in half precision, whose rounding errors resemble an attack."""
        device = images.device.type
        # Not every device knows autocast, such as "meta". In compiled code, asking breaks the graph on torch 2.11.
        known = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
        if known and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.smoothed(images)
        return self.smoothing(_exact(images))

    def logits(self, images: Tensor, smoothed: Tensor | None = None) -> Tensor:
        """Returns the averaged logits of an attack in every cell, (N, 1, ceil(H / 8), ceil(W / 8))."""
        height, width = images.shape[-2:]
        grain = _GAIN * (_exact(images) - (self.smoothed(images) if smoothed is None else smoothed))
        # With positive numbers only, because other runtimes round the division of negative integers differently.
        bottom, right = ((size + self.cell - 1) // self.cell * self.cell - size for size in (height, width))
        padded = reflect_pad(grain.to(images.dtype), 0, right, 0, bottom).contiguous(memory_format=torch.channels_last)
        cells = by_parts(self.layers, padded)
        return F.avg_pool2d(cells, 2 * _RADIUS + 1, stride=1, padding=_RADIUS, count_include_pad=False)

    def forward(
        self,
        images: Tensor,
        gate_bias: float = 0.0,
        smoothed: Tensor | None = None,
        gate_floor: float = 0.0,
        gate_threshold: float = 0.0,
        whole: Tensor | None = None,
    ) -> Tensor:
        """Returns the weights.

        Args:
            images: (N, 3, H, W).
            gate_bias: Added to the logits.
            smoothed: The output of `smoothed(images)`, if it is there already.
            gate_floor: f. A weight w becomes max(0, w - f) / (1 - f).
            gate_threshold: t. All weights of an image with the score s are multiplied by (s - t) / t, cut to [0, 1].
            whole: The logits of the whole images, if `images` are tiles of them.
        """
        logits = self.logits(images, smoothed)
        if not is_tracing() and (seen := _watch.get()) is not None:
            seen.append(logits)
        cells = weights = (logits + gate_bias).sigmoid()
        # Without them the exact weights, not only nearly the same ones.
        if gate_floor:
            weights = ((cells - gate_floor) / (1 - gate_floor)).clamp_min(0)
        if gate_threshold:
            scores = score_of(_exact(logits if whole is None else whole)).view(-1, 1, 1, 1)
            weights = weights * ((scores - gate_threshold) / gate_threshold).clamp(0, 1).to(weights.dtype)
        if self.gradient_ignores_floor and weights is not cells:
            # The difference is exactly zero and has the gradient of the plain weights.
            weights = weights.detach() + (cells - cells.detach())
        return self.spread(weights, *images.shape[-2:])

    def spread(self, cells: Tensor, height: int, width: int) -> Tensor:
        """Interpolates values of cells (N, 1, ceil(H / 8), ceil(W / 8)) to pixels (N, 1, H, W)."""
        return crop(F.interpolate(cells, scale_factor=float(self.cell), mode="bilinear"), height, width)


def score_of(logits: Tensor) -> Tensor:
    """Returns the attack scores (N,) of images from the gate's logits of all their cells."""
    return logits.sigmoid().mean((1, 2, 3))


def may_close(method: nn.Module) -> bool:
    """Whether the weights of a method's gate can be 0: it has a `gate_floor` or a `gate_threshold`."""
    return bool(getattr(method, "gate_floor", 0) or getattr(method, "gate_threshold", 0))


def purify_where_open(
    purify: Callable[..., Tensor], weigh: Callable[[], Tensor], images: Tensor, *more: Tensor, skip: bool
) -> Tensor:
    """Returns images + w * (purify(images, *more) - images) with weights w.

    Args:
        purify: Maps images and `more` to purified images.
        weigh: Returns the weights (N, 1, H, W).
        images: (N, 3, H, W).
        *more: Further inputs (N, ...) of `purify`.
        skip: Whether `purify` gets only the images that have a weight above 0, where no gradient and no graph is
            recorded. The others are returned as they are, which is the same.
    """
    if not skip or not may_choose(images):
        purified = purify(images, *more)
        return images + weigh() * (purified - images)
    weights = weigh()
    chosen = weights.flatten(1).any(1).nonzero().flatten()
    if len(chosen) == len(images):
        return images + weights * (purify(images, *more) - images)
    out = images.clone()
    if len(chosen):
        part, *rest = (one[chosen] for one in (images, *more))
        out[chosen] = part + weights[chosen] * (purify(part, *rest) - part)
    return out


@contextmanager
def watched() -> Iterator[list[Tensor]]:
    """Collects the averaged logits of each call of a gate in this block and thread, unless torch records a graph."""
    seen: list[Tensor] = []
    token = _watch.set(seen)
    try:
        yield seen
    finally:
        _watch.reset(token)


def _exact(images: Tensor) -> Tensor:
    return images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
