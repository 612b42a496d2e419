"""How a model's images are written down: normalisation, channel order, and what happens to values outside [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from purifier._errors import InputError, OptionError, warn_once
from purifier._input import TOLERANCE, check_range, extremes
from purifier._tracing import is_plain

Channels = Literal["RGB", "BGR"]
OutOfRange = Literal["auto", "clamp", "refuse"]

# Mean distance of an image's values to [0, 1] up to which it is clamped. Measured over 200 photographs: bicubic
# resizing and sharpening reach 0.001, Gaussian noise of sigma 0.25 reaches 0.065; 95 % of the photographs that are
# normalised to [-1, 1], and all that are normalised with ImageNet's mean and std, are above it.
_MOST_EXCESS = 0.07
CLAMPED = (
    "images leave [0, 1] a little, as after bicubic resizing or with noise, and are clamped before they are purified; "
    "pass out_of_range='clamp' or 'refuse' to choose. Shown once."
)


@dataclass(frozen=True)
class Convention:
    """The map from an RGB image in [0, 1] to the values that a model is fed: (image - mean) / std, channels ordered.

    Attributes:
        mean: Mean of each channel, in RGB order, in [0, 1] units; None for images in [0, 1].
        std: Standard deviation of each channel, likewise.
        channels: Order of the channels that the model is fed.
        out_of_range: What happens if images leave [0, 1]. "auto" clamps what resampling or noise can explain, with one
            warning, and refuses the rest. "clamp" always clamps. "refuse" always refuses.
    """

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: Channels = "RGB"
    out_of_range: OutOfRange = "auto"

    @classmethod
    def of(cls, mean: Any = None, std: Any = None, *, channels: str = "RGB", out_of_range: str = "auto") -> Self:
        """Checks the options of `wrap` and `attach` and returns their convention.

        Raises:
            OptionError: If an option is out of its range, or mean comes without std.
        """
        if (mean is None) != (std is None):
            raise OptionError(f"expected mean and std together, got mean={mean}, std={std}")
        for name, value, kinds in (("channels", channels, Channels), ("out_of_range", out_of_range, OutOfRange)):
            if not isinstance(value, str) or value not in get_args(kinds):
                raise OptionError(f"expected {name} out of {', '.join(map(repr, get_args(kinds)))}, got {value!r}")
        return cls(_per_channel("mean", mean), _per_channel("std", std), channels, out_of_range)  # type: ignore[arg-type]

    @property
    def normalisation(self) -> tuple[list[float], list[float]] | None:
        """The pair (mean, std), or None for images in [0, 1]."""
        return None if self.mean is None or self.std is None else (list(self.mean), list(self.std))

    def to_unit(self, values: Tensor) -> Tensor:
        """Turns the model's values (..., C, H, W) into RGB images in [0, 1]; gradients flow.

        Images that are clamped have no gradient where they were outside [0, 1].

        Raises:
            InputError: If the values are not such images.
        """
        images = self.reordered(values)
        if self.normalisation is not None:
            # In single precision at least: undoing and redoing a normalisation in half precision would cost bits.
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            mean, std = self._columns(images)
            images = images * std + mean
        return self._in_range(images)

    def from_unit(self, images: Tensor, like: Tensor) -> Tensor:
        """Turns RGB images in [0, 1] into the model's values, in the dtype of `like`; gradients flow."""
        if self.normalisation is not None:
            mean, std = self._columns(images)
            images = (images - mean) / std
        return self.reordered(images).to(like.dtype)

    def reordered(self, images: Tensor) -> Tensor:
        """Turns RGB images (..., C, H, W) into those with the model's order of channels, or back."""
        return images.flip(-3) if self.channels == "BGR" and images.shape[-3] == 3 else images

    def _columns(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert self.normalisation is not None
        channels = images.shape[-3]
        if channels == 1 and any(len(set(values)) > 1 for values in self.normalisation):
            raise InputError(
                f"expected three channels for mean={self.mean} and std={self.std}, got one; give one number for each"
            )
        column = _column if is_plain(images) else _column.__wrapped__
        mean, std = (column(tuple(values[:channels]), images.dtype, images.device) for values in self.normalisation)
        return mean, std

    def _in_range(self, images: Tensor) -> Tensor:
        low, high = extremes(images)
        if self.out_of_range == "clamp" and not math.isnan(low):
            return images.clamp(0, 1)
        if low >= -TOLERANCE and high <= 1 + TOLERANCE:
            return images
        if self.out_of_range == "refuse" or not _explainable(images):
            check_range(images, self._advice())
        warn_once(CLAMPED, stacklevel=2)
        return images.clamp(0, 1)

    def _advice(self) -> str:
        noise = "; if they are noisy or resampled images, pass out_of_range='clamp'"
        if self.mean is not None and self.std is not None:
            return (
                f"these are the values after undoing mean={list(self.mean)} and std={list(self.std)}; pass the mean "
                f"and std of the images{noise}"
            )
        return (
            "if they are normalised, pass their mean=... and std=... (or processor=...); if they are in 0..255, divide "
            f"by 255{noise}"
        )


@lru_cache(maxsize=32)
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept for later calls, which may need a gradient.
    with torch.inference_mode(False), torch.no_grad():
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


def _explainable(images: Tensor) -> bool:
    """Whether no image leaves [0, 1] by more than resampling or noise explains; False for NaN."""
    excess = (images.detach() - images.detach().clamp(0, 1)).abs().mean((-3, -2, -1))
    return bool((excess <= _MOST_EXCESS).all())


def _per_channel(name: str, values: Sequence[float] | float | None) -> tuple[float, float, float] | None:
    if values is None:
        return None
    try:
        tensor = torch.as_tensor(values, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError):
        tensor = torch.empty(0)
    valid = tensor.isfinite() & (tensor > 0 if name == "std" else True)
    if tensor.numel() not in (1, 3) or not bool(valid.all()):
        raise OptionError(
            f"expected {name} as one {'positive ' * (name == 'std')}finite number per channel (3), got {values!r}; "
            "give numbers such as [0.5, 0.5, 0.5]"
        )
    red, green, blue = tensor.expand(3).tolist()
    return red, green, blue
