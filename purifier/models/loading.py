"""Models by name: ours, torchvision's, timm's, or what a function of the user's returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import OptionError, PurifierError, UnknownNameError, WeightsError, nearest
from purifier._identity import model_identity, source_sha256
from purifier._pickled import load_pickle, plain_tensors
from purifier.models.named import import_named
from purifier.models.normalised import Normalised

_FORMS = "reference:demo, torchvision:NAME, timm:NAME (each with @FILE for local weights), or module:function"
# A model, and the attributes of `LoadedModel` about its images.
_Loaded = tuple[nn.Module, dict[str, Any]]
# Side of the images, in pixels, that a reference model was trained on.
_REFERENCE_SIZES = {"demo": 128, "cifar10-resnet20": 32}


@dataclass(frozen=True)
class LoadedModel:
    """A model that takes images in [0, 1], and facts about it.

    Attributes:
        name: The name that it was loaded by.
        call: The model itself: a module in eval mode, or any callable of images.
        classes: Names of its classes by number; None if unknown.
        identity: Kind and hash of the model, for result files.
        size: Side of the images that it was trained on, in pixels; None if unknown.
        crop: Share of an image's shorter side that its central square takes.
    """

    name: str
    call: Callable[..., Any]
    classes: tuple[str, ...] | None
    identity: dict[str, Any]
    size: int | None = None
    crop: float = 1.0


def load_model(spec: str, *, device: str | torch.device = "cpu") -> LoadedModel:
    """Loads a model by name.

    Args:
        spec: "reference:demo"; "torchvision:resnet50" or "timm:resnet50", with the published weights, or those of a
            local file as "torchvision:resnet50@weights.safetensors" (.pt and .pth files are read as plain weights,
            never as code); or "module:function" or "file.py:function" of a function without arguments that returns a
            model of images in [0, 1], in eval mode. "torchvision:" may be left out.
        device: Device of the model.

    Raises:
        UnknownNameError: If there is no model of that name.
        WeightsError: If weights are missing or do not fit.
        OptionError: If the name has another form, the function cannot be found, or it returns no model.
    """
    if not isinstance(spec, str):
        raise OptionError(f"expected a model by name, {_FORMS}, got {type(spec).__name__}")
    kind, name, weights = _take_apart(spec)
    extra: dict[str, Any] = {}
    images: dict[str, Any] = {}
    model: Any
    if kind == "entry":
        function = import_named(spec, "model", _FORMS)
        model, extra = function(), {"entry_sha256": source_sha256(function)}
        if not callable(model):
            raise OptionError(f"expected {spec} to return a model that can be called, got {type(model).__name__}")
    elif weights is not None and kind == "reference":
        raise OptionError(f"expected a reference model without @FILE, got {spec!r}; its weights ship with the package")
    else:
        model, images = _BY_KIND[kind](name, weights)
    if isinstance(model, nn.Module):
        model = model.to(device)
    classes = getattr(model, "classes", None) or getattr(getattr(model, "net", None), "classes", None)
    known = tuple(map(str, classes)) if isinstance(classes, Sequence) and not isinstance(classes, str) else None
    identity = {"name": spec, **model_identity(model), **extra}
    return LoadedModel(spec, model, known, identity, **images)


def load_classifier(name: str) -> LoadedModel:
    """Loads a pretrained classifier, with the size of its images and the names of its classes.

    Args:
        name: "demo" for the bundled classifier, or a name of torchvision or timm.

    Raises:
        UnknownNameError: If there is no classifier of that name.
        WeightsError: If its weights are not cached and cannot be downloaded.
    """
    import torchvision

    names = ["demo", *torchvision.models.list_models(module=torchvision.models)]
    if name in names:
        return load_model(name)
    if find_spec("timm") is None:
        raise UnknownNameError(
            f"expected 'demo' or a classifier of torchvision, got {name!r}{nearest(name, names)}; for timm's models "
            "install it with pip install timm"
        )
    import timm

    if not timm.is_model(name):
        close = nearest(name, [*names, *timm.list_models()])
        raise UnknownNameError(f"expected 'demo' or a classifier of torchvision or timm, got {name!r}{close}")
    loaded: Any = load_model(f"timm:{name}")
    return replace(loaded, name=name, classes=_timm_classes(loaded.call.net))


def _take_apart(spec: str) -> tuple[str, str, Path | None]:
    """Splits a model's name into (kind, name, weights file)."""
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


