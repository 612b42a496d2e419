"""The model under evaluation, by name: ours, torchvision's, timm's, or what a function of the user's returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import InputError, OptionError, UnknownNameError, WeightsError, nearest
from purifier._identity import model_identity, source_sha256
from purifier.models.named import import_named
from purifier.models.normalised import Normalised

_FORMS = "reference:demo, torchvision:NAME, timm:NAME (each with @FILE for local weights), or module:function"


@dataclass(frozen=True)
class LoadedModel:
    """A model that takes images in [0, 1], and what is known of it.

    Attributes:
        name: What it was asked for as.
        call: The model itself: a module in eval mode, or any callable of images.
        classes: Names of its classes by number, where they are known.
        identity: What tells it from others, for result files.
    """

    name: str
    call: Callable[..., Any]
    classes: tuple[str, ...] | None
    identity: dict[str, Any]


def load_model(spec: str, *, device: str | torch.device = "cpu") -> LoadedModel:
    """Loads a model by name.

    Args:
        spec: "reference:demo"; "torchvision:resnet50" or "timm:resnet50", with the published weights, or those of a
            local file as "torchvision:resnet50@weights.safetensors" (.pt and .pth files are read as plain weights,
            never as code); or "module:function" or "file.py:function" of a function without arguments that returns a
            model of images in [0, 1], in eval mode. Names of torchvision need no prefix.
        device: Where it goes.

    Raises:
        UnknownNameError: Nothing goes by that name.
        WeightsError: Weights are missing or do not fit.
        InputError: The function cannot be found or gives no model.
    """
    kind, name, weights = _take_apart(spec)
    if kind == "entry":
        model, extra = _of_entry_point(spec)
    elif weights is not None and kind == "reference":
        raise OptionError(f"expected a reference model without @FILE, got {spec!r}; its weights ship with the package")
    else:
        model, extra = _BY_KIND[kind](name, weights), {}
    if isinstance(model, nn.Module):
        model = model.to(device)
    classes = getattr(model, "classes", None) or getattr(getattr(model, "net", None), "classes", None)
    known = tuple(map(str, classes)) if isinstance(classes, Sequence) and not isinstance(classes, str) else None
    return LoadedModel(spec, model, known, {"name": spec, **model_identity(model), **extra})


def _take_apart(spec: str) -> tuple[str, str, Path | None]:
    """Returns (kind, name, weights file)."""
    head, colon, rest = spec.partition(":")
    if colon and head not in _BY_KIND:
        return "entry", spec, None
    kind, name = (head, rest) if colon else ("torchvision", head)
    name, at, file = name.partition("@")
    if not name:
        raise OptionError(f"expected a model as {_FORMS}, got {spec!r}")
    if not colon and name == "demo":
        kind = "reference"
    return kind, name, Path(file) if at else None


def _of_reference(name: str, weights: Path | None) -> nn.Module:
    from purifier.models.reference import reference_model

    return reference_model(name)


def _of_torchvision(name: str, weights: Path | None) -> nn.Module:
    import torchvision

    names = torchvision.models.list_models()
    if name not in names:
        raise UnknownNameError(f"expected a model as {_FORMS}, got {name!r}{nearest(name, names)}")
    enum = torchvision.models.get_model_weights(name).DEFAULT
    recipe = enum.transforms()
    state = None if weights is None else read_weights(weights)
    options = _backbone(name, state)
    classes = _classes_of(state, lambda: torchvision.models.get_model(name, weights=None, **options))
    if classes is not None:
        options["num_classes"] = classes
    try:
        net = torchvision.models.get_model(name, weights=enum if state is None else None, **options)
    except Exception as error:  # no network, a proxy's page, a full disk
        raise _no_weights(name, "torchvision", "~/.cache/torch/hub/checkpoints", error) from error
    if state is not None:
        _fill(net, state, weights)
    # Detectors normalise inside; their recipe has no mean.
    if not hasattr(recipe, "mean"):
        return net.eval()
    model = Normalised(net, recipe.mean, recipe.std).eval()
    if state is None:
        model.classes = tuple(enum.meta["categories"])  # type: ignore[assignment]
    return model


def _backbone(name: str, state: dict[str, Tensor] | None) -> dict[str, Any]:
    """Detectors and segmenters would fetch a backbone that the file's weights replace at once."""
    import torchvision

    if state is None or name in torchvision.models.list_models(module=torchvision.models):
        return {}
    return {"weights_backbone": None}


def _classes_of(state: dict[str, Tensor] | None, build: Callable[[], nn.Module]) -> int | None:
    """Returns the number of classes of a file's weights where it differs from the network's own, else None."""
    if state is None:
        return None
    with torch.device("meta"):
        own = build().state_dict()
    # A head for other classes is as deep and as wide as the own one, with another number of rows.
    heads = {
        len(state[n])
        for n, value in own.items()
        if n in state and state[n].shape[1:] == value.shape[1:] and state[n].shape[:1] != value.shape[:1]
    }
    return heads.pop() if len(heads) == 1 else None


def _of_timm(name: str, weights: Path | None) -> nn.Module:
    if find_spec("timm") is None:
        raise InputError(f"expected the package timm for {name!r}, got none; install it with pip install timm")
    import timm

    if not timm.is_model(name):
        raise UnknownNameError(f"expected a model of timm, got {name!r}{nearest(name, timm.list_models())}")
    state = None if weights is None else read_weights(weights)
    classes = _classes_of(state, lambda: timm.create_model(name))
    try:
        net: Any = timm.create_model(name, pretrained=state is None, num_classes=classes)
    except Exception as error:  # no network, no pretrained weights under that name, a full disk
        raise _no_weights(name, "timm", "~/.cache/huggingface", error) from error
    if state is not None:
        _fill(net, state, weights)
    return Normalised(net, net.pretrained_cfg["mean"], net.pretrained_cfg["std"]).eval()


_BY_KIND: dict[str, Callable[[str, Path | None], nn.Module]] = {
    "reference": _of_reference,
    "timm": _of_timm,
    "torchvision": _of_torchvision,
}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a state dict from a .safetensors file, or a .pt or .pth file as plain weights that cannot run code.

    Raises:
        WeightsError: Where the file is missing, damaged or holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"expected a weights file, got {path}, which is not there")
    state: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise all kinds of errors
        raise WeightsError(f"expected weights in {path}, got a file that cannot be read: {_line(error)}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"expected a state dict of tensors in {path}, got {type(state).__name__}")
    # As DataParallel and DDP name them.
    return {name.removeprefix("module."): value for name, value in state.items()}


def _fill(net: nn.Module, state: dict[str, Tensor], path: Path | None) -> None:
    try:
        net.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"expected weights of {type(net).__name__} in {path}, got others: {_line(error)}") from None


def _of_entry_point(spec: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    function = import_named(spec, "model", _FORMS)
    model = function()
    if not callable(model):
        raise InputError(f"expected {spec} to return a model that can be called, got {type(model).__name__}")
    return model, {"entry_sha256": source_sha256(function)}


def _no_weights(name: str, library: str, cache: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"expected the weights of {library}'s {name!r} in the cache or from the network, got: {_line(error)}; go "
        f"online once, copy {cache} from a machine that has them, or give a local file as {library}:{name}@FILE"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
