"""Finds the images in a model's call, purifies them, and leaves every other argument as it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from purifier._convention import Convention
from purifier._errors import InputError, OptionError, WrapError, warn_once
from purifier._forms import (
    BEFORE_PATCHES,
    advice,
    advice_for,
    described,
    holds_images,
    holds_tensors,
    is_second,
    is_text,
    says_text,
    unlikely,
)
from purifier._input import check_form, is_batched
from purifier._tracing import is_tracing, leaves_a_graph

# Keywords under which models take images, most telling first.
_KEYWORDS = ("pixel_values", "images", "image", "input", "inputs", "x")
# Images of these sides, in batches of at least so many, are the patches of a vision-language model.
_PATCH_SIDES, _MOST_IMAGES = (14, 16), 64

_MASK = "pixel_mask"

Purify = Callable[[Tensor], Tensor]
Place = int | str
Selection = tuple[Place, ...] | None


def check_selection(images: Any) -> Selection:
    """Checks the option `images`: the positions or keywords of the arguments that are purified; None finds them.

    Raises:
        OptionError: If it is something else.
    """
    if images is None:
        return None
    places = (images,) if isinstance(images, int | str) else images
    if not isinstance(places, Sequence) or not places or not all(type(place) in (int, str) for place in places):
        raise OptionError(
            f"expected images as positions or names of the model's arguments, such as ('image1', 'image2'), got "
            f"{images!r}"
        )
    return tuple(places)


def purify_call(
    purify: Purify,
    convention: Convention,
    selection: Selection,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    model: Any = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a call with its images purified.

    Args:
        purify: Map of images (N, 3, H, W) or (3, H, W) in [0, 1] to purified ones.
        convention: How the model's images are written down.
        selection: Which arguments are images; None finds one: the first keyword out of those that models use, else the
            first positional tensor, or list of tensors, that has the form of images.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        model: The model that is called. Its signature finds selected arguments that are passed in the other way, by
            position or by name, and a `pixel_mask` among the positional ones.

    Raises:
        InputError: If the images have a wrong kind, shape or range.
        WrapError: If there are no images in the call, or it holds some in a place that is not searched.
    """
    places = _found(args, kwargs) if selection is None else _chosen(selection, args, kwargs, model)
    mask = kwargs.get(_MASK, _positional_mask(model, args))
    changed_args, changed = list(args), dict(kwargs)
    for place in places:
        holder: Any = changed if isinstance(place, str) else changed_args
        if selection is None:
            _check_not_patches(place, holder[place], kwargs)
        holder[place] = _purified(purify, convention, holder[place], mask if isinstance(mask, Tensor) else None)
    return tuple(changed_args), changed


def _found(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Place]:
    """The place of the images; empty for a call that says that it has none.

    Raises:
        WrapError: If there are none in a call that does not say so, or some in a place that is not searched.
    """
    stated = "pixel_values" in kwargs
    if stated and kwargs["pixel_values"] is None:
        return _none_overlooked(args, kwargs)
    candidates = [place for place, value in enumerate(args) if holds_tensors(value)]
    named = [name for name in _KEYWORDS if holds_tensors(kwargs.get(name))]
    # A tensor that does not look like images is refused with advice, unless it can only be tokens or a mask.
    possible: list[Place] = [*(place for place in candidates if not is_text(args[place])), *named]
    values = _by_place(args, kwargs)
    ranked = sorted(possible, key=lambda place: unlikely(values[place]))
    found: list[Place] = ["pixel_values"] if stated else ranked
    if found:
        _warn_of_second(found[0], values)
        return found[:1]
    if candidates or says_text((), kwargs):
        return _none_overlooked(args, kwargs)
    raise WrapError(
        "expected images as a tensor, as a list of tensors, or as pixel_values=, got a call with "
        f"{described(args, kwargs)}; {advice(args, kwargs)}"
    )


