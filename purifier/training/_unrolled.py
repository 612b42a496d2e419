"""A purifier that is applied several times, as it is trained."""

from __future__ import annotations

from torch import Tensor, nn

from purifier._errors import OptionError
from purifier.methods.alloy import Alloy
from purifier.methods.ncis import NCIS


class Unrolled(nn.Module):
    """The model as the loop trains it: one call runs every trained application, so DDP sees a single forward.

    Args:
        method: What is applied.
        unroll: How often.

    Raises:
        OptionError: Where `unroll` is below 1.
    """

    def __init__(self, method: Alloy | NCIS, unroll: int) -> None:
        super().__init__()
        if unroll < 1:
            raise OptionError(f"expected unroll of at least 1, the applications that are trained, got {unroll}")
        self.method = method
        self.unroll = unroll

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) to the output of each application, not clamped."""
        outputs = [self.method.reconstruct(images)]
        for _ in range(self.unroll - 1):
            before = outputs[-1].clamp(0, 1) if self.method.clamp else outputs[-1]
            outputs.append(self.method.reconstruct(before))
        return outputs
