"""wrap(): puts a purifier in front of an existing model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import nn

from purifier._errors import OptionError, warn_once
from purifier._hooking import inner_model
from purifier._processor import measure_processor
from purifier._purified_model import PurifiedModel
from purifier._purifier import Purifier
from purifier.methods import innermost

# The purifier of wrap, attach and the command line: the best mean of clean and blind robust accuracy among those that
# cost at most 5 points of clean accuracy on every classifier measured, and at most 1.1 forward passes of a ResNet-50.
# docs/choosing.md has the table.
DEFAULT = "alloy-s"

PROMISE = (
    "a purifier makes a model harder to fool by attackers who do not know it; one who does can bypass it (the model "
    "card has the measured figures). Shown once."
)


def wrap(
    model: Callable[..., Any],
    purifier: str | os.PathLike[str] | Purifier = DEFAULT,
    *,
    mean: Any = None,
    std: Any = None,
    processor: Any = None,
    images: Any = None,
    channels: str | None = None,
    out_of_range: str = "auto",
    **from_pretrained_arguments: Any,
) -> PurifiedModel:
    """Puts a purifier in front of a classifier, detector, segmenter or any function of images.

    The model is not changed, and the result is called like it. `purifier.attach` works in place instead.

    Args:
        model: A module (torchvision, timm, transformers, your own; also inside DataParallel or DDP) or a function.
        purifier: A name, folder or hub repository for `Purifier.from_pretrained`, or a purifier. One that is loaded
            here is put on the model's device.
        mean: Mean of each channel that the images are normalised with before they reach the model, in [0, 1] units.
            None means a timm model's own, or none for other models; a timm model that is fed images in [0, 1] takes
            mean=0, std=1. Images in 0..255 have mean=0, std=1/255.
        std: Standard deviation of each channel, likewise.
        processor: The transformers image processor of the model; its normalisation and channel order are measured.
        images: Positions or keywords of the arguments that are images; None finds one, see `PurifiedModel`.
        channels: Order of the images' channels, "RGB" or "BGR"; None means the processor's, or "RGB".
        out_of_range: "auto", "clamp" or "refuse"; see `PurifiedModel`.
        **from_pretrained_arguments: Passed on to `Purifier.from_pretrained`, such as `iterations=5`.

    Raises:
        OptionError: If options contradict each other or are out of their range.
        WrapError: If the model cannot be called, or it or a part of it has a purifier already.

    Example:
        >>> import torch, purifier
        >>> classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
        >>> purifier.wrap(classifier, "gs")(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 10])
    """
    convention = convention_of(model, processor, mean, std, channels)
    loaded = load_for(model, purifier, from_pretrained_arguments)
    wrapped = loaded.wrap(model, **convention, images=images, out_of_range=out_of_range)
    warn_once(PROMISE, stacklevel=2)
    return wrapped


def convention_of(model: Any, processor: Any, mean: Any, std: Any, channels: str | None) -> dict[str, Any]:
    """Returns mean, std and channels of a model's images: as given, as measured, or as a timm model states them.

    Raises:
        OptionError: If a processor is given beside mean or std, or is not understood.
    """
    measured = "RGB"
    if processor is not None:
        if mean is not None or std is not None:
            raise OptionError("expected either processor or mean and std, got both")
        mean, std, measured = measure_processor(processor)
    elif mean is None and std is None:
        mean, std = _of_timm(model)
    return {"mean": mean, "std": std, "channels": measured if channels is None else channels}


def load_for(model: Any, purifier: str | os.PathLike[str] | Purifier, arguments: dict[str, Any]) -> Purifier:
    """Returns the purifier itself, or loads it onto the model's device. Warns if it leaves images as they are.

    Raises:
        OptionError: If there are arguments for loading beside a purifier that is loaded already.
    """
    if not isinstance(purifier, Purifier):
        purifier = Purifier.from_pretrained(purifier, **{"device": _device(model), **arguments})
    elif arguments:
        raise OptionError(
            f"expected no from_pretrained arguments with a purifier that is loaded already, got "
            f"{', '.join(sorted(arguments))}"
        )
    if all(part.options.get("iterations") == 0 for part in innermost(purifier.method)):
        warn_once(f"{purifier.name!r} has iterations=0: it defends nothing. Give iterations=1 or more", stacklevel=3)
    return purifier


def _device(model: Any) -> Any:
    if not isinstance(model, nn.Module):
        return None
    tensor = next(model.parameters(), next(model.buffers(), None))
    return None if tensor is None or tensor.is_meta else tensor.device


def _of_timm(model: Any) -> tuple[Any, Any]:
    """Mean and std that a timm model states."""
    stated = getattr(inner_model(model), "pretrained_cfg", None)
    if not isinstance(stated, dict) or not {"mean", "std"} <= stated.keys():
        return None, None
    return stated["mean"], stated["std"]
