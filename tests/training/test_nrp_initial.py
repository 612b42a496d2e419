"""What NRP starts from: the identity, or a trained network with fewer blocks."""

import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError
from purifier.methods.nrp import NRP, NRPResG
from purifier.training.nrp._initial import load_grown, start_as_identity


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
def test_the_identity_gives_images_back(make, blocks, filters):
    network = make(blocks, filters)
    start_as_identity(network)
    images = torch.rand(2, 3, 16, 19)
    images[0, :, :4], images[0, :, -4:] = 0, 1
    assert torch.allclose(network(images), images, atol=1e-5)


@pytest.mark.parametrize("make", [resg, dense])
def test_every_block_learns_from_the_identity_on(make):
    network = make(3)
    start_as_identity(network)
    found = gradients(network)
    assert len(found) == (3 if make is resg else 9)
    assert all(bool((gradient != 0).any()) for gradient in found)


@pytest.mark.parametrize("make", [resg, dense])
def test_the_identity_is_left_by_a_step_against_the_gradient(make):
    network = make()
    start_as_identity(network)
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
def test_a_grown_network_gives_what_the_trained_one_gives(blocks):
    trained, grown = resg(2), resg(blocks)
    load_grown(grown, trained.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert torch.allclose(grown(images), trained(images), atol=1e-6)
    assert all(bool((gradient != 0).any()) for gradient in gradients(grown))


def test_trained_blocks_are_spread_over_the_grown_network():
    trained, grown = resg(2), resg(5)
    load_grown(grown, trained.state_dict())
    silent = [not bool(conv.weight.any() or conv.bias.any()) for conv in last_convs(grown)]
    assert silent == [False, True, False, True, True]
    assert torch.equal(grown.recon_trunk[2].conv1.weight, trained.recon_trunk[1].conv1.weight)


def test_a_dense_network_loads_weights_of_its_own_size():
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
def test_weights_that_do_not_fit_are_refused(network, trained):
    with pytest.raises(OptionError, match=rf"kind and width, with no more than its {network.blocks} blocks, got"):
        load_grown(network, trained.state_dict())


@pytest.mark.parametrize("make", [resg, dense])
def test_a_purifier_without_weights_is_refused(make):
    with pytest.raises(OptionError, match=r"got weights that do not fit \(conv_first"):
        load_grown(make(), {})
