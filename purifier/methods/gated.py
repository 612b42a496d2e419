"""Applies a method only where a gate detects an attack."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from purifier._options import check_integer, check_number
from purifier._random import Unfilled
from purifier.methods._base import Method, Stage
from purifier.methods._gate import Gate, may_close, purify_where_open


class Gated(Method):
    """x + g(x) (m(x) - x): the method m where the gate g detects an attack, the unchanged image elsewhere.

    Args:
        method: m. Its output is clamped to [0, 1].
        gate: Width of the gate.
        gate_blocks: Number of residual blocks of the gate.
        gate_bias: Added to the gate's logits. A higher bias purifies weaker attacks, and more of clean images.
        gate_floor: Weights of the gate below this count as 0, and those above it are rescaled: max(0, w - f) / (1 - f).
            An image whose weights are all 0 costs only the gate, unless gradients are recorded. 0 means no floor.
        gate_threshold: Attack score up to which an image is returned unchanged, and costs only the gate. From twice
            this score on, the weights count in full. An attack on a part of the image has a low score. 0 means no
            threshold.

    Raises:
        OptionError: If an option is out of its range.
    """

    tunable = ("gate_bias", "gate_floor", "gate_threshold")

    def __init__(
        self,
        method: Method,
        *,
        gate: int,
        gate_blocks: int = 0,
        gate_bias: float = 0.0,
        gate_floor: float = 0.0,
        gate_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(method, Method):
            raise TypeError(f"expected a method behind the gate, got {method!r}")
        self.method = method
        self.gate = Gate(
            check_integer("gate", gate, low=1, high=1024), check_integer("gate_blocks", gate_blocks, low=0, high=64)
        )
        self.gate_bias = check_number("gate_bias", gate_bias, low=-20.0, high=20.0)
        self.gate_floor = check_number("gate_floor", gate_floor, low=0.0, high=0.99)
        self.gate_threshold = check_number("gate_threshold", gate_threshold, low=0.0, high=0.99)

    @classmethod
    def behind_copy(cls, method: Method, source: Method, **changes: float | None) -> Gated:
        """Returns a method behind a copy of another method's gate.

        Args:
            method: The method.
            source: The method with the gate.
            **changes: gate_bias, gate_floor and gate_threshold; None keeps those of `source`.
        """
        gate = gate_of(source)
        assert gate is not None
        tuned = {key: source.options[key] if value is None else value for key, value in changes.items()}
        # The random initial weights would be replaced.
        with Unfilled("cpu"):
            gated = cls(method, gate=gate.filters, gate_blocks=gate.blocks, **tuned)
        with torch.inference_mode(False):
            gated.gate = copy.deepcopy(gate)
        return gated

    @property
    def options(self) -> dict[str, Any]:
        gate = {"gate": self.gate.filters, "gate_blocks": self.gate.blocks}
        tuned = {name: getattr(self, name) for name in self.tunable}
        return {"method": self.method, **gate, **tuned}

    def stages(self) -> list[Stage]:
        # A single stage, because its last step needs the unchanged image.
        inner = self.method.stages()
        halos = [stage.halo for stage in inner]
        halo = None if None in halos else max(self.gate.halo, sum(halo for halo in halos if halo))
        align = math.lcm(self.gate.cell, *(stage.align for stage in inner))
        return [Stage(self.step, halo=halo, align=align, whole=self.gate.stage() if self.gate_threshold else None)]

    def step(self, images: Tensor, whole: Tensor | None = None) -> Tensor:
        """Applies the method and weighs its change with the gate.

        Args:
            images: The images, or tiles of them.
            whole: The gate's logits of the whole images, if these are tiles.
        """
        weigh = partial(self.gate, images, whole=whole, **{name: getattr(self, name) for name in self.tunable})
        return purify_where_open(self._clamped, weigh, images, skip=may_close(self))

    def _clamped(self, images: Tensor) -> Tensor:
        out: Tensor = self.method(images)
        return out.clamp(0, 1)


def gate_of(method: nn.Module) -> Gate | None:
    """Returns the gate of a method, or None."""
    gate = getattr(method, "gate", None)
    return gate if isinstance(gate, Gate) else None
