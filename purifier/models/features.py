"""Fixed networks that turn images into features, for attacks and losses that compare features.

VGG16: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
https://arxiv.org/abs/1409.1556.
"""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn

from purifier._errors import InputError, WeightsError
from purifier.models.layers import catching, check_eval, find_layer
from purifier.models.named import make_module
from purifier.models.normalised import Normalised

# Normalisation of torchvision's ImageNet networks.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The layers up to relu3_3.
_VGG_LAYERS = 16
_FOR_ATTACKS = 'pass features=..., such as features_at(your_network, "layer3")'
_FOR_TRAININGS = "name a network of your own as module:function: --features for nrp, --extractors for alloy"


class FeaturesAt(nn.Module):
    """The output of one layer inside a network; see `features_at`."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network = network
        self.layer = layer
        self.training = network.training

    @property
    def __name__(self) -> str:
        return f"{type(self.network).__name__}.{self.layer}"

    def forward(self, images: Tensor) -> Tensor:
        """Calls the network and returns the layer's output; if a layer is used several times, its first output."""
        with catching({self.layer: self.network.get_submodule(self.layer)}) as caught:
            self.network(images)
        if self.layer not in caught:
            raise InputError(
                f"expected layer {self.layer!r} to be used in a call of {type(self.network).__name__}, it was not; "
                "choose another layer"
            )
        found: Tensor = caught[self.layer]
        return found


def features_at(network: nn.Module, layer: str) -> FeaturesAt:
    """Returns a function from images to the features at a layer of a network; gradients flow.

    Args:
        network: A network of images in [0, 1], in eval mode. It is not changed.
        layer: Name of a module inside, such as "layer3.1", as `named_modules()` gives it.

    Raises:
        OptionError: If the network has no such layer.
    """
    find_layer(network, layer)
    return FeaturesAt(network, layer)


@functools.lru_cache(maxsize=1)
def vgg16_features(device: torch.device, dtype: torch.dtype = torch.float32, instead: str = _FOR_ATTACKS) -> nn.Module:
    """Returns torchvision's VGG16 up to relu3_3, fixed, with its published ImageNet weights.

    It maps images (N, 3, H, W) in [0, 1] to features (N, 256, H / 4, W / 4); gradients flow to the images.

    Args:
        device: Where the network goes.
        dtype: What it computes in.
        instead: What else the user can do without the weights, for the message.

    Raises:
        WeightsError: If the weights are not in torch's hub cache and cannot be downloaded.
    """
    layers = vgg16_layers(_VGG_LAYERS, instead)
    return Normalised(layers, IMAGENET_MEAN, IMAGENET_STD).to(device, dtype).eval()


def vgg16_layers(count: int, instead: str) -> nn.Sequential:
    """Returns the first layers of torchvision's VGG16 with its ImageNet weights, fixed, in eval mode, on the CPU.

    Args:
        count: Number of layers, up to 31.
        instead: What else the user can do without the weights, for the message.

    Raises:
        WeightsError: If the weights are not in torch's hub cache and cannot be downloaded.
    """
    from torchvision.models import VGG16_Weights, vgg16

    with torch.device("meta"):
        network: nn.Sequential = vgg16().features[:count]
    url = VGG16_Weights.IMAGENET1K_V1.url
    try:
        state = torch.hub.load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"expected the VGG16 weights of torchvision, got {error}; download {url} to "
            f"{torch.hub.get_dir()}/checkpoints, or {instead}"
        ) from None
    kept = {name: state[f"features.{name}"] for name in network.state_dict()}
    network.load_state_dict(kept, assign=True)
    check_eval(network.eval())
    return network.requires_grad_(False)


def load_features(name: str) -> nn.Module:
    """Returns a fixed map of images (N, 3, H, W) in [0, 1] to features (N, ...), on the CPU.

    Args:
        name: "vgg16" for `vgg16_features`; or "module:function", a function without arguments that returns a module.

    Raises:
        OptionError: If the name has another form, or there is no such function.
        WeightsError: If the weights of VGG16 are not in torch's hub cache and cannot be downloaded.
    """
    if name == "vgg16":
        # A copy, which can be moved: the cached network stays on the CPU.
        return copy.deepcopy(vgg16_features(torch.device("cpu"), instead=_FOR_TRAININGS))
    return make_module(name, "features", "'vgg16'").eval().requires_grad_(False)
