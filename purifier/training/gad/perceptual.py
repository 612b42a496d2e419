"""The fixed network of the perceptual loss (eq. 2), which maps images to feature maps of several layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from purifier._errors import InputError, OptionError
from purifier.models.features import IMAGENET_MEAN, IMAGENET_STD, vgg16_layers
from purifier.models.layers import catching
from purifier.models.named import make_module
from purifier.models.normalised import Normalised

# relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.
_LAYERS = (3, 8, 15, 22, 29)


class VGGMaps(nn.Module):
    """VGG16's feature maps at the five layers of eq. 2.

    Args:
        layers: The network up to relu5_3, in order.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps normalised images (N, 3, H, W), H and W at least 16, to five feature maps; gradients flow."""
        if min(images.shape[-2:]) < 16:
            raise InputError(
                f"expected images of at least 16 x 16 pixels for the perceptual loss, got {tuple(images.shape[-2:])}; "
                "train on larger ones, or set perceptual_weight=0"
            )
        with catching({str(number): self.layers[number] for number in _LAYERS}) as caught:
            self.layers(images)
        return list(caught.values())


class _Named(nn.Module):
    """A user's network with a check of its output."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network = network
        self.name = name

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: Any = self.network(images)
        if not isinstance(maps, list | tuple) or not maps or not all(isinstance(one, Tensor) for one in maps):
            raise OptionError(
                f"expected the module that {self.name} returns to give a list of feature maps, got "
                f"{type(maps).__name__}; wrap its output: return [features]"
            )
        return list(maps)


def load_perceptual(name: str) -> nn.Module:
    """Returns a fixed map of images (N, 3, H, W) in [0, 1] to a list of feature maps, on the CPU.

    Args:
        name: "vgg16" for torchvision's VGG16, whose weights are read from torch's hub cache or downloaded once; or
            "module:function", a function without arguments that returns a module.

    Raises:
        OptionError: If the name has another form, or there is no such function.
        WeightsError: If the weights of VGG16 cannot be loaded.
    """
    if name == "vgg16":
        instead = "set perceptual_weight=0, or perceptual='module:function' for a network of your own"
        return Normalised(VGGMaps(vgg16_layers(_LAYERS[-1] + 1, instead)), IMAGENET_MEAN, IMAGENET_STD).eval()
    made = make_module(name, "perceptual", "'vgg16'")
    return _Named(made, name).eval().requires_grad_(False)
