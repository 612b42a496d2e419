"""What a transformers image processor does to the values of a picture, measured on plain pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._forms import BEFORE_PATCHES

_COLOUR = (51, 102, 204)
_SIDE = 64
# A stated mean or std is used for its exact bits if the measured one is that close.
_CLOSE = 1e-4


def measure_processor(processor: Any) -> tuple[Any, Any, str]:
    """Returns (mean, std, channels) of the images that a processor makes; mean and std are None for [0, 1].

    A black, a white and a coloured picture are put through the processor.

    Args:
        processor: A transformers image processor, or a processor that holds one as `image_processor`.

    Raises:
        OptionError: If it makes something else than images, or does not map values linearly.
    """
    processor = getattr(processor, "image_processor", processor)
    black, white, colour = (_values(processor, rgb) for rgb in ((0, 0, 0), (255, 255, 255), _COLOUR))
    scale = white - black
    expected = torch.tensor(_COLOUR, dtype=torch.float64) / 255
    if bool((scale > 0).all()):
        for channels, order in (("RGB", [0, 1, 2]), ("BGR", [2, 1, 0])):
            if torch.allclose(black + scale * expected[order], colour, atol=2e-2):
                return *_as_stated(processor, (-black / scale)[order], (1 / scale)[order]), channels
    raise OptionError(
        f"expected a processor that normalises each channel linearly, got {type(processor).__name__}, which turns "
        f"black into {_shown(black)}, white into {_shown(white)} and the colour {_COLOUR} into {_shown(colour)}; pass "
        "mean=, std= and channels= instead"
    )


def _values(processor: Any, rgb: tuple[int, int, int]) -> Tensor:
    """The three values at the centre of a plain picture."""
    from PIL import Image

    try:
        made = processor(images=Image.new("RGB", (_SIDE, _SIDE), rgb), return_tensors="pt")["pixel_values"]
    except Exception as error:  # processors raise all kinds of errors
        raise _cannot(processor, f"an error: {error}") from error
    values = torch.as_tensor(made)
    if values.ndim < 4 or values.shape[-3] != 3:
        raise _cannot(processor, f"values of shape {tuple(values.shape)}", f"if these are patches, {BEFORE_PATCHES}")
    values = values.reshape(-1, *values.shape[-3:])[0]
    return values[:, values.shape[1] // 2, values.shape[2] // 2].double()


def _as_stated(processor: Any, mean: Tensor, std: Tensor) -> tuple[Any, Any]:
    if torch.allclose(mean, torch.zeros(3, dtype=torch.float64), atol=_CLOSE) and torch.allclose(
        std, torch.ones(3, dtype=torch.float64), atol=_CLOSE
    ):
        return None, None
    stated = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    try:
        exact = [torch.as_tensor(values, dtype=torch.float64).expand(3) for values in stated]
    except (TypeError, ValueError, RuntimeError):
        return mean.tolist(), std.tolist()
    close = all(torch.allclose(a, b, atol=_CLOSE) for a, b in zip(exact, (mean, std), strict=True))
    return stated if close else (mean.tolist(), std.tolist())


def _cannot(processor: Any, got: str, advice: str = "pass mean= and std= instead") -> OptionError:
    return OptionError(
        f"expected an image processor that turns a picture into pixel_values (N, 3, H, W), got "
        f"{type(processor).__name__} with {got}; {advice}"
    )


def _shown(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values.tolist()) + ")"
