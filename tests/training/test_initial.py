"""Initial weights: the identity of NRP and GAD, grown networks, and trained weights of the same size."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError, Purifier
from purifier.methods.alloy import Alloy
from purifier.methods.gad import GAD
from purifier.methods.nrp import NRP, NRPResG
from purifier.training.initial import gad_identity, load_alloy, load_grown, load_trained, nrp_identity
from tests.builders import pictures
from tests.training.states import same

Make = Callable[..., NRP | NRPResG]


def resg(blocks: int = 2, filters: int = 5) -> NRPResG:
    return NRPResG(filters=filters, blocks=blocks)


def dense(blocks: int = 2, filters: int = 5, growth: int = 3) -> NRP:
    return NRP(filters=filters, blocks=blocks, growth=growth)


def last_convs(network: NRP | NRPResG) -> list[nn.Conv2d]:
    if isinstance(network, NRPResG):
        return [block.conv2 for block in network.recon_trunk]
    return [part.conv5 for block in network.RRDB_trunk for part in block.children()]


def gradients(network: NRP | NRPResG) -> list[Tensor]:
    network.zero_grad()
    network(torch.rand(2, 3, 12, 12)).square().sum().backward()
    return [conv.weight.grad for conv in last_convs(network)]


@pytest.mark.parametrize(("blocks", "filters"), [(2, 5), (1, 3), (9, 5)])
@pytest.mark.parametrize("make", [resg, dense])
def test_nrps_identity_returns_images_unchanged(make: Make, blocks: int, filters: int) -> None:
    network = make(blocks, filters)
    nrp_identity(network)
    images = torch.rand(2, 3, 16, 19)
    images[0, :, :4], images[0, :, -4:] = 0, 1
    assert torch.allclose(network(images), images, atol=1e-5)


@pytest.mark.parametrize("make", [resg, dense])
def test_every_block_learns_from_nrps_identity(make: Make) -> None:
    network = make(3)
    nrp_identity(network)
    found = gradients(network)
    assert len(found) == (3 if make is resg else 9)
    assert all(bool((gradient != 0).any()) for gradient in found)


@pytest.mark.parametrize("make", [resg, dense])
def test_training_from_nrps_identity_lowers_the_loss(make: Make) -> None:
    network = make()
    nrp_identity(network)
    images, wanted = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 12, 12)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = (network(images) - wanted).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize("blocks", [2, 3, 5])
def test_a_grown_network_gives_the_output_of_the_trained_one(blocks: int) -> None:
    trained, grown = resg(2), resg(blocks)
    load_grown(grown, trained.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert torch.allclose(grown(images), trained(images), atol=1e-6)
    assert all(bool((gradient != 0).any()) for gradient in gradients(grown))


def test_trained_blocks_are_spread_over_the_grown_network() -> None:
    trained, grown = resg(2), resg(5)
    load_grown(grown, trained.state_dict())
    silent = [not bool(conv.weight.any() or conv.bias.any()) for conv in last_convs(grown)]
    assert silent == [False, True, False, True, True]
    assert torch.equal(grown.recon_trunk[2].conv1.weight, trained.recon_trunk[1].conv1.weight)


def test_a_dense_network_loads_weights_of_its_own_size() -> None:
    trained, other = dense(), dense()
    load_grown(other, trained.state_dict())
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(other(images), trained(images))


@pytest.mark.parametrize(
    ("network", "trained"),
    [
        (resg(2), resg(3)),
        (resg(2), resg(2, filters=6)),
        (dense(3), dense(2)),
        (dense(2), dense(3)),
        (dense(2), dense(2, growth=4)),
        (resg(2), dense(2)),
        (dense(2), resg(2)),
    ],
    ids=["more-blocks", "wider", "dense-fewer", "dense-more", "dense-growth", "dense-in-resg", "resg-in-dense"],
)
def test_weights_that_cannot_be_grown_are_refused(network: NRP | NRPResG, trained: NRP | NRPResG) -> None:
    with pytest.raises(OptionError, match=rf"kind and width, with no more than its {network.blocks} blocks, got"):
        load_grown(network, trained.state_dict())


@pytest.mark.parametrize("make", [resg, dense])
def test_a_purifier_without_weights_is_refused(make: Make) -> None:
    with pytest.raises(OptionError, match=r"got weights that do not fit \(conv_first"):
        load_grown(make(), {})


@pytest.mark.parametrize(("downsamples", "filters"), [(1, 6), (2, 13), (3, 24)])
def test_gads_identity_returns_images_nearly_unchanged(downsamples: int, filters: int) -> None:
    network = GAD(filters=filters, blocks=2, downsamples=downsamples, norm="none")
    images = pictures(2, 3, 13, 18)
    before = (network(images) - images).square().mean()
    gad_identity(network)
    out = network(images)
    # Every pixel keeps its place; only the hyperbolic tangent changes its value.
    torch.testing.assert_close(out, 0.5 + 0.55 * (2.16 * (images - 0.5)).tanh())
    assert (out - images).square().mean() < 1e-3 < before


def test_every_weight_learns_from_gads_identity() -> None:
    network = GAD(filters=12, blocks=1, norm="none")
    gad_identity(network)
    optimiser = torch.optim.SGD(network.parameters(), 1e-2)
    images = pictures(1, 3, 16, 16)
    before = [p.detach().clone() for p in network.parameters()]
    for _ in range(3):
        optimiser.zero_grad()
        (network(images) - 1 + images).square().mean().backward()
        optimiser.step()
    assert all(not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"norm": "layer"}, "expected norm='none' with start='identity', got norm='layer'"),
        ({"norm": "none", "filters": 11}, "expected filters of at least 12 with start='identity' and 2 down-samplings"),
    ],
)
def test_a_network_that_cannot_copy_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        gad_identity(GAD(blocks=1, **options))


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Alloy, str]:
    method = Alloy(filters=4, blocks=2)
    Purifier(method, name="alloy").save_pretrained(tmp_path / "alloy")
    return method, str(tmp_path / "alloy")


def test_trained_weights_are_loaded(trained: tuple[Alloy, str]) -> None:
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


@pytest.fixture
def flat(tmp_path: Path) -> Purifier:
    purifier = Purifier(Alloy(filters=16, blocks=4), name="flat")
    purifier.save_pretrained(tmp_path / "flat")
    return purifier


@pytest.mark.parametrize(("levels", "blocks"), [(1, 4), (2, 2), (3, 2)])
def test_added_coarser_levels_keep_the_output_and_learn(
    flat: Purifier, tmp_path: Path, levels: int, blocks: int
) -> None:
    network = Alloy(filters=16, blocks=blocks, levels=levels)
    images = pictures(2, 3, 16, 24)
    assert not torch.allclose(network(images), flat(images), atol=0.01)
    load_alloy(network, str(tmp_path / "flat"))
    torch.testing.assert_close(network(images), flat(images), rtol=0, atol=1e-6)
    assert not unmoved(network)


@pytest.mark.parametrize("other", [{"blocks": 4}, {"filters": 12}, {"patch": 1}])
def test_alloys_of_another_size_are_refused(flat: Purifier, tmp_path: Path, other: dict[str, int]) -> None:
    network = Alloy(**{"filters": 16, "blocks": 2, "levels": 2, **other})
    with pytest.raises(OptionError, match=r"expected init to name a Alloy .*'levels': 1.*got '.*flat'"):
        load_alloy(network, str(tmp_path / "flat"))


@pytest.mark.parametrize("levels", [1, 2])
def test_a_gate_is_added_and_learns(flat: Purifier, tmp_path: Path, levels: int) -> None:
    network = Alloy(filters=16, blocks=4 // levels, levels=levels, gate=3)
    images = pictures(2, 3, 16, 24)
    load_alloy(network, str(tmp_path / "flat"))
    assert network.options["gate"] == 3
    assert (network.gate(images) - 0.5).abs().max() < 0.5
    purified = network.gate(images) * (flat.method.reconstruct(images) - images) + images
    torch.testing.assert_close(network.reconstruct(images), purified)
    assert not unmoved(network)
    Purifier(network, name="gated").save_pretrained(tmp_path / "gated")
    again = Alloy(filters=16, blocks=4 // levels, levels=levels, gate=3)
    load_alloy(again, str(tmp_path / "gated"))
    assert torch.equal(again(images), network(images))
    # With a gate of another size, or none, the network is loaded and the new gate is not changed.
    for gate, gate_blocks in ((0, 0), (2, 0), (3, 1)):
        other = Alloy(filters=16, blocks=4 // levels, levels=levels, gate=gate, gate_blocks=gate_blocks)
        before = copy.deepcopy(other.gate)
        load_alloy(other, str(tmp_path / "gated"))
        assert same(other.network.state_dict(), network.network.state_dict())
        assert gate == 0 or same(other.gate.state_dict(), before.state_dict())


def test_the_gate_of_one_level_is_kept_with_several(tmp_path: Path) -> None:
    flat = Alloy(filters=8, blocks=2, gate=3)
    Purifier(flat, name="flat").save_pretrained(tmp_path / "flat")
    network = Alloy(filters=8, blocks=1, levels=2, gate=3)
    load_alloy(network, str(tmp_path / "flat"))
    assert same(network.gate.state_dict(), flat.gate.state_dict())


def test_alloys_of_several_levels_start_from_the_same_size_only(tmp_path: Path) -> None:
    trained = Alloy(filters=4, blocks=1, levels=2)
    Purifier(trained, name="two").save_pretrained(tmp_path / "two")
    network = Alloy(filters=4, blocks=1, levels=2)
    load_alloy(network, str(tmp_path / "two"))
    assert torch.equal(network(pictures(1, 3, 8, 8)), trained(pictures(1, 3, 8, 8)))
    with pytest.raises(OptionError, match="expected init to name a Alloy"):
        load_alloy(Alloy(filters=4, blocks=1, levels=3), str(tmp_path / "two"))


def unmoved(network: Alloy) -> list[str]:
    """Trains for a few steps and returns the names of weights that have not changed."""
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    images = pictures(2, 3, 12, 12)
    # In the first step only the zero convolutions have gradients; each later step reaches the layers before them.
    for _ in range(5):
        optimiser.zero_grad()
        (network.reconstruct(images) - images.flip(3)).abs().mean().backward()
        optimiser.step()
    return [name for name, weight in network.named_parameters() if torch.equal(weight, before[name])]
