"""What the arguments of a model's call look like: images, text, caches, or something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# Parts of the names of arguments that hold floating-point tensors other than images.
_OTHERS = re.compile(
    "mask|bias|embed|state|past|cache|memory|kv|att(n|ention)|label|position|(^|_)pos(_|$)|output|feature|box|target|"
    "logit|token|latent|noise|audio|speech|spectro|mel_|input_values"
)
_PICTURES = re.compile("image|img|pixel|picture|frame|video|vision")
_PATCHES = "patch"
# Arguments that say that a call has text, whatever their form.
_TEXT = ("inputs_embeds", "decoder_inputs_embeds", "past_key_values", "encoder_outputs")
# A tensor whose sides are shorter, in pixels, is not taken for images on its form alone.
_SHORTEST = 8
_DICTIONARY = (
    "pass the values of a dictionary by name: model(**batch); for a model that takes dictionaries itself, purify their "
    "images beforehand: purifier.transforms.Purify"
)
_ARRAYS = "turn arrays and PIL images into tensors first, float in [0, 1], channels first"
BEFORE_PATCHES = "purify the picture before the processor cuts it up: purifier.transforms.PurifyFirst"


def holds_tensors(value: Any) -> bool:
    """Whether a value is a tensor, or a list of tensors with the dimensions of an image or a batch."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(v, Tensor) and v.ndim >= 3 for v in value)
    return isinstance(value, Tensor)


def look_like_images(value: Any) -> bool:
    """Whether a value is a floating-point tensor of one or three channels, (..., C, H, W), or a list of such."""
    if isinstance(value, list | tuple):
        return all(look_like_images(image) for image in value)
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 3 and value.shape[-3] in (1, 3)


def is_text(value: Any) -> bool:
    """Whether a tensor can only be tokens, a mask of them, or their places."""
    return isinstance(value, Tensor) and not value.is_floating_point() and not has_sides(value)


def says_text(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call has text, or the state of a text that is being generated."""
    return any(is_text(value) for value in (*args, *kwargs.values())) or any(
        kwargs.get(name) is not None for name in _TEXT
    )


def has_sides(value: Any) -> bool:
    """Whether a value is a tensor with the dimensions of images, channels first or last, in any dtype."""
    if not isinstance(value, Tensor) or value.ndim < 3:
        return False
    first, last = value.shape[-3] in (1, 3, 4), value.shape[-1] in (1, 3)
    return (first and min(value.shape[-2:]) >= _SHORTEST) or (last and min(value.shape[-3:-1]) >= _SHORTEST)


def holds_images(name: str, value: Any, *, listed: bool = False) -> bool:
    """Whether an argument of that name can only be images, or patches of them.

    Args:
        name: Name or position of the argument.
        value: Its value.
        listed: Whether the value is a part of a list.
    """
    if _OTHERS.search(name):
        return False
    if isinstance(value, Mapping):
        return any(holds_images(f"{name} {key}".lower(), part, listed=listed) for key, part in value.items())
    if isinstance(value, list | tuple):
        # Tuples of tuples are caches of keys and values.
        cached = isinstance(value, tuple) and any(isinstance(part, tuple) for part in value)
        return not cached and any(holds_images(name, part, listed=True) for part in value)
    named = _PICTURES.search(name) is not None
    if not isinstance(value, Tensor):
        return _is_array(value) and (named or getattr(value, "ndim", 3) > 2)
    if value.is_floating_point() and (_PATCHES in name or (look_like_images(value) and has_sides(value))):
        return _PATCHES in name or listed or value.ndim > 3 or named
    return named and has_sides(value)


def _is_array(value: Any) -> bool:
    """Whether a value is an array or a PIL image."""
    return hasattr(type(value), "__array_interface__")


def advice_for(place: int | str, value: Any) -> str:
    """What to do about an argument with images in a place that is not searched."""
    if isinstance(value, Mapping):
        return _DICTIONARY
    if _PATCHES in str(place).lower():
        return BEFORE_PATCHES
    parts = value if isinstance(value, list | tuple) else [value]
    return _ARRAYS if any(_is_array(part) for part in parts) else f"name the images: images={place!r}"


def advice(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """What to do about a call in which no images were found."""
    values = [value[0] if isinstance(value, list | tuple) and value else value for value in (*args, *kwargs.values())]
    if any(isinstance(value, Mapping) for value in values):
        return _DICTIONARY
    if any(_is_array(value) for value in values):
        return _ARRAYS
    return "pass the images as the first argument, or name their argument: images='frames'"


def described(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The kinds of a call's arguments, for a message."""
    parts = [_kind(a) for a in args] + [f"{k}={_kind(v)}" for k, v in kwargs.items()]
    return ", ".join(parts) or "no arguments"


def _kind(value: Any) -> str:
    name = type(value).__name__
    if not isinstance(value, list | tuple):
        return name
    return f"{name} of {type(value[0]).__name__}" if value else f"empty {name}"
