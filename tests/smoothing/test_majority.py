"""A vote over calls of a random purifier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import purifier
from purifier import InputError, OptionError, Purifier
from purifier.smoothing import Majority
from tests.builders import pictures, small_purifier


class Rotating(nn.Module):
    """Returns the labels of a list, one call after another."""

    def __init__(self, *labels: list[int]) -> None:
        super().__init__()
        self.labels = iter(labels)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.tensor(next(self.labels)), 4).float()


def test_the_class_that_most_calls_predict_wins_and_ties_go_to_the_lowest_number() -> None:
    images = pictures(2, 3, 8, 8)
    voting = Majority(Rotating([1, 3], [1, 2], [0, 3], [2, 2]), votes=4)
    assert torch.equal(voting.counts(images), torch.tensor([[1, 2, 1, 0], [0, 0, 2, 2]]))
    assert torch.equal(Majority(Rotating([1, 3], [0, 3], [0, 2]), votes=3).predict(images), torch.tensor([0, 3]))


def test_it_votes_over_a_wrapped_model_without_gradients() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 4)).eval()
    voting = Majority(purifier.wrap(model, Purifier.from_pretrained("gs").dynamic()), votes=7)
    images = pictures(3, 3, 12, 12).requires_grad_()
    counts = voting.counts(images)
    assert counts.shape == (3, 4) and (counts.sum(1) == 7).all() and not counts.requires_grad


@pytest.mark.parametrize(
    ("model", "votes", "message"),
    [
        (3, 2, "expected a model that maps images to logits, got int"),
        (nn.Identity(), 0, "votes"),
        (small_purifier("gs").wrap(nn.Flatten()), 2, "expected a random purifier to vote over, got 'gs'"),
    ],
)
def test_what_cannot_vote_is_refused(model: Any, votes: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Majority(model, votes=votes)


def test_outputs_and_images_that_do_not_suit_are_refused() -> None:
    with pytest.raises(
        InputError, match="expected finite logits from the model, got NaN or infinity for 1 of 2 images"
    ):
        Majority(lambda x: torch.tensor([[0.0, 1.0], [torch.nan, 1.0]])).predict(pictures(2, 3, 8, 8))
    with pytest.raises(InputError, match="only classes vote"):
        Majority(nn.Identity()).predict(pictures(1, 3, 8, 8))
    with pytest.raises(InputError, match=r"add images\[None\]"):
        Majority(nn.Identity()).predict(pictures(3, 8, 8))
