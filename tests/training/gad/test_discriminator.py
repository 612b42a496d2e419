"""The discriminator: sizes, features, and what is refused."""

from __future__ import annotations

import pytest
import torch

from purifier import OptionError
from purifier.training.gad.discriminator import PatchDiscriminator


@pytest.mark.parametrize("size", [(16, 16), (7, 5), (32, 48)])
def test_it_scores_places_and_gives_the_features_of_every_layer(size: tuple[int, int]) -> None:
    scores, features = PatchDiscriminator(filters=4, layers=2)(torch.rand(2, 3, *size))
    assert scores.shape[:2] == (2, 1)
    assert [one.shape[1] for one in features] == [4, 8, 16]


def test_widths_stop_growing() -> None:
    _, features = PatchDiscriminator(filters=2, layers=6)(torch.rand(1, 3, 64, 64))
    assert [one.shape[1] for one in features] == [2, 4, 8, 16, 16, 16, 16]


def test_it_can_learn_to_tell_two_kinds_apart() -> None:
    critic = PatchDiscriminator(filters=4, layers=1)
    optimiser = torch.optim.Adam(critic.parameters(), 1e-2)
    real, fake = torch.rand(4, 3, 16, 16), torch.full((4, 3, 16, 16), 0.5)
    for _ in range(20):
        optimiser.zero_grad()
        loss = (critic(real)[0] - 1).square().mean() + critic(fake)[0].square().mean()
        loss.backward()
        optimiser.step()
    assert critic(real)[0].mean() > critic(fake)[0].mean() + 0.5


@pytest.mark.parametrize("options", [{"filters": 0}, {"layers": 0}])
def test_nothing_is_refused(options: dict) -> None:
    with pytest.raises(OptionError, match="to be an integer of at least 1, got 0"):
        PatchDiscriminator(**options)
