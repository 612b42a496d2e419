"""Extractors: layers, several at once, sharing, fixed weights; what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import InputError, OptionError, UnknownNameError
from purifier.training.extractors import Extractor, ExtractorLine, load_extractors, read_extractors
from tests.training.features import classifier, tiny

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def extractor(*layers: str, network: nn.Module | None = None) -> Extractor:
    return Extractor(ExtractorLine("mine", "", layers, 1.0), classifier() if network is None else network)


def test_without_a_layer_the_output_is_the_features() -> None:
    (features,) = extractor().features(IMAGES)
    assert torch.equal(features, classifier()(IMAGES)) and features.shape == (2, 5)


def test_features_are_copied_before_the_next_layer_works_in_place() -> None:
    network = classifier()
    convolved, pooled = extractor("0", "2").features(IMAGES)
    assert torch.equal(convolved, network[0](IMAGES)) and bool((convolved < 0).any())
    assert torch.equal(pooled, network[:3](IMAGES))


def test_gradients_reach_the_images_and_no_weight() -> None:
    one, images = extractor("0", "2"), IMAGES.clone().requires_grad_()
    sum(features.sum() for features in one.features(images)).backward()
    assert images.grad.any()
    assert not any(weight.requires_grad or weight.grad is not None for weight in one.parameters())


def test_hooks_are_removed() -> None:
    one = extractor("0")
    one.features(IMAGES)
    assert not any(module._forward_hooks for module in one.modules())


def test_networks_are_set_to_eval_mode() -> None:
    one = extractor(network=nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5)))
    assert not any(module.training for module in one.modules())


def test_only_logits_make_a_classifier() -> None:
    assert extractor("0").classifies(IMAGES)
    assert not extractor(network=tiny()).classifies(IMAGES)
    assert not extractor(network=nn.Sequential(nn.Flatten(), nn.Linear(768, 1))).classifies(IMAGES)


def test_extractors_of_one_model_share_it() -> None:
    here = "tests.training.features:"
    lines = [f"a={here}classifier@0:1", f"b={here}classifier@2:0.5", f"c={here}tiny:0"]
    one, two, three = load_extractors(read_extractors(lines))
    assert one.network is two.network is not three.network
    assert (one.layers, two.layers, three.layers) == (("0",), ("2",), ())
    assert (one.weight, two.weight, three.weight) == (1, 0.5, 0)


def test_the_reference_model_is_an_extractor() -> None:
    (demo,) = load_extractors(read_extractors(["demo=reference:demo@stages:1"]))
    images = torch.rand(1, 3, 32, 32)
    assert demo.features(images)[0].ndim == 4 and demo.classifies(images)


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(OptionError, match=r"expected the name of a layer of Sequential, got '7'"):
        extractor("7")


def test_a_layer_that_is_not_used_is_refused() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, images: Tensor) -> Any:
            return self.used(images)

    with pytest.raises(InputError, match=r"'mine' to give features \(2, ...\) at layer 'idle', got NoneType"):
        extractor("idle", network=Idle()).features(IMAGES)


@pytest.mark.parametrize("found", [{"out": 1}, torch.zeros(2), torch.zeros(3, 4)], ids=["dict", "flat", "other batch"])
def test_an_output_that_is_not_a_batch_of_features_is_refused(found: object) -> None:
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> Any:
            return found

    with pytest.raises(InputError, match=r"'mine' to give features \(2, ...\) at its output, got .*NAME=MODEL@LAYER"):
        extractor(network=Odd()).features(IMAGES)


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        (
            "a=nowhere:1",
            OptionError,
            r"expected extractors='vgg16', 'reference:demo' or 'module:function' or 'file.py:function', got 'nowhe",
        ),
        (
            "a=tests.training.features:missing:1",
            OptionError,
            "to name a function of tests.training.features, got 'missing'",
        ),
        ("a=tests.training.features:nothing:1", OptionError, "to return an nn.Module, got NoneType"),
        ("a=reference:demmo:1", UnknownNameError, "did you mean 'demo'"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused(line: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_extractors(read_extractors([line]))
