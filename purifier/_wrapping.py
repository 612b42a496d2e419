"""wrap(): puts a purifier in front of an existing model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from purifier._errors import OptionError, warn_once
from purifier._purified_model import PurifiedModel
from purifier._purifier import Purifier

PROMISE = (
    "a purifier makes a model harder to fool by attackers who do not know it; one who does can bypass it (the model "
    "card has the measured figures). Shown once."
)


def wrap(
    model: Callable[..., Any],
    purifier: str | os.PathLike[str] | Purifier = "ncis",
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    processor: Any = None,
    **from_pretrained_arguments: Any,
) -> PurifiedModel:
    """Puts a purifier in front of a classifier, detector, segmenter or any function of images.

    The model is not retrained, moved or changed. The result is called like the model.

    Args:
        model: A module (torchvision, timm, transformers, your own; also inside DataParallel or DDP) or a function.
        purifier: A purifier, or a name, folder or hub repository for `Purifier.from_pretrained`. A purifier that is
            loaded here goes to the model's device.
        mean: Mean per channel of the normalisation of the incoming images, in [0, 1] units. By default it is read
            from a timm model's `pretrained_cfg`. Images in [0, 1] need none; for a timm model that takes such images,
            pass mean=0 and std=1.
        std: Standard deviation per channel, likewise.
        processor: A transformers image processor, whose mean and std are used.
        **from_pretrained_arguments: For `Purifier.from_pretrained`, such as `iterations=5`.

    Raises:
        OptionError: If arguments contradict each other.
        WrapError: If the model cannot be called.

    Example:
        >>> import torch, purifier
        >>> classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
        >>> purifier.wrap(classifier, "gs")(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 10])
    """
    mean, std = _normalisation(model, mean, std, processor)
    wrapped = _loaded(purifier, model, from_pretrained_arguments).wrap(model, mean=mean, std=std)
    warn_once(PROMISE, stacklevel=2)
    return wrapped


def _loaded(purifier: str | os.PathLike[str] | Purifier, model: Any, arguments: dict[str, Any]) -> Purifier:
    if not isinstance(purifier, Purifier):
        return Purifier.from_pretrained(purifier, **{"device": _device(model), **arguments})
    if arguments:
        raise OptionError(
            f"expected no from_pretrained arguments with a purifier that is loaded already, got "
            f"{', '.join(sorted(arguments))}"
        )
    return purifier


def _device(model: Any) -> Any:
    if not isinstance(model, nn.Module):
        return None
    tensor = next(model.parameters(), next(model.buffers(), None))
    return None if tensor is None or tensor.is_meta else tensor.device


_Normalisation = tuple[Sequence[float] | None, Sequence[float] | None]


def _normalisation(model: Any, mean: Any, std: Any, processor: Any) -> _Normalisation:
    """Returns mean and std as they are given, or as the processor or a timm model states them."""
    if processor is not None:
        if mean is not None or std is not None:
            raise OptionError("expected either processor or mean and std, got both")
        return _of_processor(processor)
    return _of_timm(model) if mean is None and std is None else (mean, std)


def _of_timm(model: Any) -> _Normalisation:
    # DataParallel and DDP keep the model at `.module`.
    stated = getattr(getattr(model, "module", model), "pretrained_cfg", None)
    if not isinstance(stated, dict) or not {"mean", "std"} <= stated.keys():
        return None, None
    return stated["mean"], stated["std"]


def _of_processor(processor: Any) -> _Normalisation:
    processor = getattr(processor, "image_processor", processor)
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if getattr(processor, "do_normalize", None) is False:
        return None, None
    if mean is None or std is None:
        raise OptionError(
            f"expected an image processor with image_mean and image_std, got {type(processor).__name__}; pass mean "
            "and std instead"
        )
    return mean, std
