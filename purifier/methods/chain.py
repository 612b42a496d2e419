"""Methods in sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from purifier._options import SLOW, check_integer
from purifier.methods._base import Method, Stage


class Chain(Method):
    """Applies methods one after the other and clamps the values to [0, 1] between them.

    Args:
        links: The methods, in the order in which they are applied; at most 64, with those inside them.
    """

    def __init__(self, links: Sequence[Method]) -> None:
        super().__init__()
        if not isinstance(links, list | tuple) or not all(isinstance(link, Method) for link in links):
            raise TypeError(f"expected links to be a list of methods, got {links!r}")
        self.links = nn.ModuleList(links)
        inside = sum(isinstance(part, Method) for link in links for part in link.modules())
        check_integer("the number of methods in a chain", inside, low=0, high=64, why=SLOW)

    @property
    def methods(self) -> list[Method]:
        """The links."""
        return [link for link in self.links if isinstance(link, Method)]

    @property
    def options(self) -> dict[str, Any]:
        return {"links": self.methods}

    @property
    def sequence(self) -> list[Method]:
        return [part for link in self.methods for part in link.sequence]

    def stages(self) -> list[Stage]:
        stages = []
        for number, link in enumerate(self.methods):
            if number:
                stages.append(Stage(_clamp, halo=0))
            stages += link.stages()
        return stages


def _clamp(images: Tensor) -> Tensor:
    return images.clamp(0, 1)
