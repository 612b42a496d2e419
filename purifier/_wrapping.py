"""wrap(): a purifier in front of a model that somebody already has."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from purifier._errors import OptionError, PurifierWarning
from purifier._purified_model import PurifiedModel
from purifier._purifier import Purifier

_PROMISE = (
    "a purifier makes a model harder to fool by attackers who do not know it; one who does can bypass it (the model "
    "card has the measured figures). Shown once."
)
_warned = False


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
        purifier: A name, folder or hub repository for `Purifier.from_pretrained`, or a purifier. One that is loaded
            here is put on the model's device.
        mean: Mean of each channel that the images are normalised with before they reach the model, in [0, 1] units;
            read off a timm model's `pretrained_cfg` where it is not given. Images in [0, 1] need none: for a timm
            model that is fed those, pass mean=0 and std=1 of each channel.
        std: Standard deviation of each channel, likewise.
        processor: A transformers image processor, whose mean and std are used.
        **from_pretrained_arguments: Passed on to `Purifier.from_pretrained`, such as `iterations=5`.

    Raises:
        OptionError: Where arguments contradict each other.
        WrapError: Where the model cannot be called.

    Example:
        >>> import torch, purifier
        >>> classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
        >>> model = purifier.wrap(classifier, "gs")
        >>> model(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 10])
    """
    if processor is not None:
        if mean is not None or std is not None:
            raise OptionError("expected either processor or mean and std, got both")
        mean, std = _of_processor(processor)
    elif mean is None and std is None:
        mean, std = _of_timm(model)
    if isinstance(purifier, Purifier):
        if from_pretrained_arguments:
            raise OptionError(
                f"expected no from_pretrained arguments beside a purifier that is loaded already, got "
                f"{', '.join(sorted(from_pretrained_arguments))}"
            )
    else:
        from_pretrained_arguments.setdefault("device", _device(model))
        purifier = Purifier.from_pretrained(purifier, **from_pretrained_arguments)
    wrapped = purifier.wrap(model, mean=mean, std=std)
    _warn_once()
    return wrapped


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(_PROMISE, PurifierWarning, stacklevel=3)


def _device(model: Any) -> Any:
    if not isinstance(model, nn.Module):
        return None
    tensor = next(model.parameters(), next(model.buffers(), None))
    return None if tensor is None or tensor.is_meta else tensor.device


def _of_timm(model: Any) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Mean and std that a timm model states; DataParallel and DDP keep the model at `.module`."""
    stated = getattr(getattr(model, "module", model), "pretrained_cfg", None)
    if not isinstance(stated, dict) or not {"mean", "std"} <= stated.keys():
        return None, None
    return stated["mean"], stated["std"]


def _of_processor(processor: Any) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Mean and std of a transformers image processor; none where it does not normalise."""
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
