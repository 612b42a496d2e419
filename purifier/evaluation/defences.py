"""A model with each of several purifiers, and the forms in which the purifiers run: 8-bit images, other dtypes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from purifier._attaching import as_purified_model, attached
from purifier._identity import model_identity
from purifier._purified_model import PurifiedModel
from purifier._scoring import has_gate
from purifier.attacks.threats import bare_model
from purifier.evaluation.plan import UNDEFENDED
from purifier.inference.precision import resolve_dtype
from purifier.inference.timing import wait_for
from purifier.models.loading import LoadedModel


class Undefended(nn.Module):
    """Takes the place of a purifier and returns the images unchanged."""

    differentiable = True
    random = False

    def purify(self, images: Tensor) -> Tensor:
        """Returns the images."""
        return images

    forward = purify


@dataclass(frozen=True)
class Variant:
    """One form of a defence.

    Attributes:
        eight_bit: Whether images are rounded to 8 bits before they are purified.
        dtype: The purifiers' dtype; None means the dtype that each came with.
    """

    eight_bit: bool = False
    dtype: str | None = None

    @property
    def key(self) -> str:
        """Name in the records."""
        return f"{self.dtype or 'given'}{'-8bit' if self.eight_bit else ''}"


class Defences:
    """A model with each of several purifiers.

    Args:
        model: A module, a function of images, or a loaded model. A purifier in front of it, wrapped or attached, is
            switched off, and the images are fed as it takes them.
        purifiers: The purifiers, by name; the bare model is added as "none".
        dtypes: Further dtypes to run the purifiers in.
        eight_bit: Whether to also round images to 8 bits before they are purified.
        mean: Mean of each channel of the normalisation that the model expects; None means images in [0, 1], or as the
            purifier in front of it takes them.
        std: Standard deviation of each channel, likewise.

    Attributes:
        bare: The bare model as it was given.
        model: The bare model as a function of images in [0, 1].
        purifiers: The purifiers, by name, without "none".
        defended: The model with each purifier, by name.
        variants: The forms in which the purifiers run; the first is the plain one.
        classes: Names of the model's classes by number, if it states them.
        device: The model's device; the CPU for a function.
    """

    def __init__(
        self,
        model: Callable[..., Any] | LoadedModel,
        purifiers: Mapping[str, Any],
        *,
        dtypes: Sequence[str] = (),
        eight_bit: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.bare = model.call if isinstance(model, LoadedModel) else model
        self._known = model.identity if isinstance(model, LoadedModel) else None
        self.classes = model.classes if isinstance(model, LoadedModel) else class_names(model)
        behind, channels = as_purified_model(self.bare), "RGB"
        if behind is not None:
            handle = attached(self.bare)
            self._known = model_identity(behind.model if handle is None else handle.model)
            self.bare = behind.model
            channels = behind.convention.channels
            mean, std = (mean, std) if mean is not None else behind.normalisation or (None, None)
        self.purifiers = dict(purifiers)
        everyone = {UNDEFENDED: Undefended(), **purifiers}
        self.defended = {
            name: PurifiedModel(self.bare, purifier, mean=mean, std=std, channels=channels)
            for name, purifier in everyone.items()
        }
        self.model = bare_model(self.defended[UNDEFENDED])
        self.device = _device_of(self.bare)
        rounded = (False, True) if eight_bit else (False,)
        self.variants = [Variant(bits, dtype) for dtype in (None, *dict.fromkeys(dtypes)) for bits in rounded]
        self._purifiers: dict[tuple[str, str | None], Any] = {(name, None): p for name, p in everyone.items()}
        for dtype in dtypes:
            resolved = resolve_dtype(dtype, torch.device("cpu"))
            for name, purifier in purifiers.items():
                # A copy, because the attack keeps the purifier's own dtype.
                self._purifiers[name, dtype] = copy.deepcopy(purifier).to(resolved)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What distinguishes the model from others in result files."""
        known = self._known or model_identity(self.bare)
        convention = self.defended[UNDEFENDED].convention
        order = {} if convention.channels == "RGB" else {"channels": convention.channels}
        return {**known, "normalisation": convention.normalisation, **order}

    @cached_property
    def scored(self) -> list[str]:
        """Names of the purifiers that give attack scores."""
        return [name for name, purifier in self.purifiers.items() if has_gate(purifier)]

    def runs(self, names: Sequence[str]) -> list[tuple[str, Variant]]:
        """Returns every variant of the named purifiers; the bare model does not depend on the dtype."""
        return [(name, way) for way in self.variants for name in names if (name, way.dtype) in self._purifiers]

    def dtype(self, name: str, variant: Variant) -> str:
        """Returns the dtype in which this purifier runs."""
        return variant.dtype or str(getattr(self._purifiers[name, None], "dtype", "float32")).removeprefix("torch.")

    def purify(self, name: str, variant: Variant, images: Any) -> Any:
        """Returns the images as the model receives them."""
        purifier = self._purifiers[name, variant.dtype]
        if isinstance(images, list):
            return [purifier.purify(_rounded(image, variant)) for image in images]
        return purifier.purify(_rounded(images, variant))

    def timed(self, name: str, variant: Variant, images: Any) -> tuple[Any, float]:
        """Returns the images as the model receives them, and the purifier's milliseconds for an image."""
        _wait(images)
        start = time.perf_counter()
        purified = self.purify(name, variant, images)
        _wait(purified)
        return purified, 1000 * (time.perf_counter() - start) / max(1, len(images))


def class_names(model: Any) -> tuple[str, ...] | None:
    """Returns the names of a model's classes that it states as `classes`."""
    names = getattr(model, "classes", None)
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        return None
    return tuple(map(str, names))


def _rounded(images: Tensor, variant: Variant) -> Tensor:
    return (images * 255).round() / 255 if variant.eight_bit else images


def _wait(images: Any) -> None:
    wait_for((images[0] if isinstance(images, list) else images).device)


def _device_of(model: Callable[..., Any]) -> torch.device:
    if isinstance(model, nn.Module):
        tensor = next(model.parameters(), next(model.buffers(), None))
        if tensor is not None:
            return tensor.device
    return torch.device("cpu")
