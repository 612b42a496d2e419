"""A method that is kept off places that do not look attacked."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from purifier._options import check_integer, check_number
from purifier.methods._base import Method, Stage
from purifier.methods._gate import Gate


class Gated(Method):
    """x + g(x) (m(x) - x): the method m where the gate g is sure of an attack, the image itself where it sees none.

    Args:
        method: m; its output is clamped to [0, 1] first.
        gate: Width of the gate.
        gate_blocks: Its residual blocks.
        gate_bias: What is added to its logits: above 0 weaker attacks are purified too, and more of what nobody attacked.

    Raises:
        OptionError: Where an option is out of its range.
    """

    tunable = ("gate_bias",)

    def __init__(self, method: Method, *, gate: int, gate_blocks: int = 0, gate_bias: float = 0.0) -> None:
        super().__init__()
        self.method = method
        self.gate = Gate(check_integer("gate", gate, low=1), check_integer("gate_blocks", gate_blocks, low=0))
        self.gate_bias = check_number("gate_bias", gate_bias, low=-20.0, high=20.0)

    @property
    def options(self) -> dict[str, Any]:
        from purifier.methods import describe

        gate = {"gate": self.gate.filters, "gate_blocks": self.gate.blocks}
        return {"method": describe(self.method), **gate, "gate_bias": self.gate_bias}

    def stages(self) -> list[Stage]:
        # One stage, as the image itself is needed again at the end.
        inner = self.method.stages()
        halos = [stage.halo for stage in inner]
        reach = None if None in halos else max(self.gate.halo, sum(halo for halo in halos if halo))
        return [Stage(self.step, halo=reach, align=math.lcm(self.gate.cell, *(stage.align for stage in inner)))]

    def step(self, images: Tensor) -> Tensor:
        """The method behind the gate, all of its stages."""
        out = self.method(images).clamp(0, 1)
        return images + self.gate(images, self.gate_bias) * (out - images)
