"""Layers of the target model by name or by kind, and what goes through them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from purifier._errors import InputError, OptionError, nearest


def last_layer(model: nn.Module, kind: type[nn.Module], layer: str = "") -> nn.Module:
    """Returns the layer of that name, or the last one of a kind.

    Raises:
        OptionError: Where there is none.
    """
    named = dict(model.named_modules())
    if layer:
        if layer not in named:
            raise OptionError(
                f"expected layer as the name of a module of {type(model).__name__}, got {layer!r}"
                f"{nearest(layer, named)}; named_modules() lists them"
            )
        return named[layer]
    found = [module for module in named.values() if isinstance(module, kind)]
    if not found:
        raise OptionError(
            f"expected a model with an nn.{kind.__name__}, got {type(model).__name__} without one; name the module "
            "whose input gives the features: layer=..."
        )
    return found[-1]


def call_and_catch(model: nn.Module, layer: nn.Module, images: Tensor) -> tuple[Any, Tensor]:
    """Runs the model; returns its output and the first input of a layer inside it.

    Raises:
        InputError: Where the layer takes no part in the call, or takes no tensor.
    """
    caught: list[Any] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: caught.extend(inputs[:1]))
    try:
        outputs = model(images)
    finally:
        hook.remove()
    if not caught or not isinstance(caught[0], Tensor):
        raise InputError(
            f"expected {type(layer).__name__} to be called with a tensor in a call of {type(model).__name__}, it was "
            "not; name another module with layer=..."
        )
    return outputs, caught[0]
