"""Square: scores only, its squares, its schedule, and what it spends."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from purifier import OptionError
from purifier.attacks import Square
from purifier.attacks.square import _peak
from tests.attacks.victims import examples, trained


def broken(victim: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return victim(images).argmax(1) != labels


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 1.5)])
@pytest.mark.parametrize("loss", ["margin", "ce"])
def test_it_fools_a_model_that_gives_no_gradients(norm: str, eps: float, loss: str) -> None:
    victim, (images, labels) = trained(), examples(20, seed=3)

    @torch.no_grad()
    def scores(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return victim(x.round(decimals=2))  # no gradient could pass this

    found = Square(eps=eps, queries=200, norm=norm, loss=loss).seeded(0)(scores, images, labels)
    before, after = broken(victim, images, labels), broken(scores, found, labels)
    assert before.sum() <= 2 and after.sum() >= 14


def test_more_queries_fool_more() -> None:
    victim, (images, labels) = trained(), examples(40, seed=3)
    few, many = (
        broken(victim, Square(eps=0.06, queries=n).seeded(0)(victim, images, labels), labels).sum() for n in (5, 300)
    )
    assert many > few + 3


def test_it_calls_the_model_at_most_queries_times_and_not_for_fooled_images() -> None:
    victim, (images, _) = trained(), examples(20, seed=3)
    labels = victim(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % 5  # wrong from the start
    asked = []

    def watch(x: Tensor) -> Tensor:
        asked.append(len(x))
        return victim(x)

    found = Square(eps=0.05, queries=25).seeded(0)(watch, images, labels)
    assert len(asked) == 25 and asked[:2] == [20, 17] and asked == sorted(asked, reverse=True)
    assert torch.equal(found[:3], images[:3])


def test_it_stops_when_all_are_fooled() -> None:
    victim, (images, labels) = trained(), examples(10, seed=3)
    calls = []
    Square(eps=0.5, queries=2000).seeded(0)(lambda x: calls.append(1) or victim(x), images, labels)
    assert len(calls) < 500


def test_the_loss_never_falls_after_the_first_perturbation() -> None:
    images, labels = torch.rand(4, 3, 10, 10), torch.arange(4)
    weights = torch.randn(3, 10, 10)
    tops = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        tops.append(outputs.clone())
        return outputs

    for norm, eps in (("Linf", 0.1), ("L2", 1.0)):
        tops.clear()
        found = Square(eps=eps, queries=60, norm=norm, loss=loss).seeded(1)(
            lambda x: (x * weights).flatten(1).sum(1), images, labels
        )
        best = torch.stack(tops[1:]).cummax(0).values[-1]
        assert torch.allclose((found * weights).flatten(1).sum(1), best, atol=1e-5)
        assert bool((best > tops[0]).all())


def test_perturbations_start_as_stripes_on_the_bound() -> None:
    images = torch.full((3, 3, 8, 8), 0.5)
    found = Square(eps=0.1, queries=2, loss=lambda o, t: o).seeded(0)(lambda x: x.mean((1, 2, 3)), images, None)
    delta = found - images
    assert torch.allclose(delta.abs(), torch.full_like(delta, 0.1), atol=1e-6)
    assert bool((delta == delta[:, :, :1]).all()) and not bool((delta == delta[..., :1]).all())


def test_l2_perturbations_reach_the_radius() -> None:
    images = torch.full((3, 3, 20, 20), 0.5)
    attack = Square(eps=1.0, norm="L2", queries=40, loss=lambda o, t: o).seeded(0)
    found = attack(lambda x: x[:, :, :4, :4].mean((1, 2, 3)), images, None)
    assert torch.allclose((found - images).flatten(1).norm(dim=1), torch.ones(3), atol=1e-4)


def test_squares_shrink_as_queries_are_spent() -> None:
    """p is halved at queries 10, 50, 200, ... of 10,000 (section 4.1)."""
    attack, images = Square(queries=10_000, p=0.8), torch.rand(1, 3, 100, 100)
    assert [attack._side(query, images) for query in (1, 10, 11, 51, 201, 9_999)] == [89, 89, 63, 45, 32, 4]
    assert Square(queries=100, p=0.8)._side(1, images) == 45  # the schedule is scaled to the queries
    assert Square(norm="L2", p=0.001)._side(1, images) == 3


def test_the_peak_of_the_l2_form_is_that_of_the_paper() -> None:
    found = _peak(3, 5, torch.zeros(1, dtype=torch.float64))
    outer, middle, inner = 1 / 9, 1 / 9 + 1 / 4, 1 / 9 + 1 / 4 + 1
    expected = [
        [outer, middle, middle, middle, outer],
        [outer, middle, inner, middle, outer],
        [outer, middle, middle, middle, outer],
    ]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))


def test_queries_are_its_steps() -> None:
    assert Square(queries=300).steps == 300
    assert "queries" in Square().settings()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"queries": 0}, "expected queries to be an integer of at least 1, got 0"),
        ({"queries": 1.5}, "expected queries to be an integer of at least 1, got 1.5"),
        ({"p": 0}, r"expected p in \(0, 1\], got 0"),
        ({"loss": "dlr"}, "expected loss to be 'margin' or 'ce' or a function, got 'dlr'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        Square(**options)
