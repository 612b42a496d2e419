"""What every purification method is: a map from images to images, made of stages that can be tiled."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """One step of a method, with what tiling needs to know about it.

    Attributes:
        apply: Map from images (N, 3, H, W) to images of the same shape.
        halo: How far, in pixels, an output pixel looks beyond its own place; None where it looks everywhere.
        align: Tiles must start at multiples of this many pixels.
    """

    apply: Callable[[Tensor], Tensor]
    halo: int | None
    align: int = 1


class Method(nn.Module):
    """Base of the purification methods: mathematics only, no files and no names.

    A method maps images (N, 3, H, W) in [0, 1] to images of the same shape in its own dtype. It neither checks
    its input nor clamps its output: `purifier.Purifier` does.

    Attributes:
        differentiable: False where the exact gradient is zero almost everywhere (rounding, a codec).
        random: True where two calls on the same images differ.
        tunable: Options that may be changed without training again.
        export_obstacle: Why it cannot be exported as a graph of standard operators; None where it can.
    """

    differentiable: ClassVar[bool] = True
    random: ClassVar[bool] = False
    tunable: ClassVar[tuple[str, ...]] = ()
    export_obstacle: ClassVar[str | None] = None

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The constructor's keyword arguments, all JSON values; `type(m)(**m.options)` builds its twin."""

    @abstractmethod
    def stages(self) -> list[Stage]:
        """Returns the steps whose composition is the method."""

    def extra_repr(self) -> str:
        """Returns the options that are plain values, for `repr`."""
        plain = {name: value for name, value in self.options.items() if isinstance(value, bool | int | float | str)}
        return ", ".join(f"{name}={value!r}" for name, value in plain.items())

    def forward(self, images: Tensor) -> Tensor:
        """Applies every stage in turn. Gradients are exact."""
        for stage in self.stages():
            images = stage.apply(images)
        return images
