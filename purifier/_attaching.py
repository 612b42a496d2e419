"""attach(): a purifier in front of a model in place, for frameworks that hold the model themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from purifier._call import check_selection
from purifier._convention import Channels, Convention
from purifier._errors import WrapError, warn_once
from purifier._hooking import (
    Hook,
    check_around,
    check_entrance,
    check_without,
    entrances,
    hooks_in,
    image_entrance,
    inner_model,
    off,
)
from purifier._listening import OnScore
from purifier._purified_model import PurifiedModel
from purifier._purifier import Purifier
from purifier._wrapping import DEFAULT, PROMISE, convention_of, load_for


class Handle:
    """A purifier that is attached to a model; also a context manager that removes it at its end.

    It is a forward pre-hook. A call that does not go through `model(...)`, such as `model.forward_features(...)`, is
    not purified. In transformers' models with an image encoder the hook is at the encoder, which `generate` and
    `get_image_features` call directly; so it is for a PEFT adapter around such a model. Models whose encoder cannot be
    told, such as FLAVA, give a warning, and those with several encoders are refused. A model that calls itself
    purifies at each of these calls. A tracer of torch.fx, such as torchvision's `create_feature_extractor`, records the
    model without the hook, and `torch.jit.script` refuses it; `purifier.wrap` what they return.

    Attributes:
        model: The model.
        purifier: The `Purifier` in front of it.
    """

    def __init__(self, model: nn.Module, hook: Hook, remove: Callable[[], None]) -> None:
        self.model = model
        self._hook = hook
        self._remove = remove

    @property
    def purifier(self) -> Purifier:
        """The purifier in front of the model."""
        return self._hook.purifier

    @property
    def normalisation(self) -> tuple[list[float], list[float]] | None:
        """The pair (mean, std) of the incoming images, or None for images in [0, 1]."""
        return self._hook.convention.normalisation

    @property
    def channels(self) -> Channels:
        """The order of the channels of the incoming images, "RGB" or "BGR"."""
        return self._hook.convention.channels

    def on_score(self, callback: OnScore) -> RemovableHandle:
        """Calls a function with the attack scores of the images in every call; see `PurifiedModel.on_score`.

        Raises:
            OptionError: If it cannot be called, or the purifier does not have exactly one gate.
        """
        return self._hook.listeners.add(callback, self.purifier)

    def remove(self) -> None:
        """Takes the purifier away; the model is what it was. Removing twice does nothing.

        Graphs that torch.compile has made in this process are discarded, as in `attach`.
        """
        if any(hook is self._hook for _, hook, _ in hooks_in(self.model)):
            self._remove()
            _discard_graphs()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"Handle(model={type(self.model).__name__}, purifier={self.purifier.name!r})"


def attach(
    model: nn.Module,
    purifier: str | os.PathLike[str] | Purifier = DEFAULT,
    *,
    processor: Any = None,
    mean: Any = None,
    std: Any = None,
    images: Any = None,
    channels: str | None = None,
    out_of_range: str = "auto",
    **from_pretrained_arguments: Any,
) -> Handle:
    """Puts a purifier in front of a model in place: every call of the model purifies its images first.

    The model stays the same object, so that a pipeline or Trainer needs no change. `Handle` says what is purified.
    Graphs that torch.compile has made in this process are discarded here and at the removal, because a graph of a model
    does not notice a new hook at one of its parts. The next call of each compiled model compiles it again.

    Args:
        model: A module. `wrap` takes plain functions.
        purifier: As in `wrap`. It follows the images to their device.
        processor: As in `wrap`.
        mean: As in `wrap`.
        std: As in `wrap`.
        images: As in `wrap`.
        channels: As in `wrap`.
        out_of_range: As in `wrap`.
        **from_pretrained_arguments: As in `wrap`.

    Returns:
        The handle, whose `remove()` takes the purifier away, as does the end of a `with` statement with it.

    Raises:
        WrapError: If the model is not a module, is compiled by TorchScript, takes patches or has several image
            encoders, or if it, a part of it, or a model that it is a part of has a purifier already.
        OptionError: If options contradict each other or are out of their range.

    Example:
        >>> import torch, purifier
        >>> with purifier.attach(torch.nn.Flatten(), "gs") as handle:
        ...     features = handle.model(torch.rand(4, 3, 32, 32))
    """
    _check(model)
    entrance = image_entrance(model)
    check_entrance(model, entrance)
    convention = Convention.of(**convention_of(model, processor, mean, std, channels), out_of_range=out_of_range)
    hook = Hook(load_for(model, purifier, from_pretrained_arguments), convention, check_selection(images))
    registered = entrance.register_forward_pre_hook(hook, with_kwargs=True)
    entrances[id(entrance)] = entrance
    _discard_graphs()
    warn_once(PROMISE, stacklevel=2)
    return Handle(model, hook, registered.remove)


def _check(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise WrapError(f"expected a module to attach to, got {type(model).__name__}; purifier.wrap takes functions")
    if isinstance(model, torch.jit.ScriptModule):
        raise WrapError("expected a module of Python to attach to, got one of TorchScript; use purifier.wrap")
    check_without(model)
    check_around(model)


def _discard_graphs() -> None:
    """Makes compiled models look at their hooks again, if this process has compiled any."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def attached(model: Any) -> Handle | None:
    """Returns the handle of the purifier that is attached to a model, or None.

    Compiled models and those inside DataParallel or DDP are looked into.
    """
    for module, hook, kept in hooks_in(model):
        return Handle(module, hook, partial(_forget, *kept))
    return None


def _forget(places: tuple[dict[int, Any], ...], number: int) -> None:
    for place in places:
        place.pop(number, None)


class _Detached(nn.Module):
    """A model without the purifier that is attached to it; other calls of the model keep it."""

    def __init__(self, handle: Handle) -> None:
        super().__init__()
        self.model = handle.model
        self._hook = handle._hook
        self.training = handle.model.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        token = off.set(off.get() | {id(self._hook)})
        try:
            return self.model(*args, **kwargs)
        finally:
            off.reset(token)


def as_purified_model(model: Any) -> PurifiedModel | None:
    """Returns a defended model as a `PurifiedModel`: what `wrap` gave, or a view of a model with a purifier attached.

    None for a model without a purifier. The view shares the model and the purifier; its `.model` is the bare model.
    Compiled models and those inside DataParallel or DDP are looked into.
    """
    inner = inner_model(model)
    if isinstance(inner, PurifiedModel):
        return inner
    handle = attached(model)
    if handle is None:
        return None
    return PurifiedModel.of(_Detached(handle), handle.purifier, handle._hook.convention, handle._hook.images)
