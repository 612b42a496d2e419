"""Which model `purifier demo` attacks: our reference classifier, or one of torchvision or timm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import UnknownNameError, WeightsError, nearest
from purifier.data.images import central_square
from purifier.models.normalised import Normalised


@dataclass(frozen=True)
class Target:
    """A classifier of images in [0, 1], and how images are prepared for it.

    Attributes:
        name: What it is called.
        model: Maps (N, 3, size, size) in [0, 1] to logits; in eval mode.
        classes: Names in the order of the logits.
        size: Side of its images in pixels.
        crop: Share of an image's shorter side that its central square takes.
    """

    name: str
    model: nn.Module
    classes: Sequence[str]
    size: int
    crop: float = 1.0

    def prepare(self, rgb: Tensor) -> Tensor:
        """Cuts the central square out of an image (3, H, W) and resizes it to (3, size, size), in [0, 1]."""
        height, width = rgb.shape[-2:]
        rows, columns = central_square(height, width, self.crop)
        return F.interpolate(rgb[None, :, rows, columns], (self.size, self.size), mode="bilinear", antialias=True)[
            0
        ].clamp(0, 1)


def load_target(name: str) -> Target:
    """Loads a classifier by name: "demo" (bundled), or one of torchvision or timm with its pretrained weights.

    Raises:
        UnknownNameError: Nothing goes by that name.
        WeightsError: Its weights are not here and cannot be downloaded.
    """
    if name == "demo":
        import purifier

        model: Any = purifier.reference_model("demo")
        return Target("demo", model, model.classes, size=128)
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if name in names:
        return _of_torchvision(name)
    if find_spec("timm") is None:
        raise UnknownNameError(
            f"expected 'demo' or a classifier of torchvision, got {name!r}{nearest(name, names)}; for timm's models "
            "install it with pip install timm"
        )
    import timm

    if not timm.is_model(name):
        close = nearest(name, ["demo", *names, *timm.list_models()])
        raise UnknownNameError(f"expected 'demo' or a classifier of torchvision or timm, got {name!r}{close}")
    return _of_timm(name)


def _of_torchvision(name: str) -> Target:
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        model = torchvision.models.get_model(name, weights=weights)
    except Exception as error:  # no network, a proxy's page, a full disk
        raise _no_weights(name, "torchvision", "~/.cache/torch/hub/checkpoints", error) from error
    recipe = weights.transforms()
    size = recipe.crop_size[0]
    normalised = Normalised(model, recipe.mean, recipe.std).eval()
    return Target(name, normalised, weights.meta["categories"], size=size, crop=size / recipe.resize_size[0])


def _of_timm(name: str) -> Target:
    import timm

    try:
        model: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # no network, no pretrained weights under that name, a full disk
        raise _no_weights(name, "timm", "~/.cache/huggingface", error) from error
    config = model.pretrained_cfg
    normalised = Normalised(model, config["mean"], config["std"]).eval()
    size, crop = config["input_size"][-1], config.get("crop_pct") or 1.0
    return Target(name, normalised, _timm_classes(model), size=size, crop=crop)


def _timm_classes(model: Any) -> list[str]:
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if subset is None:
        return [f"class {number}" for number in range(model.num_classes)]
    info = ImageNetInfo(subset)
    return [info.index_to_description(number) for number in range(model.num_classes)]


def _no_weights(name: str, library: str, cache: str, error: Exception) -> WeightsError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return WeightsError(
        f"expected the weights of {library}'s {name!r} in the cache or from the network, got: {reason[:200]}; go "
        f"online once, copy {cache} from a machine that has them, or leave --model out for the bundled classifier"
    )
