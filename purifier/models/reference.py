"""Small reference classifiers that ship with the package, trained from scratch.

They let a user try an attack and a purifier without any download: `reference_model("demo")` is an ordinary,
undefended classifier of 24 kinds of things, and attacks fool it easily.

The network is a variant of the residual network of He et al., "Deep Residual Learning for Image Recognition", CVPR
2016, https://arxiv.org/abs/1512.03385, with average pooling in the shortcuts (ResNet-D of He et al., "Bag of Tricks for
Image Classification with Convolutional Neural Networks", CVPR 2019, https://arxiv.org/abs/1812.01187) and a single
convolution of stride 2 as its stem.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import InputError, OptionError, UnknownNameError, WeightsError, nearest

__all__ = ["ReferenceClassifier", "reference_model"]


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut. The first one may have a stride."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True) if stride != 1 else nn.Identity(),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, features: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(features)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(features))


class ReferenceClassifier(nn.Module):
    """Compact residual classifier that takes images in [0, 1] and normalises them itself.

    Args:
        classes: Class names, in the order of the logits.
        widths: Channels of the stem, then of each stage.
        blocks: Residual blocks in each stage, one number fewer than `widths`.
        strides: Stride of the stem, then of each stage. None means 2 everywhere.
        mean: Channel means of the training images, in [0, 1] units.
        std: Channel standard deviations of the training images, in [0, 1] units.

    Attributes:
        classes: Class names, a tuple in the order of the logits.
        smallest: Side of the smallest images that it takes, which give 2 x 2 features.

    Raises:
        OptionError: If `widths` and `blocks` do not fit together.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        classes: Sequence[str],
        widths: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (2, 2, 2),
        strides: Sequence[int] | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        strides = [2] * len(widths) if strides is None else strides
        if not len(widths) == len(strides) == len(blocks) + 1:
            raise OptionError(
                f"expected one width and one stride more than there are block counts, got widths={tuple(widths)}, "
                f"strides={tuple(strides)} and blocks={tuple(blocks)}; put those of the stem first"
            )
        self.classes = tuple(classes)
        self.smallest = 2 * math.prod(strides)
        # Constants of the architecture, kept in its config: storing them in fp16 would only round them.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        stem = nn.Conv2d(3, widths[0], 3, strides[0], 1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(widths[0]), nn.ReLU())
        layers: list[nn.Module] = []
        for before, after, count, stride in zip(widths[:-1], widths[1:], blocks, strides[1:], strict=True):
            layers.append(_Block(before, after, stride))
            layers.extend(_Block(after, after, 1) for _ in range(count - 1))
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], len(self.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Scores images; gradients flow to the input and to the weights.

        Args:
            images: RGB images (N, 3, H, W) in [0, 1], floating, H and W at least `smallest`.

        Returns:
            Logits (N, number of classes), in the dtype the weights compute in.

        Raises:
            InputError: If the shape is not (N, 3, H, W) with H and W of at least `smallest`.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < self.smallest:
            raise InputError(
                f"expected images of shape (N, 3, H, W) with H, W >= {self.smallest}, got {tuple(images.shape)}; "
                "channels come first, and a single image needs a batch axis: images.unsqueeze(0)"
            )
        features = self.stages(self.stem((images - self.mean) / self.std))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


_ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "cifar10-resnet20": ReferenceClassifier,
    "demo": ReferenceClassifier,
}


def reference_model(name: str = "demo") -> nn.Module:
    """Loads a classifier that ships with the package, with its weights.

    It takes RGB images (N, 3, H, W) in [0, 1], normalises them inside, and returns logits (N, classes).
    The weights are checked against the SHA-256 in their config before they are parsed. Gradients flow to
    the input, and the parameters keep `requires_grad=True`.

    Args:
        name: Which classifier. "demo": 24 kinds of things, H and W at least 32, made for 128 x 128.
            "cifar10-resnet20": the ten classes of CIFAR-10, made for 32 x 32.

    Returns:
        The model in eval mode, fp32, on the CPU, with its class names as the tuple `.classes`.

    Raises:
        UnknownNameError: If there is no reference model of that name.
        WeightsError: If the stored weights are missing, or are not those that their config names.

    Example:
        >>> model = reference_model("demo")
        >>> len(model.classes), tuple(model(torch.rand(2, 3, 128, 128)).shape)
        (24, (2, 24))
    """
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        raise UnknownNameError(
            f"expected the name of a reference model, one of {', '.join(map(repr, sorted(_ARCHITECTURES)))}, "
            f"got {name!r}{nearest(str(name), _ARCHITECTURES)}; call reference_model with one of those names"
        )
    config, stored = _read(name)

    from safetensors.torch import load  # imported late: `import purifier` stays light

    model = _ARCHITECTURES[name](classes=config["classes"], **config["architecture"])
    # Batch counters are not stored: nothing reads them after training.
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    model.load_state_dict(counters | {key: value.float() for key, value in load(stored).items()})
    return model.eval()


def _read(name: str) -> tuple[dict[str, Any], bytes]:
    """Reads the config and the verified weights file of a reference model from the package."""
    try:
        folder = files("purifier.weights") / f"reference-{name}"
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        stored = (folder / "model.safetensors").read_bytes()
    except (FileNotFoundError, ModuleNotFoundError) as error:
        raise WeightsError(
            f"expected the weights of reference model {name!r} inside the package, got {error}; "
            "reinstall the package, or in a checkout install it with pip install -e ."
        ) from error
    found = hashlib.sha256(stored).hexdigest()
    if found != config["sha256"]:
        raise WeightsError(
            f"expected the weights of reference model {name!r} to have SHA-256 {config['sha256']}, "
            f"got {found}; the installed file is damaged or was changed: reinstall the package"
        )
    return config, stored
