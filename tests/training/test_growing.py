"""A full nrp grown from an nrp-resg: nearly the same output, and weights that are free to learn."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from purifier import OptionError, Purifier
from purifier.methods.nrp import NRP, NRPResG
from purifier.training.growing import grow_dense

IMAGES = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))


def residual(blocks: int = 3, filters: int = 8) -> NRPResG:
    torch.manual_seed(blocks)
    return NRPResG(filters=filters, blocks=blocks)


def grown(trained: NRPResG, blocks: int = 3, growth: int = 4) -> NRP:
    network = NRP(filters=trained.filters, blocks=blocks, growth=growth)
    grow_dense(network, trained)
    return network


def held(trained: NRPResG, images: Tensor) -> Tensor:
    """The trained network, with 1 / 64 of the image missing where the first residual block reads its features."""
    features = F.leaky_relu(trained.conv_first(images), 0.1)
    seen = features.clone()
    seen[:, :3] -= images / 64
    first = trained.recon_trunk[0]
    features = features + first(seen) - seen
    out: Tensor = trained.conv_last(trained.recon_trunk[1:](features))
    return out


def distance(a: Tensor, b: Tensor) -> float:
    return (a - b).square().mean().sqrt().item()


@pytest.mark.parametrize(("blocks", "growth"), [(3, 4), (4, 4), (6, 5), (5, 16)])
def test_a_grown_network_is_the_trained_one_whose_first_block_reads_slightly_other_features(
    blocks: int, growth: int
) -> None:
    trained = residual()
    assert torch.allclose(grown(trained, blocks, growth)(IMAGES), held(trained, IMAGES), atol=2e-6)


def test_the_output_of_a_grown_network_is_nearly_that_of_the_trained_one() -> None:
    trained = residual()
    expected, found = trained(IMAGES), grown(trained)(IMAGES)
    for weight in trained.recon_trunk[0].conv2.parameters():
        torch.nn.init.zeros_(weight)
    without = trained(IMAGES)
    assert 0 < distance(found, expected) < distance(without, expected) / 50
    assert torch.allclose(grown(trained)(IMAGES), without, atol=2e-6)


def test_the_weights_that_hold_nothing_stay_as_they_were() -> None:
    torch.manual_seed(0)
    network = NRP(filters=8, blocks=4, growth=5)
    before = {key: value.clone() for key, value in network.state_dict().items() if re.search(r"RDB\d\.conv[1-4]", key)}
    grow_dense(network, residual())
    after = network.state_dict()
    changed = {key[: key.index(".conv")] for key in before if not torch.equal(after[key], before[key])}
    assert changed == {f"RRDB_trunk.{place}" for place in ("0.RDB1", "0.RDB2", "1.RDB1", "2.RDB1")}
    for place in changed:
        key = f"{place}.conv4.weight"
        assert torch.equal(after[key][1:], before[key][1:]), "of conv4, one feature is needed"


def test_every_dense_block_of_a_grown_network_learns() -> None:
    network = grown(residual(), 4)
    network(IMAGES).square().sum().backward()
    last = {name: conv.grad for name, conv in network.named_parameters() if name.endswith("conv5.weight")}
    assert len(last) == 12
    assert all(gradient is not None and bool(gradient.any()) for gradient in last.values())


@pytest.mark.parametrize(
    ("filters", "growth", "blocks", "trained"),
    [(10, 5, 4, 8), (8, 3, 4, 8), (8, 4, 2, 8), (2, 4, 4, 2)],
    ids=["wider", "growth", "blocks", "two-filters"],
)
def test_a_network_that_cannot_hold_the_trained_one_is_refused(
    filters: int, growth: int, blocks: int, trained: int
) -> None:
    expected = f"filters={max(3, trained)}, growth of at least {trained // 2} and at least 3 blocks to hold .* got "
    with pytest.raises(OptionError, match=f"{expected}filters={filters}, growth={growth} and blocks={blocks}"):
        grow_dense(NRP(filters=filters, blocks=blocks, growth=growth), residual(filters=trained))


def scenes(size: int = 48) -> Tensor:
    """Two pictures with smooth colours, edges and, in the second, an attack's grain of 8 / 255."""
    draw = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(2, 3, 5, 5, generator=draw), (size, size), mode="bicubic").clamp(0, 1)
    smooth[:, :, size // 4 : size // 2, size // 3 :] = torch.rand(2, 3, 1, 1, generator=draw)
    smooth[1] += 8 / 255 * torch.randn(3, size, size, generator=draw).sign()
    return smooth.clamp(0, 1)


@pytest.mark.slow
def test_the_shipped_weights_grow_into_the_full_network() -> None:
    trained = Purifier.from_pretrained("nrp-resg").method
    assert isinstance(trained, NRPResG)
    images = scenes()
    with torch.inference_mode():
        found, expected = grown(trained, 23, 32)(images), trained(images)
    assert distance(found, expected) < 0.06 / 255
    assert (found - expected).abs().max() < 0.6 / 255
