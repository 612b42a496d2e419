"""The starts: the identity, and a trained network that coarser scales are added to; both learn."""

import copy
from pathlib import Path

import pytest
import torch

from purifier import OptionError, Purifier
from purifier.methods.alloy import Alloy
from purifier.training.alloy._initial import start_as_identity, start_from
from tests.builders import pictures
from tests.training.states import same


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
    assert not unmoved(network)


def unmoved(network: Alloy) -> list[str]:
    """Trains for a few steps; returns the names of weights that have stayed what they were."""
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    images = pictures(2, 3, 12, 12)
    # In the first step the zero convolutions alone have gradients; with each one more, what stands before those.
    for _ in range(5):
        optimiser.zero_grad()
        (network.reconstruct(images) - images.flip(3)).abs().mean().backward()
        optimiser.step()
    return [name for name, weight in network.named_parameters() if torch.equal(weight, before[name])]


def test_a_network_that_is_too_narrow_is_refused():
    with pytest.raises(OptionError, match=r"at least 12 with start='identity' and patch=2, got 11; widen"):
        start_as_identity(Alloy(filters=11, blocks=1))


@pytest.fixture
def flat(tmp_path: Path) -> Purifier:
    purifier = Purifier(Alloy(filters=16, blocks=4), name="flat")
    purifier.save_pretrained(tmp_path / "flat")
    return purifier


@pytest.mark.parametrize(("levels", "blocks"), [(1, 4), (2, 2), (3, 2)])
def test_coarser_scales_are_added_without_a_change_of_what_comes_out_and_learn(flat, tmp_path, levels, blocks):
    network = Alloy(filters=16, blocks=blocks, levels=levels)
    images = pictures(2, 3, 16, 24)
    assert not torch.allclose(network(images), flat(images), atol=0.01)
    start_from(network, str(tmp_path / "flat"))
    torch.testing.assert_close(network(images), flat(images), rtol=0, atol=1e-6)
    assert not unmoved(network)


@pytest.mark.parametrize("other", [{"blocks": 4}, {"filters": 12}, {"patch": 1}])
def test_networks_that_do_not_fit_are_refused(flat, tmp_path, other):
    network = Alloy(**{"filters": 16, "blocks": 2, "levels": 2, **other})
    with pytest.raises(OptionError, match=r"expected init to name a Alloy .*'levels': 1.*got '.*flat'"):
        start_from(network, str(tmp_path / "flat"))


@pytest.mark.parametrize("levels", [1, 2])
def test_a_gate_is_added_and_learns(flat, tmp_path, levels):
    network = Alloy(filters=16, blocks=4 // levels, levels=levels, gate=3)
    images = pictures(2, 3, 16, 24)
    start_from(network, str(tmp_path / "flat"))
    assert network.options["gate"] == 3
    assert (network.gate(images) - 0.5).abs().max() < 0.5
    purified = network.gate(images) * (flat.method.reconstruct(images) - images) + images
    torch.testing.assert_close(network.reconstruct(images), purified)
    assert not unmoved(network)
    Purifier(network, name="gated").save_pretrained(tmp_path / "gated")
    again = Alloy(filters=16, blocks=4 // levels, levels=levels, gate=3)
    start_from(again, str(tmp_path / "gated"))
    assert torch.equal(again(images), network(images))
    # A gate of another size, or none, is another gate: the network is loaded, and this is left as it is.
    for gate, gate_blocks in ((0, 0), (2, 0), (3, 1)):
        other = Alloy(filters=16, blocks=4 // levels, levels=levels, gate=gate, gate_blocks=gate_blocks)
        before = copy.deepcopy(other.gate)
        start_from(other, str(tmp_path / "gated"))
        assert same(other.network.state_dict(), network.network.state_dict())
        assert gate == 0 or same(other.gate.state_dict(), before.state_dict())


def test_the_gate_of_one_level_is_kept_with_several(tmp_path):
    flat = Alloy(filters=8, blocks=2, gate=3)
    Purifier(flat, name="flat").save_pretrained(tmp_path / "flat")
    network = Alloy(filters=8, blocks=1, levels=2, gate=3)
    start_from(network, str(tmp_path / "flat"))
    assert same(network.gate.state_dict(), flat.gate.state_dict())


def test_networks_of_several_levels_start_from_the_same_size_only(tmp_path):
    trained = Alloy(filters=4, blocks=1, levels=2)
    Purifier(trained, name="two").save_pretrained(tmp_path / "two")
    network = Alloy(filters=4, blocks=1, levels=2)
    start_from(network, str(tmp_path / "two"))
    assert torch.equal(network(pictures(1, 3, 8, 8)), trained(pictures(1, 3, 8, 8)))
    with pytest.raises(OptionError, match="expected init to name a Alloy"):
        start_from(Alloy(filters=4, blocks=1, levels=3), str(tmp_path / "two"))
