"""The hook of an attached purifier: what it does, and where in a model it is."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from purifier._call import Selection
from purifier._convention import Convention
from purifier._errors import WrapError
from purifier._listening import Listeners
from purifier._purified_model import PurifiedModel

# They call parts of their image encoder instead of the encoder.
_PIECEWISE = ("bridgetower", "granite_docling")

# The hooks that do nothing in this thread.
off: ContextVar[frozenset[int]] = ContextVar("off", default=frozenset())


class Hook:
    """The forward pre-hook of an attached purifier. It travels with the model into copies and replicas."""

    def __init__(self, purifier: Any, convention: Convention, images: Selection) -> None:
        self.purifier = purifier
        self.convention = convention
        self.images = images
        self.listeners = Listeners()
        self._copies: dict[torch.device, Any] = {}

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if id(self) in off.get():
            return None
        return self.listeners.purify_call(self, self.convention, self.images, args, kwargs, model=model)

    def purify(self, images: Tensor) -> Tensor:
        """Purifies images on their own device."""
        return self._beside(images).purify(images)

    def purify_and_score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Purifies and scores images on their own device."""
        return self._beside(images).purify_and_score(images)

    def _beside(self, images: Tensor) -> Any:
        """Returns the purifier on the images' device, where the model is: a copy of the purifier follows it there."""
        if images.device == self.purifier.device:
            return self.purifier
        if images.device not in self._copies:
            self._copies[images.device] = copy.deepcopy(self.purifier).to(images.device)
        return self._copies[images.device]

    def __deepcopy__(self, memo: dict[int, Any]) -> Hook:
        copied = type(self)(copy.deepcopy(self.purifier, memo), self.convention, self.images)
        copied.listeners = copy.deepcopy(self.listeners, memo)
        return copied


def image_entrance(model: Any) -> Any:
    """Returns the module through which all of a model's images come in.

    That is the model itself, or the image encoder of a transformers model that has one: `generate` and
    `get_image_features` call the encoder directly.
    """
    # Looked up on the class, because adapters pass on attributes of a model that they do not call.
    find = getattr(type(model), "get_encoder", None)
    if find is None or "modality" not in inspect.signature(find).parameters or model.config.model_type in _PIECEWISE:
        return model
    encoder = model.get_encoder(modality="image")
    generates = model.can_generate() and model.main_input_name == "pixel_values"
    if encoder is model and generates and model.config.is_encoder_decoder:
        return model.get_encoder()
    return encoder


def inner_model(model: Any) -> Any:
    """Returns what is inside a compiled module, DataParallel or DDP; other models as they are."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    return model


def hooks_in(model: Any) -> Iterator[tuple[nn.Module, Hook, tuple[tuple[dict[int, Any], ...], int]]]:
    """Yields the purifier hooks of a model: the module that was attached to, the hook, and where it is kept.

    Compiled models and those inside DataParallel or DDP are looked into.
    """
    outer: Any = None
    while model is not outer and isinstance(model, nn.Module):
        for module in (model, image_entrance(model)):
            places = module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs
            for number, hook in places[0].items():
                if isinstance(hook, Hook):
                    yield model, hook, (places, number)
        outer, model = model, inner_model(model)


def check_without(model: Any) -> None:
    """Checks that neither a model nor a part of it has a purifier.

    Raises:
        WrapError: If it has one.
    """
    for part in model.modules() if isinstance(model, nn.Module) else ():
        if isinstance(part, PurifiedModel):
            raise WrapError(
                f"expected a {type(model).__name__} without a purifier, got one that holds a wrapped model; take the "
                "model itself: wrapped.unwrap(); several purifiers in front of one model are Purifier.chain(...)"
            )
        for _, hook, _ in hooks_in(part):
            raise WrapError(
                f"expected a {type(model).__name__} without a purifier, got one that has {hook.purifier.name!r} "
                "attached; remove that first: handle.remove(); several purifiers in front of one model are "
                "Purifier.chain(...)"
            )
