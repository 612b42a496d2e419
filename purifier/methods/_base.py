"""Base of the purification methods: maps from images to images, made of stages that can be tiled."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """One step of a method.

    Attributes:
        apply: Maps images (N, 3, H, W) to images of the same shape, or to values of cells, see `cell`.
        halo: Largest distance, in pixels, between an output pixel and an input pixel that it depends on. None means
            that every output pixel depends on the whole image.
        align: Tiles must start at multiples of this number of pixels.
        cell: Side, in pixels of the images, of what one position of the output stands for. It divides `align`.
        whole: A stage whose output for the whole image `apply` takes as a second argument when it is given a tile.
            Without that argument it is given the whole image.
    """

    apply: Callable[..., Tensor]
    halo: int | None
    align: int = 1
    cell: int = 1
    whole: Stage | None = None


class Method(nn.Module):
    """Base of the purification methods: mathematics only, no files and no names.

    A method maps images (N, 3, H, W) in [0, 1] to images of the same shape, in its own dtype. `purifier.Purifier`
    checks the input and clamps the output.

    Attributes:
        differentiable: False if the exact gradient is zero almost everywhere (rounding, a codec).
        random: True if two calls on the same images differ.
        tunable: Options that can be changed without training again.
        export_obstacle: Why the method cannot be exported as a graph of standard operators, or None.
    """

    differentiable: ClassVar[bool] = True
    random: ClassVar[bool] = False
    tunable: ClassVar[tuple[str, ...]] = ()
    export_obstacle: ClassVar[str | None] = None

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The constructor's keyword arguments. Each value is a JSON value, a method, or a list of methods."""

    @property
    def most_iterations(self) -> int:
        """The largest number of applications that methods with the option "iterations" take."""
        return 100

    @property
    def sequence(self) -> list[Method]:
        """The methods that are applied one after the other: the method itself unless it is a chain."""
        return [self]

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


def innermost(method: Method) -> list[Method]:
    """Returns the methods inside a composite method that contain no other, in order; [method] if there are none."""
    values = [value if isinstance(value, list) else [value] for value in method.options.values()]
    nested = [part for value in values for part in value if isinstance(part, Method)]
    return [leaf for part in nested for leaf in innermost(part)] or [method]