def _by_place(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[Place, Any]:
    return dict([*enumerate(args), *kwargs.items()])


def _none_overlooked(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Place]:
    """Returns no places, after making sure that a call without images does not hold some elsewhere.

    Raises:
        WrapError: If it does.
    """
    for place, value in _by_place(args, kwargs).items():
        if holds_images(str(place), value):
            raise WrapError(
                f"expected a call with images where they are searched, or without any, got {described(args, kwargs)}, "
                f"of which argument {place!r} seems to hold images; {advice_for(place, value)}"
            )
    return []


def _chosen(selection: tuple[Place, ...], args: tuple[Any, ...], kwargs: dict[str, Any], model: Any) -> list[Place]:
    places = [_place(place, args, kwargs, model) for place in selection]
    there = list(dict.fromkeys(place for place in places if place is not None))
    if not there and says_text(args, kwargs):
        return _none_overlooked(args, kwargs)
    if None in places:
        raise WrapError(
            f"expected the images of the call at {', '.join(map(repr, selection))}, got a call with "
            f"{described(args, kwargs)}; call it so, or change images=..."
        )
    values = _by_place(args, kwargs)
    return [place for place in there if values[place] is not None]


def _place(place: Place, args: tuple[Any, ...], kwargs: dict[str, Any], model: Any) -> Place | None:
    """Where a selected argument is in a call, also if the call passes it in the other way; None if it is not there."""
    if place in kwargs or (isinstance(place, int) and 0 <= place < len(args)):
        return place
    names = _names(model)
    if isinstance(place, str):
        number = names.index(place) if place in names else len(args)
        return number if number < len(args) else None
    name = names[place] if 0 <= place < len(names) else None
    return name if name in kwargs else None


def _purified(purify: Purify, convention: Convention, images: Any, mask: Tensor | None = None) -> Any:
    if isinstance(images, list | tuple):
        purified = [_purified(purify, convention, image) for image in images]
        # A named tuple takes its values one by one.
        return images._make(purified) if hasattr(images, "_make") else type(images)(purified)
    check_form(images, grey=True)
    if mask is not None and _is_padding(mask, images):
        return _purified_within(purify, convention, images, mask)
    plain = convention.to_unit(images)
    return convention.from_unit(purify_any(purify, plain), images)


def _purified_within(purify: Purify, convention: Convention, images: Tensor, mask: Tensor) -> Tensor:
    """Purifies each image inside its own mask, so that padding has no effect on it."""
    rows = []
    for image, inside in zip(images, mask.bool(), strict=True):
        whole = image.clone()
        if bool(inside.any()):
            across = (inside.any(axis).nonzero() for axis in (1, 0))
            box = (..., *(slice(int(line[0]), int(line[-1]) + 1) for line in across))
            whole[box] = _purified(purify, convention, image[box])
        rows.append(whole)
    return torch.stack(rows)


def _positional_mask(model: Any, args: tuple[Any, ...]) -> Any:
    """The argument that the model calls `pixel_mask`, if it is among the positional ones."""
    # A signature is read for calls with something of that form only.
    if not any(isinstance(value, Tensor) and value.ndim == 3 for value in args[1:]):
        return None
    place = _place(_MASK, args, {}, model)
    return args[place] if isinstance(place, int) else None


def _names(model: Any) -> list[str]:
    """The names of the arguments that a model takes; none if they cannot be known."""
    try:
        return list(inspect.signature(model.forward if isinstance(model, nn.Module) else model).parameters)
    except (TypeError, ValueError):
        return []


def _is_padding(mask: Tensor, images: Tensor) -> bool:
    """Whether a mask marks padding of the images. A graph without control flow purifies the padding too."""
    if mask.shape != images.shape[:1] + images.shape[-2:] or mask.is_meta or is_batched(mask):
        return False
    if leaves_a_graph():
        return False
    return not bool(mask.all())


def purify_any(purify: Purify, images: Tensor) -> Tensor:
    """Purifies images in [0, 1] with any leading dimensions (..., 3, H, W); one channel is purified as grey."""
    if images.shape[-3] == 1:
        return purify_any(purify, images.expand(*images.shape[:-3], 3, -1, -1)).mean(-3, keepdim=True)
    if images.ndim <= 4:
        return purify(images)
    return purify(images.flatten(0, -4)).unflatten(0, images.shape[:-3])


def _check_not_patches(place: Place, images: Any, kwargs: dict[str, Any]) -> None:
    # A graph that is being recorded is for batches of every size.
    if is_tracing() or not isinstance(images, Tensor):
        return
    # Frameworks that call an argument pixel_values pass batches.
    if images.ndim == 3 and (place == "pixel_values" or "spatial_shapes" in kwargs):
        raise InputError(
            f"expected images (N, 3, H, W), got {tuple(images.shape)}; if this is one image, give images[None]; if "
            f"these are patches, {BEFORE_PATCHES}"
        )
    height, width = images.shape[-2:] if images.ndim == 4 else (0, 0)
    if height == width and height in _PATCH_SIDES and len(images) >= _MOST_IMAGES:
        raise InputError(
            f"expected whole images, got {len(images)} of {height} x {width} pixels, which look like the patches of "
            f"one picture; {BEFORE_PATCHES}; if they are whole images, name their argument: images=0"
        )


def _warn_of_second(first: Place, values: dict[Place, Any]) -> None:
    if is_tracing():
        return
    seconds = [place for place, value in values.items() if place != first and is_second(place, value, values[first])]
    if seconds:
        warn_once(
            f"argument {seconds[0]!r} of the call looks like images, as argument {first!r} does, and is not purified; "
            f"pass images=({first!r}, {seconds[0]!r}) to purify both, or images={first!r} to leave it. Shown once.",
            stacklevel=4,
        )
