"""The start near the identity."""

from __future__ import annotations

import pytest
import torch

from purifier import OptionError
from purifier.methods.gad import GAD
from purifier.training.gad._initial import start_as_identity
from tests.builders import pictures


@pytest.mark.parametrize(("downsamples", "filters"), [(1, 6), (2, 13), (3, 24)])
def test_images_come_back_nearly_as_they_are(downsamples: int, filters: int) -> None:
    network = GAD(filters=filters, blocks=2, downsamples=downsamples, norm="none")
    images = pictures(2, 3, 13, 18)
    before = (network(images) - images).square().mean()
    start_as_identity(network)
    out = network(images)
    # Every pixel is where it was: what is left is the bend of the hyperbolic tangent.
    torch.testing.assert_close(out, 0.5 + 0.55 * (2.16 * (images - 0.5)).tanh())
    assert (out - images).square().mean() < 1e-3 < before


def test_every_weight_can_learn_from_there() -> None:
    network = GAD(filters=12, blocks=1, norm="none")
    start_as_identity(network)
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
def test_a_network_that_cannot_copy_is_refused(options: dict, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        start_as_identity(GAD(blocks=1, **options))
