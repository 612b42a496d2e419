"""Checks of the input of purifiers and wrapped models."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from purifier._errors import InputError
from purifier._forms import BEFORE_PATCHES
from purifier._tracing import is_tracing

# How far values may leave [0, 1]: more than the rounding of an attack or a normalisation, less than normalised images.
TOLERANCE = 0.05
# What torch computes in.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
UNIT_ADVICE = "divide by 255, or undo your model's normalisation before purifying"


def check_form(images: Any, *, grey: bool = False) -> None:
    """Checks what is known without looking at values: kind, shape and dtype.

    Args:
        images: What should be a float tensor (..., 3, H, W).
        grey: Whether images of one channel are taken too.

    Raises:
        InputError: If it is something else.
    """
    if not isinstance(images, Tensor):
        raise InputError(
            f"expected a float tensor of images in [0, 1], got {type(images).__name__}; for PIL images, uint8 arrays "
            "and paths use purify_image"
        )
    check_storage(images)
    shape = tuple(images.shape)
    if images.ndim < 3 or shape[-3] not in ((1, 3) if grey else (3,)) or 0 in shape[-2:]:
        raise InputError(f"expected images of shape (N, 3, H, W) or (3, H, W), got {shape}{_shape_advice(images)}")
    if not images.is_floating_point():
        raise InputError(
            f"expected a float tensor of images in [0, 1], got {images.dtype}; divide by 255: images.float() / 255"
        )


def check_storage(images: Tensor) -> None:
    """Checks that a tensor is dense, and that torch computes in its dtype.

    Raises:
        InputError: If it is nested, sparse, quantised, or of a floating type of 8 bits or fewer.
    """
    if images.is_nested or images.layout != torch.strided or images.is_quantized:
        kind = "nested" if images.is_nested else "quantised" if images.is_quantized else str(images.layout)
        raise InputError(f"expected a dense tensor of images, got a {kind} one; convert it to a dense one")
    if images.is_floating_point() and images.dtype not in FLOATS:
        raise InputError(
            f"expected images in one of {', '.join(map(str, FLOATS))}, got {images.dtype}; convert them with .float()"
        )


def _shape_advice(images: Tensor) -> str:
    if images.ndim in (3, 4) and images.shape[-1] == 3:
        order = "0, 3, 1, 2" if images.ndim == 4 else "2, 0, 1"
        return f"; permute channels first with images.permute({order})"
    if images.ndim in (3, 4) and images.shape[-3] == 1:
        sizes = "-1, 3, -1, -1" if images.ndim == 4 else "3, -1, -1"
        return f"; repeat the grey channel three times with images.expand({sizes})"
    if images.ndim == 2:
        return (
            f"; add the colour channels with images.expand(3, -1, -1); if these are flattened patches, {BEFORE_PATCHES}"
        )
    if images.ndim in (3, 4) and images.shape[-3] == 4:
        return "; set the alpha channel aside with images[..., :3, :, :]"
    return ""


def check_range(images: Tensor, advice: str) -> None:
    """Checks that values lie in [0, 1], up to rounding. Does nothing while torch records a graph.

    Args:
        images: Float images.
        advice: What to do about values outside. It ends the message.

    Raises:
        InputError: If a value is clearly outside [0, 1] or NaN.
    """
    low, high = extremes(images)
    if math.isnan(low):
        raise InputError(
            "expected images in [0, 1], got NaN values; find their cause, or replace them with images.nan_to_num()"
        )
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise InputError(f"expected images in [0, 1], got values from {low:.4g} to {high:.4g}; {advice}")


def extremes(images: Tensor) -> tuple[float, float]:
    """Returns the lowest and the highest value.

    (0, 0) if they cannot be known: while a graph is captured, in `torch.vmap`, on "meta", or if there are none.
    """
    if is_tracing() or is_batched(images) or images.is_meta or images.numel() == 0:
        return 0.0, 0.0
    if images.is_cuda and torch.cuda.is_current_stream_capturing():
        return 0.0, 0.0
    low, high = torch.stack(images.detach().aminmax()).tolist()
    return low, high


def is_batched(images: Tensor) -> bool:
    """Whether `torch.vmap` is mapping over the images, also inside `torch.func.grad`."""
    while torch._C._functorch.is_functorch_wrapped_tensor(images):
        if torch._C._functorch.is_batchedtensor(images):
            return True
        images = torch._C._functorch.get_unwrapped(images)
    return False