def _of_reference(name: str, weights: Path | None) -> _Loaded:
    from purifier.models.reference import reference_model

    return reference_model(name), {"size": _REFERENCE_SIZES[name]}


def _of_torchvision(name: str, weights: Path | None) -> _Loaded:
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
        return net.eval(), {}
    model = Normalised(net, recipe.mean, recipe.std).eval()
    if state is None:
        model.classes = tuple(enum.meta["categories"])  # type: ignore[assignment]
    if not hasattr(recipe, "crop_size"):  # segmenters
        return model, {}
    return model, {"size": recipe.crop_size[0], "crop": recipe.crop_size[0] / recipe.resize_size[0]}


def _backbone(name: str, state: dict[str, Tensor] | None) -> dict[str, Any]:
    """Options that stop detectors and segmenters from downloading a backbone that the file's weights replace."""
    import torchvision

    if state is None or name in torchvision.models.list_models(module=torchvision.models):
        return {}
    return {"weights_backbone": None}


def _classes_of(state: dict[str, Tensor] | None, build: Callable[[], nn.Module]) -> int | None:
    """Returns the number of classes of a file's weights if the network has another number of classes, else None."""
    if state is None:
        return None
    with torch.device("meta"):
        own = build().state_dict()
    # A head for other classes differs in the number of rows only.
    heads = {
        len(state[n])
        for n, value in own.items()
        if n in state and state[n].shape[1:] == value.shape[1:] and state[n].shape[:1] != value.shape[:1]
    }
    return heads.pop() if len(heads) == 1 else None


def _of_timm(name: str, weights: Path | None) -> _Loaded:
    if find_spec("timm") is None:
        raise OptionError(f"expected the package timm for {name!r}, got none; install it with pip install timm")
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
    config = net.pretrained_cfg
    model = Normalised(net, config["mean"], config["std"]).eval()
    return model, {"size": config["input_size"][-1], "crop": config.get("crop_pct") or 1.0}


def _timm_classes(net: Any) -> tuple[str, ...]:
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(net)
    if subset is None:
        return tuple(f"class {number}" for number in range(net.num_classes))
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(number) for number in range(net.num_classes))


_BY_KIND: dict[str, Callable[[str, Path | None], _Loaded]] = {
    "reference": _of_reference,
    "timm": _of_timm,
    "torchvision": _of_torchvision,
}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a state dict from a .safetensors file, or a .pt or .pth file as plain weights that cannot run code.

    Raises:
        UnsafeFileError: If reading the file would run code.
        WeightsError: If the file is missing, damaged or holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"expected a weights file, got {path}, which does not exist")
    state: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = load_pickle(path)
    except PurifierError:
        raise
    except Exception as error:  # damaged files raise all kinds of errors
        raise WeightsError(f"expected weights in {path}, got a file that cannot be read: {_line(error)}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"expected a state dict of tensors in {path}, got {type(state).__name__}")
    # DataParallel and DDP add this prefix.
    return {name.removeprefix("module."): value for name, value in plain_tensors(state, path).items()}


def _fill(net: nn.Module, state: dict[str, Tensor], path: Path | None) -> None:
    try:
        net.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"expected weights of {type(net).__name__} in {path}, got others: {_line(error)}") from None


def _no_weights(name: str, library: str, cache: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"expected the weights of {library}'s {name!r} in the cache or from the network, got: {_line(error)}; go "
        f"online once, copy {cache} from a machine that has them, or use local weights ({library}:{name}@FILE in "
        "purifier evaluate, attack and tune)"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
