"""Layers inside a model: finding one by name or by kind, and recording its inputs or outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from purifier._errors import InputError, OptionError, nearest, shown


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Returns the module of that name inside a model.

    Raises:
        OptionError: If the model has no such module.
    """
    if not isinstance(model, nn.Module) or not isinstance(name, str):
        raise OptionError(f"expected an nn.Module and the name of a layer, got {shown(model)} and {shown(name)}")
    named = dict(model.named_modules())
    if name not in named:
        names = [known for known in named if known]
        raise OptionError(
            f"expected the name of a layer of {type(model).__name__}, got {name!r}{nearest(name, names)}; "
            "named_modules() lists them"
        )
    return named[name]


def last_layer(model: nn.Module, kind: type[nn.Module], name: str = "") -> nn.Module:
    """Returns the layer of that name or, without a name, the model's last layer of a kind.

    Raises:
        OptionError: If there is none.
    """
    if name:
        return find_layer(model, name)
    found = [module for module in model.modules() if isinstance(module, kind)]
    if not found:
        raise OptionError(
            f"expected a model with an nn.{kind.__name__}, got {type(model).__name__} without one; name the module "
            "whose input gives the features: layer=..."
        )
    return found[-1]


@contextmanager
def catching(modules: Mapping[str, nn.Module], what: Literal["input", "output"] = "output") -> Iterator[dict[str, Any]]:
    """Records inputs or outputs of modules while a model is called in the `with` block.

    Gradients flow through the records. Outputs are copied, because the next layer may work in place.

    Args:
        modules: The modules to watch, by any names.
        what: Whether to record each module's output or its first positional input.

    Yields:
        A dictionary that the calls fill: the input or output of each module's first call, by the module's name.
    """
    caught: dict[str, Any] = {}

    def watch_input(name: str) -> Any:
        return modules[name].register_forward_pre_hook(lambda _, inputs: _keep(caught, name, *inputs[:1]))

    def watch_output(name: str) -> Any:
        return modules[name].register_forward_hook(lambda _, __, output: _keep(caught, name, _copied(output)))

    hooks = [(watch_input if what == "input" else watch_output)(name) for name in modules]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def call_and_catch(model: nn.Module, layer: nn.Module, images: Any) -> tuple[Any, Tensor]:
    """Calls the model and returns its output and the first input of a layer inside it; gradients flow.

    Raises:
        InputError: If the layer is not called with a tensor.
    """
    with catching({"layer": layer}, "input") as caught:
        outputs = model(images)
    found = caught.get("layer")
    if not isinstance(found, Tensor):
        raise InputError(
            f"expected {type(layer).__name__} to be called with a tensor in a call of {type(model).__name__}, it was "
            "not; name another module with layer=..."
        )
    return outputs, found


def check_eval(model: Any) -> None:
    """Checks that no batch norm or dropout layer of a module is in train mode.

    Raises:
        InputError: If one is.
    """
    if not isinstance(model, nn.Module):
        return
    for name, module in model.named_modules():
        if module.training and isinstance(module, _BatchNorm | _DropoutNd):
            raise InputError(
                f"expected a model in eval mode, got {name or type(module).__name__} ({type(module).__name__}) in "
                "train mode, where outputs are random or depend on the batch; call model.eval()"
            )


@contextmanager
def in_eval(model: Any) -> Iterator[None]:
    """Puts a module and all parts of it into eval mode for the `with` block, and then back into the modes they had."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    training = [part for part in parts if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _keep(caught: dict[str, Any], name: str, *values: Any) -> None:
    for value in values:
        caught.setdefault(name, value)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
