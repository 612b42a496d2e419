"""PurifiedModel: purifies the images in a model's call and passes everything else on unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import OptionError, WrapError
from purifier._input import check_form, check_range

_KEYWORDS = ("images", "image", "input", "inputs", "x")


class PurifiedModel(nn.Module):
    """A model behind a purifier.

    It is called like the model. The images are `pixel_values=` if that is given, otherwise the first argument that is
    a tensor or a list of tensors. They are purified in [0, 1]; all other arguments and the output are passed on
    unchanged. The model's mode, device, dtype and parameters never change. Gradients are exact.

    Attributes of the model are not available here, because a call through them would bypass the purifier. Use
    `.model`.

    Args:
        model: A module or a function.
        purifier: A `Purifier`.
        mean: Mean per channel of the normalisation of the incoming images. None means images in [0, 1].
        std: Standard deviation per channel, likewise.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        purifier: nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not callable(model):
            raise WrapError(f"expected a model that can be called, got {type(model).__name__}")
        self.purifier: Any = purifier
        self.model: Any = model
        # The mode of the model. An assignment here does not change the children's modes, as train() would.
        self.training = getattr(model, "training", False)
        # Numbers rather than buffers, which half() would round and to_empty() would lose.
        self.mean, self.std = _per_channel("mean", mean), _per_channel("std", std)
        if (self.mean is None) != (self.std is None):
            raise OptionError(f"expected mean and std together, got mean={mean}, std={std}")

    @property
    def normalisation(self) -> tuple[list[float], list[float]] | None:
        """(mean, std) of the incoming images, or None for images in [0, 1]."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)

    def unwrap(self) -> Any:
        """Returns the model."""
        return self.model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model with purified images.

        Raises:
            InputError: If the images have a wrong kind, shape or range.
            WrapError: If the call contains no images.
        """
        keyword = "pixel_values" if "pixel_values" in kwargs else None
        if keyword is None:
            for place, value in enumerate(args):
                if _holds_images(value):
                    return self.model(*args[:place], self._purify(value), *args[place + 1 :], **kwargs)
            keyword = next((k for k in _KEYWORDS if _holds_images(kwargs.get(k))), None)
        if keyword is None:
            raise WrapError(
                "expected images as a tensor, as a list of tensors, or as pixel_values=, got a call with "
                f"{_describe(args, kwargs)}; pass the images as the first argument"
            )
        return self.model(*args, **{**kwargs, keyword: self._purify(kwargs[keyword])})

    def _purify(self, images: Any) -> Any:
        if isinstance(images, list | tuple):
            purified = [self._purify(image) for image in images]
            # The constructor of a named tuple takes its values as separate arguments.
            return images._make(purified) if hasattr(images, "_make") else type(images)(purified)
        check_form(images)
        if self.mean is None or self.std is None:
            check_range(
                images,
                "if they are normalised, wrap the model with their mean=... and std=... (or purifier.wrap with "
                "processor=...); if they are in 0..255, divide by 255",
            )
            return self.purifier.purify(images)
        # In single precision or better, because undoing a normalisation in half precision loses bits.
        dtype = torch.promote_types(images.dtype, torch.float32)
        mean, std = (
            torch.tensor(values, dtype=dtype, device=images.device).view(3, 1, 1) for values in (self.mean, self.std)
        )
        plain = images.to(dtype) * std + mean
        check_range(
            plain,
            f"these are the values after undoing mean={self.mean} and std={self.std}; wrap the model with the mean and "
            "std of its images",
        )
        return ((self.purifier.purify(plain) - mean) / std).to(images.dtype)


def _per_channel(name: str, values: Sequence[float] | None) -> list[float] | None:
    if values is None:
        return None
    try:
        tensor = torch.as_tensor(values, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError):
        tensor = torch.empty(0)
    if tensor.numel() not in (1, 3) or (name == "std" and not bool((tensor > 0).all())):
        raise OptionError(
            f"expected {name} as one number per channel (3), {'positive, ' * (name == 'std')}got {values!r}; give "
            "numbers such as [0.5, 0.5, 0.5]"
        )
    numbers: list[float] = tensor.expand(3).tolist()
    return numbers


def _holds_images(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(v, Tensor) and v.ndim == 3 for v in value)
    return isinstance(value, Tensor)


def _describe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    parts = [type(a).__name__ for a in args] + [f"{k}={type(v).__name__}" for k, v in kwargs.items()]
    return ", ".join(parts) or "no arguments"
