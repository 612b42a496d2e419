"""A full nrp grown from an nrp-resg: the same output, and weights that are free to learn."""

from __future__ import annotations

import pytest
import torch

from purifier import OptionError, Purifier
from purifier.methods.nrp import NRP, NRPResG
from purifier.training.growing import grow_dense, least_needed

IMAGES = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))


def residual(blocks: int, filters: int = 8) -> NRPResG:
    torch.manual_seed(blocks)
    return NRPResG(filters=filters, blocks=blocks)


@pytest.mark.parametrize(("blocks", "growth"), [(4, 4), (6, 4), (4, 5), (5, 16)])
def test_a_grown_dense_network_gives_the_output_of_the_trained_one(blocks: int, growth: int) -> None:
    trained, grown = residual(3), NRP(filters=8, blocks=blocks, growth=growth)
    assert grow_dense(grown, trained, IMAGES) == []
    assert torch.allclose(grown(IMAGES), trained(IMAGES), atol=2e-6)


def test_the_block_that_changes_the_output_least_is_left_out_where_there_is_no_room() -> None:
    trained, grown = residual(4), NRP(filters=8, blocks=4, growth=4)
    for weight in trained.recon_trunk[2].conv2.parameters():
        torch.nn.init.zeros_(weight)
    assert grow_dense(grown, trained, IMAGES) == [2]
    assert torch.allclose(grown(IMAGES), trained(IMAGES), atol=2e-6)


def test_blocks_are_left_out_in_the_order_of_what_they_change() -> None:
    trained = residual(4)
    with torch.no_grad():
        for number, factor in enumerate((1.0, 0.1, 2.0, 0.2)):
            trained.recon_trunk[number].conv2.weight *= factor
    assert least_needed(trained, IMAGES, 2) == [1, 3]


def test_every_free_dense_block_of_a_grown_network_learns() -> None:
    grown = NRP(filters=8, blocks=4, growth=4)
    grow_dense(grown, residual(3), IMAGES)
    grown(IMAGES).square().sum().backward()
    last = {name: conv.grad for name, conv in grown.named_parameters() if name.endswith("conv5.weight")}
    assert len(last) == 12
    assert all(gradient is not None and bool(gradient.any()) for gradient in last.values())


@pytest.mark.parametrize(("filters", "growth"), [(10, 5), (8, 3)])
def test_a_network_that_cannot_hold_the_trained_one_is_refused(filters: int, growth: int) -> None:
    with pytest.raises(OptionError, match="expected a network of filters=8 and growth of at least 4"):
        grow_dense(NRP(filters=filters, blocks=4, growth=growth), residual(3), IMAGES)


@pytest.mark.slow
def test_the_shipped_weights_grow_into_the_full_network() -> None:
    trained = Purifier.from_pretrained("nrp-resg").method
    assert isinstance(trained, NRPResG)
    probe, grown = IMAGES[:1], NRP(blocks=24)
    with torch.inference_mode():
        assert grow_dense(grown, trained, probe) == []
        assert (grown(probe) - trained(probe)).abs().max() < 2e-5
