"""Extractors: fixed networks whose features and predictions are attacked and compared."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import InputError, OptionError
from purifier.models.features import load_features
from purifier.models.layers import catching, find_layer
from purifier.models.named import make_module
from purifier.models.reference import reference_model

# Names of the losses beside those of extractors, in the log.
_OTHER_LOSSES = {"pixel", "teacher", "predictions", "gate"}
_EXTRACTOR = re.compile(r"(?P<name>[\w-]+)=(?P<model>[^@]+?)(?:@(?P<layers>[^:@]+))?:(?P<weight>[^:@]+)")


@dataclass(frozen=True)
class ExtractorLine:
    """An extractor as the settings state it.

    Attributes:
        name: Its name in sources and in the log.
        model: "vgg16", "reference:NAME" or "module:function".
        layers: Names of modules inside; empty means the model's own output.
        weight: Weight of its feature loss.
    """

    name: str
    model: str
    layers: tuple[str, ...]
    weight: float


class Extractor(nn.Module):
    """A fixed network, and the layers inside that give features.

    Args:
        line: Its name, layers and weight.
        network: A module of images in [0, 1]. It is set to eval mode and its parameters are frozen.

    Raises:
        OptionError: If the network has no such layer.
    """

    def __init__(self, line: ExtractorLine, network: nn.Module) -> None:
        super().__init__()
        self.name, self.layers, self.weight = line.name, line.layers, line.weight
        self.network = network.eval().requires_grad_(False)
        for layer in self.layers:
            find_layer(network, layer)
        self.eval()

    def forward(self, images: Tensor) -> Any:
        """The network's own output for images (N, 3, H, W) in [0, 1]; gradients flow to them."""
        return self.network(images)

    def features(self, images: Tensor) -> list[Tensor]:
        """Features (N, ...) of images (N, 3, H, W) in [0, 1], one tensor per layer; gradients flow.

        Raises:
            InputError: If a layer is not used in the call, or its output is not such a tensor.
        """
        return self.features_and_output(images)[0]

    def features_and_output(self, images: Tensor) -> tuple[list[Tensor], Any]:
        """The `features` of images (N, 3, H, W) and the network's own output, from one call; gradients flow."""
        with catching({layer: self.network.get_submodule(layer) for layer in self.layers}) as caught:
            output = self.network(images)
        found = [self._checked(caught.get(layer), f"layer {layer!r}", images) for layer in self.layers]
        return found or [self._checked(output, "its output", images)], output

    def _checked(self, found: Any, where: str, images: Tensor) -> Tensor:
        if not isinstance(found, Tensor) or found.ndim < 2 or found.shape[0] != images.shape[0]:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"expected extractor {self.name!r} to give features ({len(images)}, ...) at {where}, got {got}; name "
                "a layer that gives such features: NAME=MODEL@LAYER:WEIGHT"
            )
        return found

    @torch.no_grad()
    def classifies(self, images: Tensor) -> bool:
        """Whether the network's own output for images (N, 3, H, W) can be logits (N, K)."""
        output = self.network(images)
        return isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1


def load_extractors(lines: Sequence[ExtractorLine]) -> list[Extractor]:
    """Makes the extractors, on the CPU. Extractors of the same model share it.

    Raises:
        OptionError: If a model cannot be imported or called, or has no such layer.
        UnknownNameError: If there is no reference model of that name.
        WeightsError: If the weights of VGG16 cannot be loaded.
    """
    models: dict[str, nn.Module] = {}
    for line in lines:
        if line.model not in models:
            models[line.model] = _load(line.model)
    return [Extractor(line, models[line.model]) for line in lines]


def _load(model: str) -> nn.Module:
    if model == "vgg16":
        return load_features(model)
    kind, _, name = model.partition(":")
    if kind == "reference":
        return reference_model(name)
    return make_module(model, "extractors", "'vgg16', 'reference:demo'")


def read_extractors(lines: Sequence[str]) -> list[ExtractorLine]:
    """Reads the extractors of the settings.

    Raises:
        OptionError: If a line has another form, or a name stands twice or is the name of another loss.
    """
    found = [_extractor(line) for line in lines]
    names = [one.name for one in found]
    taken = sorted(set(names) & _OTHER_LOSSES)
    if taken:
        raise OptionError(f"expected extractors with names of their own, got {', '.join(taken)}, a loss; rename it")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"expected extractors with names of their own, got {', '.join(twice)} twice; rename one")
    return found


def _extractor(line: str) -> ExtractorLine:
    match = _EXTRACTOR.fullmatch(line)
    weight = number(match["weight"]) if match else None
    if match is None or weight is None:
        raise OptionError(
            "expected an extractor as NAME=MODEL[@LAYER[+LAYER]]:WEIGHT, such as 'mine=my_module:build@layer3:0.25', "
            f"got {line!r}; MODEL is vgg16, reference:demo or module:function, WEIGHT a number of at least 0"
        )
    layers = tuple(match["layers"].split("+")) if match["layers"] else ()
    return ExtractorLine(match["name"], match["model"], layers, weight)


def number(text: str) -> float | None:
    """Reads a finite number of at least 0; None if the text is not one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None
