"""The hook of an attached purifier: what it does, and where in a model it is."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from purifier._call import Selection
from purifier._convention import Convention
from purifier._errors import WrapError, warn_once
from purifier._forms import BEFORE_PATCHES
from purifier._listening import Listeners
from purifier._purified_model import PurifiedModel, wrappers
from purifier._tracing import is_tracing
from purifier.methods import innermost

# They call parts of their image encoder instead of the encoder.
_PIECEWISE = ("bridgetower", "granite_docling")

# The modules of this process that a hook was registered at, by their identity. Threads may add to it.
entrances: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
# The hooks that do nothing in this thread.
off: ContextVar[frozenset[int]] = ContextVar("off", default=frozenset())


class Hook:
    """The forward pre-hook of an attached purifier. It travels with the model into copies and replicas."""

    def __init__(self, purifier: Any, convention: Convention, images: Selection) -> None:
        self.purifier = purifier
        self.convention = convention
        self.images = images
        self.listeners = Listeners()
        # A compiled model keeps the copy that it was compiled with.
        self._copies: dict[torch.device, _Copy] = {}

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not is_tracing():
            # Copies of an attached model are known from their first call.
            entrances[id(model)] = model
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
        kept = self._copies.get(images.device)
        if kept is None or not (is_tracing() or kept.is_of(self.purifier)):
            kept = self._copies[images.device] = _Copy(self.purifier, images.device)
        return kept.purifier

    def __deepcopy__(self, memo: dict[int, Any]) -> Hook:
        copied = type(self)(copy.deepcopy(self.purifier, memo), self.convention, self.images)
        copied.listeners = copy.deepcopy(self.listeners, memo)
        return copied


class _Copy:
    """A copy of a purifier on another device, and what the purifier was like then."""

    def __init__(self, purifier: Any, device: torch.device) -> None:
        self._tensors = (*purifier.parameters(), *purifier.buffers())
        self._state = self._state_of(purifier)
        # A later call may need a gradient.
        with torch.inference_mode(False):
            self.purifier = copy.deepcopy(purifier).to(device)

    def is_of(self, purifier: Any) -> bool:
        """Whether the purifier is still the same: its options, and its tensors in the same version."""
        return self._state == self._state_of(purifier)

    def _state_of(self, purifier: Any) -> Any:
        options = [part.options for part in innermost(purifier.method)]
        versions = [(tensor.dtype, 0 if tensor.is_inference() else tensor._version) for tensor in self._tensors]
        # Tensors that take the place of others do so all at once.
        return options, versions, id(next(purifier.parameters(), None))


def image_entrance(model: Any) -> Any:
    """Returns the module through which all of a model's images come in.

    That is the model itself, or the image encoder of a transformers model that has one: `generate` and
    `get_image_features` call the encoder directly. For a PEFT adapter around such a model it is that encoder too,
    because the adapter's `generate` calls the model's.
    """
    if hasattr(type(model), "get_base_model"):
        base = model.get_base_model()
        inside = image_entrance(base)
        return model if inside is base else inside
    # Looked up on the class, because adapters pass on attributes of a model that they do not call.
    find = getattr(type(model), "get_encoder", None)
    if find is None or "modality" not in inspect.signature(find).parameters or model.config.model_type in _PIECEWISE:
        return model
    encoder = model.get_encoder(modality="image")
    generates = model.can_generate() and model.main_input_name == "pixel_values"
    if encoder is model and generates and model.config.is_encoder_decoder:
        return model.get_encoder()
    return encoder


def check_entrance(model: nn.Module, entrance: nn.Module) -> None:
    """Checks that all images come in through one module, and warns if other calls may skip it.

    Raises:
        WrapError: If the model has several image encoders, or takes patches.
    """
    if hasattr(type(model), "get_base_model"):
        model = model.get_base_model()  # type: ignore[operator]
    if "patch" in getattr(type(model), "main_input_name", ""):
        raise WrapError(
            f"expected a model of whole images, got {type(model).__name__}, which takes patches; {BEFORE_PATCHES}"
        )
    if entrance is model:
        if hasattr(type(model), "get_image_features"):
            warn_once(
                f"the calls of {type(model).__name__} are purified, but its get_image_features() may not be; attach to "
                "its image encoder to purify that too. Shown once.",
                stacklevel=3,
            )
        return
    others = [
        name
        for name, part in model.named_modules()
        if getattr(type(part), "main_input_name", None) == "pixel_values"
        and hasattr(type(part), "get_encoder")
        and not _holds(part, entrance)
        and not _holds(entrance, part)
        # An autoencoder that draws pictures.
        and not hasattr(type(part), "decode")
    ]
    if others:
        raise WrapError(
            f"expected a {type(model).__name__} with one image encoder, got {others[0]!r} beside "
            f"{type(entrance).__name__}; attach to each encoder, or wrap the model with images=(...)"
        )


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


def check_around(model: nn.Module) -> None:
    """Checks that a model is not a part of one with a purifier, so that images are not purified twice.

    Raises:
        WrapError: If it is a part of a model with a purifier attached. A wrapped model gives a warning instead, because
            it may not be called any more.
    """
    for entrance in _alive(entrances):
        hooks = [hook for hook in entrance._forward_pre_hooks.values() if isinstance(hook, Hook)]
        if hooks and _holds(entrance, model):
            raise WrapError(
                f"expected a {type(model).__name__} outside of models with a purifier, got a part of a "
                f"{type(entrance).__name__} that has {hooks[0].purifier.name!r} attached; remove that first: "
                "handle.remove()"
            )
    if any(_holds(wrapped.model, model) for wrapped in _alive(wrappers)):
        warn_once(
            f"the {type(model).__name__} is also in a wrapped model, whose images are purified twice from now on; call "
            "the model itself instead of the wrapped one. Shown once.",
            stacklevel=4,
        )


def _alive(known: WeakValueDictionary[int, Any]) -> list[Any]:
    return [found for found in (reference() for reference in known.valuerefs()) if found is not None]


def _holds(outer: Any, model: nn.Module) -> bool:
    return isinstance(outer, nn.Module) and any(part is model for part in outer.modules())
