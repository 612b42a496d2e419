"""A training starts from the weights of a trained purifier of the same size, and of no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from purifier import OptionError, Purifier
from purifier.methods.alloy import Alloy
from purifier.methods.gad import GAD
from purifier.training._trained import load_trained


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Alloy, str]:
    method = Alloy(filters=4, blocks=2)
    Purifier(method, name="alloy").save_pretrained(tmp_path / "alloy")
    return method, str(tmp_path / "alloy")


def test_trained_weights_are_taken_over(trained: tuple[Alloy, str]) -> None:
    method, folder = trained
    network = Alloy(filters=4, blocks=2)
    load_trained(network, folder)
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(network(images), method(images))


@pytest.mark.parametrize("network", [Alloy(filters=5, blocks=2), Alloy(filters=4, blocks=3), GAD(filters=4, blocks=2)])
def test_weights_of_another_size_or_kind_are_refused(trained: tuple[Alloy, str], network: Alloy | GAD) -> None:
    kind = type(network).__name__
    with pytest.raises(
        OptionError, match=rf"expected init to name a {kind} .*'filters': {network.filters}.*a Alloy with"
    ):
        load_trained(network, trained[1])
