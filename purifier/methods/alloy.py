"""Alloy: a residual network, at one scale or several, applied once or several times; this project's own method.

It joins one idea of each of three papers: training against perturbations of features, which needs no labels (Naseer et
al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020); alignment of clean and attacked features in
real networks ("General adversarial defense via pixel level and feature level distribution alignment", 2020); and
repeated application of a small network (Cha et al., "NCIS: Neural Contextual Iterative Smoothing for Purifying
Adversarial Perturbations", WACV 2024). How it is trained is in `purifier.training.alloy`.

No skip runs from input to output: it would carry the perturbation through. For the same reason the network may see a
blurred image, which it learns to sharpen: most of a perturbation is finer than what a picture is recognised by. What
that costs images that nobody attacked, a gate saves: it tells the two apart, and passes the latter round the network.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from purifier._options import check_bool, check_integer, check_number
from purifier.methods._base import Method, Stage
from purifier.methods._gate import Gate
from purifier.methods._patches import on_patches
from purifier.methods._unet import Scales
from purifier.methods.gs import GaussianSmoothing
from purifier.methods.nrp import ResidualBlock


class Alloy(Method):
    """Residual blocks without normalisation on p x p patches, at one scale or several, applied k times.

    Sizes that the patch, or that of the coarsest scale, does not divide are padded by reflection and cropped back.

    Args:
        iterations: k, how often the network is applied; 0 returns the images unchanged.
        patch: p, the side of a patch, whose pixels are channels to the network.
        filters: Width of the network; with several levels, of the finest one.
        blocks: Number of residual blocks (convolution, ReLU, convolution); with several levels, on the way down and on
            the way up at each of them.
        levels: Scales that the network works at. Every coarser one has half the sides and twice the filters: it costs
            the same, and looks twice as far.
        clamp: Whether each application ends with a clamp to [0, 1].
        blur: Passes of GS (K = 5) over the image before each application of the network; 0 for none.
        gate: Width of the gate, a small network that keeps each application off places that do not look attacked, as
            far as it is sure of them; 0 for none.
        gate_blocks: Residual blocks of the gate.
        gate_bias: What is added to the gate's logits: above 0 weaker attacks are purified too, and more of what nobody
            attacked; with 20 everything is.

    Raises:
        OptionError: Where an option is out of its range.
    """

    tunable = ("iterations", "clamp", "gate_bias")

    def __init__(
        self,
        *,
        iterations: int = 2,
        patch: int = 2,
        filters: int = 64,
        blocks: int = 12,
        levels: int = 1,
        clamp: bool = True,
        blur: int = 0,
        gate: int = 0,
        gate_blocks: int = 0,
        gate_bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.iterations = check_integer("iterations", iterations, low=0)
        self.patch = check_integer("patch", patch, low=1)
        self.filters = check_integer("filters", filters, low=1)
        self.blocks = check_integer("blocks", blocks, low=1)
        self.levels = check_integer("levels", levels, low=1)
        self.clamp = check_bool("clamp", clamp)
        self.smoothing = GaussianSmoothing(iterations=check_integer("blur", blur, low=0))
        channels = 3 * patch**2
        self.network: nn.Module
        if levels > 1:
            self.network = Scales(channels, filters, blocks, levels)
        else:
            self.network = nn.Sequential(
                nn.Conv2d(channels, filters, 3, padding=1),
                *(ResidualBlock(filters) for _ in range(blocks)),
                nn.Conv2d(filters, channels, 3, padding=1),
            )
        gate_blocks = check_integer("gate_blocks", gate_blocks, low=0)
        self.gate = Gate(gate, gate_blocks) if check_integer("gate", gate, low=0) else None
        self.gate_bias = check_number("gate_bias", gate_bias, low=-20.0, high=20.0)

    @property
    def options(self) -> dict[str, Any]:
        return {
            "iterations": self.iterations,
            "patch": self.patch,
            "filters": self.filters,
            "blocks": self.blocks,
            "levels": self.levels,
            "clamp": self.clamp,
            "blur": self.smoothing.iterations,
            "gate": self.gate.filters if self.gate else 0,
            "gate_blocks": self.gate.blocks if self.gate else 0,
            "gate_bias": self.gate_bias,
        }

    def stages(self) -> list[Stage]:
        # Every convolution looks one patch of its scale further, and a pixel may be at the far side of its own patch.
        (blur,) = self.smoothing.stages()
        assert blur.halo is not None
        blocks = self.blocks if self.levels == 1 else 2 * self.blocks
        convolutions = 2 + 2 * blocks * (2**self.levels - 1)
        halo, align = self.patch * convolutions + self._align - 1 + blur.halo, self._align
        if self.gate is not None:
            halo, align = max(halo, self.gate.halo), math.lcm(align, self.gate.cell)
        return [Stage(self.step, halo=halo, align=align)] * self.iterations

    @property
    def _align(self) -> int:
        """What sides have to be a multiple of, so that every scale has whole patches."""
        return self.patch * 2 ** (self.levels - 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """One application of the network to images (N, 3, H, W), blurred first, where the gate says so; not clamped."""
        if self.gate is None:
            return self._rebuilt(self.smoothing(images))
        # The gate, too, looks at a pass of GS; one is enough for both.
        once = self.gate.smoothed(images)
        out = self._rebuilt(once.to(images.dtype) if self.smoothing.iterations == 1 else self.smoothing(images))
        return images + self.gate(images, self.gate_bias, once) * (out - images)

    def _rebuilt(self, blurred: Tensor) -> Tensor:
        return on_patches(self.network, blurred, self.patch, self._align)

    def step(self, images: Tensor) -> Tensor:
        """One application of the network, clamped where `clamp` says so."""
        out = self.reconstruct(images)
        return out.clamp(0, 1) if self.clamp else out
