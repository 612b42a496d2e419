"""Methods in sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from purifier.methods._base import Method, Stage


class Chain(Method):
    """Applies methods one after the other; values are clamped to [0, 1] between them.

    Args:
        links: The methods, first applied first.
    """

    def __init__(self, links: Sequence[Method]) -> None:
        super().__init__()
        self.links = nn.ModuleList(links)

    @property
    def methods(self) -> list[Method]:
        """The links, typed."""
        return [link for link in self.links if isinstance(link, Method)]

    @property
    def options(self) -> dict[str, Any]:
        from purifier.methods import describe

        return {"links": [describe(link) for link in self.methods]}

    def stages(self) -> list[Stage]:
        stages = []
        for number, link in enumerate(self.methods):
            if number:
                stages.append(Stage(_clamp, halo=0))
            stages += link.stages()
        return stages


def _clamp(images: Tensor) -> Tensor:
    return images.clamp(0, 1)
