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
_FLAT = "patch"
# Arguments that say that a call has text, whatever their form.
_TEXT = ("inputs_embeds", "decoder_inputs_embeds", "past_key_values", "encoder_outputs")
# A tensor whose sides are shorter, in pixels, is not taken for images on its form alone.
_SHORTEST = 8
_PLAIN = (bool, int, float, complex, str, bytes)
_DICTIONARY = (
    "pass the values of a dictionary by name: model(**batch); for a model that takes dictionaries itself, purify their "
    "images beforehand: purifier.transforms.Purify"
)
_ARRAYS = "turn arrays and PIL images into tensors first, float in [0, 1], channels first"
_NAME = "pass the images as the first argument, or name their argument: images='frames'"
BEFORE_PATCHES = "purify the picture before the processor cuts it up: purifier.transforms.PurifyFirst"


def holds_tensors(value: Any) -> bool:
    """Whether a value is a tensor, or a list of tensors with the dimensions of an image or a batch."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(v, Tensor) and v.ndim >= 3 for v in value)
    return isinstance(value, Tensor)


def look_like_images(value: Any) -> bool:
    """Whether a value is a floating-point tensor of one or three channels, (..., C, H, W), or a list of such."""
    if isinstance(value, list | tuple):
        return bool(value) and all(look_like_images(image) for image in value)
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 3 and value.shape[-3] in (1, 3)


def unlikely(value: Any) -> int:
    """0 for a tensor or a list that looks like images, 1 for one with their dimensions, 2 for others.

    Whole numbers in three channels look like images too, so that they are refused with what to do.
    """
    if look_like_images(value):
        return 0
    sides = has_sides(value)
    return 0 if sides and not value.is_floating_point() and value.shape[-3] == 3 else 1 if sides else 2


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


def holds_images(name: str, value: Any) -> bool:
    """Whether an argument of that name or position can only be images, or patches of them."""
    if value is None or isinstance(value, _PLAIN):
        return False
    name = name.lower()
    return _OTHERS.search(name) is None and _holds(name, value, _PICTURES.search(name) is not None)


def _holds(name: str, value: Any, named: bool, listed: bool = False) -> bool:
    """Whether an argument holds images; `named` says that its name does, `listed` that it is a part of a list."""
    if isinstance(value, Tensor):
        return _is_picture(name, value, named, listed)
    if isinstance(value, list | tuple):
        # Lists of tuples are caches of keys and values. Of plain values, the first tells.
        if not value or isinstance(value[0], (tuple, *_PLAIN)):
            return False
        return any(_holds(name, part, named, listed=True) for part in value)
    if isinstance(value, Mapping):
        return any(holds_images(f"{name} {key}", part) for key, part in value.items())
    return _is_array(value) and (hasattr(value, "getbands") or (value.ndim > 1 and min(value.shape[:2]) >= _SHORTEST))


def _is_picture(name: str, value: Tensor, named: bool, listed: bool) -> bool:
    if value.is_floating_point() and _FLAT in name:
        return True
    if not has_sides(value):
        return False
    if named:
        return True
    return look_like_images(value) and (value.ndim > 3 or (listed and value.shape[-3] == 3))


def is_second(place: int | str, value: Any, first: Any) -> bool:
    """Whether an argument beside the images of a call seems to be images too."""
    if holds_images(str(place), value):
        # By position, a mask of one channel looks the same.
        return isinstance(place, str) or _channels(value) in (None, _channels(first))
    same = isinstance(value, Tensor) and value.shape == getattr(first, "shape", None) and look_like_images(value)
    return same and _OTHERS.search(str(place).lower()) is None


def _channels(value: Any) -> int | None:
    value = value[0] if isinstance(value, list | tuple) else value
    return value.shape[-3] if isinstance(value, Tensor) and value.ndim > 2 else None


def _is_array(value: Any) -> bool:
    """Whether a value is an array or a PIL image."""
    return hasattr(type(value), "__array_interface__")


def advice_for(place: int | str | None, value: Any) -> str:
    """What to do about a value with images in a place that is not searched; None if the place is not known."""
    value = value[0] if isinstance(value, list | tuple) and value else value
    if isinstance(value, Mapping):
        return _DICTIONARY
    if _FLAT in str(place).lower():
        return BEFORE_PATCHES
    if _is_array(value):
        return _ARRAYS
    return f"name the images: images={place!r}" if place is not None else _NAME


def advice(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """What to do about a call in which no images were found."""
    found = {advice_for(None, value) for value in (*args, *kwargs.values())}
    return next((text for text in (_DICTIONARY, _ARRAYS) if text in found), _NAME)


def described(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The kinds of a call's arguments, for a message."""
    parts = [_kind(a) for a in args] + [f"{k}={_kind(v)}" for k, v in kwargs.items()]
    return ", ".join(parts) or "no arguments"


def _kind(value: Any) -> str:
    name = type(value).__name__
    if not isinstance(value, list | tuple):
        return name
    return f"{name} of {type(value[0]).__name__}" if value else f"empty {name}"
