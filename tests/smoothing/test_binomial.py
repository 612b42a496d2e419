"""The bounds equal those of scipy, closed forms, and hold as often as they promise."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from purifier import OptionError
from purifier.smoothing import abstains, lower_bound


@pytest.mark.parametrize(("hits", "draws"), [(1, 1), (3, 10), (99, 100), (990, 1000), (99_900, 100_000), (1, 5000)])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_bound_equals_the_quantile_of_the_beta_distribution(hits: int, draws: int, alpha: float) -> None:
    expected = stats.beta.ppf(alpha, hits, draws - hits + 1)
    assert lower_bound(hits, draws, alpha) == pytest.approx(expected, abs=1e-9)
    assert lower_bound(hits, draws, alpha) <= expected + 1e-12


def test_the_bound_of_draws_that_all_hit_has_a_closed_form() -> None:
    assert lower_bound(1000, 1000, 0.001) == pytest.approx(0.001 ** (1 / 1000), abs=1e-12)
    assert lower_bound(0, 1000, 0.001) == 0.0


def test_the_bound_exceeds_the_probability_no_more_often_than_alpha() -> None:
    hits = torch.distributions.Binomial(60, torch.tensor(0.8)).sample((4000,)).int().tolist()
    bounds = {count: lower_bound(count, 60, 0.05) for count in set(hits)}
    wrong = sum(bounds[count] > 0.8 for count in hits)
    # Four standard deviations above 5 % of 4,000.
    assert 0 < wrong < 200 + 4 * math.sqrt(4000 * 0.05 * 0.95)


@pytest.mark.parametrize(("first", "second"), [(10, 0), (9, 1), (60, 40), (70, 30), (5, 5), (1, 0)])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_abstention_equals_the_two_sided_binomial_test(first: int, second: int, alpha: float) -> None:
    expected = stats.binomtest(first, first + second, 0.5).pvalue > alpha
    assert abstains(first, second, alpha) == expected


def test_no_draws_abstain() -> None:
    assert abstains(0, 0, 0.05)


@pytest.mark.parametrize(
    ("hits", "draws", "alpha", "text"),
    [
        (3, 2, 0.1, "expected 0 <= hits <= draws and at least one draw, got hits=3, draws=2"),
        (0, 0, 0.1, "expected 0 <= hits <= draws and at least one draw"),
        (1, 2, 0, "expected alpha in \\(0, 1\\), such as 0.001, got 0"),
        (1, 2, "0.1", "expected alpha in \\(0, 1\\)"),
    ],
)
def test_numbers_out_of_range_are_refused(hits: int, draws: int, alpha: float, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        lower_bound(hits, draws, alpha)
