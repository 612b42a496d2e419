"""The starts: the identity, which learns; trained weights of the same size."""

import pytest
import torch

from purifier import OptionError
from purifier.methods.alloy import Alloy
from purifier.training.alloy._initial import start_as_identity
from tests.builders import pictures


@pytest.mark.parametrize(
    ("patch", "filters", "levels"), [(1, 3, 1), (1, 8, 1), (2, 12, 1), (2, 16, 1), (3, 27, 1), (2, 12, 3)]
)
def test_the_network_gives_images_back(patch, filters, levels):
    network = Alloy(patch=patch, filters=filters, blocks=2, levels=levels, iterations=3)
    images = pictures(2, 3, 7, 10)
    assert not torch.allclose(network(images), images, atol=0.05)
    start_as_identity(network)
    torch.testing.assert_close(network(images), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("levels", [1, 3])
def test_every_weight_learns_from_there(levels):
    network = Alloy(filters=16, blocks=2, levels=levels, iterations=1)
    start_as_identity(network)
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    images = pictures(2, 3, 12, 12)
    # In the first step the zero convolutions alone have gradients; with each one more, what stands before those.
    for _ in range(5):
        optimiser.zero_grad()
        (network.reconstruct(images) - images.flip(3)).abs().mean().backward()
        optimiser.step()
    assert not [name for name, weight in network.named_parameters() if torch.equal(weight, before[name])]


def test_a_network_that_is_too_narrow_is_refused():
    with pytest.raises(OptionError, match=r"at least 12 with start='identity' and patch=2, got 11; widen"):
        start_as_identity(Alloy(filters=11, blocks=1))
