"""The network of the perceptual loss: VGG16's five layers, or the user's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import vgg16

from purifier import InputError, OptionError
from purifier.training.gad.perceptual import VGGMaps, load_perceptual


def test_the_five_layers_of_vgg16_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        network = vgg16().features[:30]
        maps = VGGMaps(network)(torch.empty(1, 3, 32, 32))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]
    assert all(isinstance(network[number], nn.ReLU) for number in (3, 8, 15, 22, 29))


def test_a_network_of_the_users_own_is_fixed() -> None:
    network = load_perceptual("tests.training.gad.builders:features")
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert len(network(torch.rand(1, 3, 8, 8))) == 2


def test_images_too_small_for_five_layers_are_refused() -> None:
    with pytest.raises(InputError, match=r"at least 16 x 16 pixels .*, got \(8, 9\)"):
        VGGMaps(nn.Sequential())(torch.rand(1, 3, 8, 9))


def test_other_names_and_other_outputs_are_refused() -> None:
    with pytest.raises(
        OptionError, match=r"expected perceptual='vgg16' or 'module:function' or 'file.py:function', got 'lpips'"
    ):
        load_perceptual("lpips")
    with pytest.raises(OptionError, match="can be imported and called, got 'no_such_module:f'"):
        load_perceptual("no_such_module:f")
    with pytest.raises(OptionError, match="to give a list of feature maps, got Tensor"):
        load_perceptual("tests.training.gad.builders:no_maps")(torch.rand(1, 3, 8, 8))
