"""Applies a method only where a gate detects an attack."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import Tensor, nn

from purifier._options import check_integer, check_number
from purifier._random import Unfilled
from purifier.methods._base import Method, Stage
from purifier.methods._gate import Gate


class Gated(Method):
    """x + g(x) (m(x) - x): the method m where the gate g detects an attack, the unchanged image elsewhere.

    Args:
        method: m. Its output is clamped to [0, 1].
        gate: Width of the gate.
        gate_blocks: Number of residual blocks of the gate.
        gate_bias: Added to the gate's logits. A higher bias purifies weaker attacks, and more of clean images.

    Raises:
        OptionError: If an option is out of its range.
    """

    tunable = ("gate_bias",)

    def __init__(self, method: Method, *, gate: int, gate_blocks: int = 0, gate_bias: float = 0.0) -> None:
        super().__init__()
        if not isinstance(method, Method):
            raise TypeError(f"expected a method behind the gate, got {method!r}")
        self.method = method
        self.gate = Gate(
            check_integer("gate", gate, low=1, high=1024), check_integer("gate_blocks", gate_blocks, low=0, high=64)
        )
        self.gate_bias = check_number("gate_bias", gate_bias, low=-20.0, high=20.0)

    @classmethod
    def behind_copy(cls, method: Method, source: Method, gate_bias: float | None) -> Gated:
        """Returns a method behind a copy of another method's gate; None keeps the other method's gate_bias."""
        gate = gate_of(source)
        assert gate is not None
        bias = source.options["gate_bias"] if gate_bias is None else gate_bias
        # The random initial weights would be replaced.
        with Unfilled("cpu"):
            gated = cls(method, gate=gate.filters, gate_blocks=gate.blocks, gate_bias=bias)
        gated.gate = copy.deepcopy(gate)
        return gated

    @property
    def options(self) -> dict[str, Any]:
        gate = {"gate": self.gate.filters, "gate_blocks": self.gate.blocks}
        return {"method": self.method, **gate, "gate_bias": self.gate_bias}

    def stages(self) -> list[Stage]:
        # A single stage, because its last step needs the unchanged image.
        inner = self.method.stages()
        halos = [stage.halo for stage in inner]
        halo = None if None in halos else max(self.gate.halo, sum(halo for halo in halos if halo))
        return [Stage(self.step, halo=halo, align=math.lcm(self.gate.cell, *(stage.align for stage in inner)))]

    def step(self, images: Tensor) -> Tensor:
        """Applies the method and weighs its change with the gate."""
        out = self.method(images).clamp(0, 1)
        return images + self.gate(images, self.gate_bias) * (out - images)


def gate_of(method: nn.Module) -> Gate | None:
    """Returns the gate of a method, or None."""
    gate = getattr(method, "gate", None)
    return gate if isinstance(gate, Gate) else None
