"""The kit's networks as the trainings name them: functions without arguments that return a module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.kit import kit_module, model
from purifier.models.layers import catching


class _Scaled(nn.Module):
    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network = network
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * self.network(images)


def feature_extractor() -> nn.Module:
    """VGG-19 up to relu3_3, scaled so that its mean feature over the kit's photographs is 1.

    Unscaled features are 380 times as large; the pixel loss and the critic would then have no effect.
    """
    return _Scaled(kit_module().vgg19_features(16).requires_grad_(False), 1 / 380).eval()


class _Maps(nn.Module):
    def __init__(self, network: nn.Module, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network = network
        self.layers = layers

    def forward(self, images: Tensor) -> list[Tensor]:
        with catching({str(number): layer for number, layer in enumerate(self.layers)}) as caught:
            self.network(images)
        return list(caught.values())


def perceptual_maps() -> nn.Module:
    """VGG-19's maps at relu1_2, relu2_2 and relu3_3, for GAD's perceptual loss; the kit's has no further layers."""
    network = kit_module().vgg19_features(16).requires_grad_(False)
    rectifiers = [module for module in network.modules() if isinstance(module, nn.ReLU)]
    # The second of each of the first two blocks, and the third of the third.
    return _Maps(network, [rectifiers[number] for number in (1, 3, 6)]).eval()


class _Out(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images)["out"]
        return found


def deeplab() -> nn.Module:
    """DeepLabV3's logits (N, 21, H, W)."""
    return _Out(model("deeplabv3_voc")).eval()


class _Centre(nn.Module):
    """Applies a network to the middle of an image, half as high and half as wide."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows, columns = (slice(size // 4, size // 4 + -(-size // 2)) for size in (height, width))
        found: Tensor = self.network(images[..., rows, columns])
        return found


def centre_extractor() -> nn.Module:
    """`feature_extractor` on the middle quarter of a crop: a sample of its loss at a quarter of the cost."""
    return _Centre(feature_extractor()).eval()


def mobilenet() -> nn.Module:
    """MobileNetV2: logits, and at layer "net.features" its last convolutional features.

    On a CPU it always computes in float32: half precision slows depthwise convolutions there.
    """
    network = model("mobilenet_v2")
    given = network.forward

    def forward(images: Tensor) -> Tensor:
        if images.device.type != "cpu":
            return given(images)
        with torch.autocast("cpu", enabled=False):
            return given(images.float())

    network.forward = forward  # type: ignore[method-assign]
    return network
