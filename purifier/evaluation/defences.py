"""The model behind each purifier, and what each makes of images: rounded to 8 bits or not, in one dtype or another."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from purifier._purified_model import PurifiedModel
from purifier.attacks.threats import bare_model
from purifier.evaluation.plan import UNDEFENDED
from purifier.inference.precision import resolve_dtype
from purifier.inference.timing import wait_for


class Undefended(nn.Module):
    """Stands where a purifier would, and changes nothing."""

    differentiable = True
    random = False

    def purify(self, images: Tensor) -> Tensor:
        """Returns the images."""
        return images

    forward = purify


@dataclass(frozen=True)
class Variant:
    """How the defence is run.

    Attributes:
        eight_bit: Whether images are rounded to 8 bits before the defence sees them.
        dtype: What purifiers compute in; None for what they were given in.
    """

    eight_bit: bool = False
    dtype: str | None = None

    @property
    def key(self) -> str:
        """Name in the records."""
        return f"{self.dtype or 'given'}{'-8bit' if self.eight_bit else ''}"


def variants(eight_bit: bool, dtypes: Sequence[str]) -> list[Variant]:
    """Returns the plain variant first, then those asked for."""
    rounded = (False, True) if eight_bit else (False,)
    return [Variant(bits, dtype) for dtype in (None, *dict.fromkeys(dtypes)) for bits in rounded]


class Defences:
    """A model behind several purifiers.

    Args:
        model: Any callable of images.
        purifiers: By name.
        dtypes: Other dtypes that defences are run in.
        mean: Of the normalisation that the model takes, or None for images in [0, 1].
        std: Likewise.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        purifiers: Mapping[str, Any],
        *,
        dtypes: Sequence[str] = (),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        everyone = {UNDEFENDED: Undefended(), **purifiers}
        self.defended = {
            name: PurifiedModel(model, purifier, mean=mean, std=std) for name, purifier in everyone.items()
        }
        self.model = bare_model(self.defended[UNDEFENDED])
        self._purifiers: dict[tuple[str, str | None], Any] = {(name, None): p for name, p in everyone.items()}
        for dtype in dtypes:
            resolved = resolve_dtype(dtype, torch.device("cpu"))
            for name, purifier in purifiers.items():
                # A copy: the attack goes on in the dtype that was given.
                self._purifiers[name, dtype] = copy.deepcopy(purifier).to(resolved)

    def has(self, name: str, variant: Variant) -> bool:
        """Whether this variant of this purifier differs from the plain one; without a purifier no dtype does."""
        return (name, variant.dtype) in self._purifiers

    def dtype(self, name: str, variant: Variant) -> str:
        """What this purifier computes in."""
        return variant.dtype or str(getattr(self._purifiers[name, None], "dtype", "float32")).removeprefix("torch.")

    def purify(self, name: str, variant: Variant, images: Any) -> Any:
        """Returns what the model would be shown."""
        purifier = self._purifiers[name, variant.dtype]
        if isinstance(images, list):
            return [purifier.purify(_rounded(image, variant)) for image in images]
        return purifier.purify(_rounded(images, variant))

    def timed(self, name: str, variant: Variant, images: Any) -> tuple[Any, float]:
        """Returns what the model would be shown, and the milliseconds it took an image."""
        _wait(images)
        start = time.perf_counter()
        purified = self.purify(name, variant, images)
        _wait(purified)
        return purified, 1000 * (time.perf_counter() - start) / max(1, len(images))


def _rounded(images: Tensor, variant: Variant) -> Tensor:
    return (images * 255).round() / 255 if variant.eight_bit else images


def _wait(images: Any) -> None:
    wait_for((images[0] if isinstance(images, list) else images).device)
