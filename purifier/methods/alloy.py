"""Alloy: a residual network at one or several scales, applied once or several times. This project's own method.

It combines one idea from each of three papers:

- training against perturbations of features, which needs no labels: Naseer et al., "A Self-supervised Approach for
  Adversarial Robustness", CVPR 2020 (https://arxiv.org/abs/2006.04924);
- alignment of clean and attacked features in real networks: "General Adversarial Defense via Pixel Level and Feature
  Level Distribution Alignment", 2020 (later version: https://arxiv.org/abs/2212.05387);
- repeated application of a small network: Cha et al., "NCIS: Neural Contextual Iterative Smoothing for Purifying
  Adversarial Perturbations", WACV 2024 (https://arxiv.org/abs/2106.11644).

`purifier.training.alloy` trains it.

No skip connection runs from input to output, because it would pass the perturbation on. For the same reason the input
may be blurred first: most of a perturbation has higher frequencies than the content of an image, and the network learns
to sharpen the image again. A gate leaves clean images nearly unchanged.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import Tensor, nn

from purifier._options import LARGE, SLOW, check_bool, check_integer, check_number
from purifier.methods._base import Method, Stage
from purifier.methods._gate import Gate, may_close, purify_where_open
from purifier.methods._patches import on_patches
from purifier.methods._unet import Scales
from purifier.methods.gs import GaussianSmoothing
from purifier.methods.nrp import ResidualBlock


class Alloy(Method):
    """Undoes perturbations with a residual network on p x p patches, at one or several scales, applied k times.

    Sizes that are not multiples of the coarsest scale's patch are padded by reflection and cropped back.

    Args:
        iterations: k, the number of applications. 0 returns the images unchanged.
        patch: p, the side of a patch, whose pixels are channels of the network's input.
        filters: Width of the network, at the finest scale.
        blocks: Number of residual blocks (convolution, ReLU, convolution). With several levels, this number on the way
            down and on the way up, at each level.
        levels: Number of scales. Each coarser scale has half the sides and twice the filters, and so the same cost and
            twice the halo.
        clamp: Whether each application ends with a clamp to [0, 1].
        blur: Number of passes of GS (K = 5) before each application.
        gate: Width of the gate, which restricts each application to positions where it detects an attack. 0 means no
            gate.
        gate_blocks: Number of residual blocks of the gate.
        gate_bias: Added to the gate's logits. A higher bias purifies weaker attacks, and more of clean images. 20
            purifies everything.
        gate_floor: Weights of the gate below this count as 0, and those above it are rescaled: max(0, w - f) / (1 - f).
            An image whose weights are all 0 costs only the gate, unless gradients are recorded. 0 means no floor.
        gate_threshold: Attack score up to which an image is returned unchanged, and costs only the gate. From twice
            this score on, the weights count in full. An attack on a part of the image has a low score. 0 means no
            threshold.

    Raises:
        OptionError: If an option is out of its range.
    """

    tunable = ("iterations", "clamp", "gate_bias", "gate_floor", "gate_threshold")

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
        gate_floor: float = 0.0,
        gate_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.iterations = check_integer("iterations", iterations, low=0, high=self.most_iterations, why=SLOW)
        self.patch = check_integer("patch", patch, low=1, high=32, why=LARGE)
        self.filters = check_integer("filters", filters, low=1, high=1024, why=LARGE)
        self.blocks = check_integer("blocks", blocks, low=1, high=64, why=SLOW)
        self.levels = check_integer("levels", levels, low=1, high=6, why=LARGE)
        check_integer("filters * 2**(levels - 1)", filters * 2 ** (levels - 1), low=1, high=8192, why=LARGE)
        self.clamp = check_bool("clamp", clamp)
        self.smoothing = GaussianSmoothing(iterations=check_integer("blur", blur, low=0, high=100, why=SLOW))
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
        gate_blocks = check_integer("gate_blocks", gate_blocks, low=0, high=64, why=SLOW)
        self.gate = Gate(gate, gate_blocks) if check_integer("gate", gate, low=0, high=1024, why=LARGE) else None
        self.gate_bias = check_number("gate_bias", gate_bias, low=-20.0, high=20.0)
        self.gate_floor = check_number("gate_floor", gate_floor, low=0.0, high=0.99)
        self.gate_threshold = check_number("gate_threshold", gate_threshold, low=0.0, high=0.99)

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
            "gate_floor": self.gate_floor,
            "gate_threshold": self.gate_threshold,
        }

    def stages(self) -> list[Stage]:
        # Every convolution adds one patch of its scale. A pixel may be at the far side of its own patch.
        (blur,) = self.smoothing.stages()
        assert blur.halo is not None
        blocks = self.blocks if self.levels == 1 else 2 * self.blocks
        convolutions = 2 + 2 * blocks * (2**self.levels - 1)
        halo, align = self.patch * convolutions + self._align - 1 + blur.halo, self._align
        if self.gate is not None:
            halo, align = max(halo, self.gate.halo), math.lcm(align, self.gate.cell)
        whole = self.gate.stage() if self.gate is not None and self.gate_threshold else None
        return [Stage(self.step, halo=halo, align=align, whole=whole)] * self.iterations

    @property
    def _align(self) -> int:
        """Sides must be multiples of this, so that every scale has complete patches."""
        return self.patch * 2 ** (self.levels - 1)

    def reconstruct(self, images: Tensor, whole: Tensor | None = None) -> Tensor:
        """Applies blur, network and gate once to images (N, 3, H, W). The output is not clamped.

        Args:
            images: The images, or tiles of them.
            whole: The gate's logits of the whole images, if these are tiles.
        """
        if self.gate is None:
            return self._rebuilt(self.smoothing(images))
        # The gate also needs a pass of GS, which the blur can reuse.
        once = self.gate.smoothed(images)
        weigh = partial(self.gate, images, self.gate_bias, once, self.gate_floor, self.gate_threshold, whole)
        return purify_where_open(self._reblurred, weigh, images, once, skip=may_close(self))

    def _reblurred(self, images: Tensor, once: Tensor) -> Tensor:
        """Applies blur and network to images; `once` is the output of one pass of GS."""
        return self._rebuilt(once.to(images.dtype) if self.smoothing.iterations == 1 else self.smoothing(images))

    def _rebuilt(self, blurred: Tensor) -> Tensor:
        return on_patches(self.network, blurred, self.patch, self._align)

    def step(self, images: Tensor, whole: Tensor | None = None) -> Tensor:
        """Applies the method once, clamped if `clamp` is True; `whole` as in `reconstruct`."""
        out = self.reconstruct(images, whole)
        return out.clamp(0, 1) if self.clamp else out
