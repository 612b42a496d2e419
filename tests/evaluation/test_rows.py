"""Rows: counts, rates, intervals."""

from typing import Any

import pytest

from purifier import InputError, OptionError
from purifier.evaluation.metrics.classification import interval
from purifier.evaluation.rows import Row


def row(**changes: Any) -> Row:
    facts = {"purifier": "gs", "attack": "PGD", "threat": "blind", "images": 10, "standard": 8, "robust": 3}
    return Row(**{**facts, "fooled": 5, "restored": 4, **changes})


def test_rates_are_shares_of_what_they_are_of() -> None:
    assert row().standard_accuracy == 0.8
    assert row().robust_accuracy == 0.3
    assert row().attack_success_rate == 5 / 8
    assert row().purification_success_rate == 0.4
    assert row(standard=0, fooled=0).attack_success_rate == 0


def test_json_and_back_is_the_same_row() -> None:
    one = row(eps=8 / 255, norm="Linf", steps=10, settings={"a": [1]}, eight_bit=True, dtype="bfloat16")
    assert Row.from_dict(one.to_dict()) == one
    assert one.to_dict()["attack_success_rate"] == {"share": 5 / 8, "interval": list(interval(5, 8)), "of": 8}


@pytest.mark.parametrize(("name", "value"), [("threat", [1]), ("purifier", None), ("eps", "8/255"), ("eight_bit", 1)])
def test_a_row_checks_what_it_is_given(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"expected {name} to be "):
        row(**{name: value})


@pytest.mark.parametrize("right", [0, 1, 7, 49, 50])
def test_the_interval_is_wilsons(right: int) -> None:
    # The ends solve (share - p)^2 = z^2 p (1 - p) / n, which is what defines Wilson's interval.
    low, high = interval(right, 50)
    assert 0 <= low <= right / 50 <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert (right / 50 - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 50, rel=1e-5)


def test_the_interval_has_a_width_at_the_ends_and_is_everything_without_images() -> None:
    assert interval(0, 20)[0] == 0 and interval(0, 20)[1] > 0.1
    assert interval(20, 20)[1] == 1 and interval(20, 20)[0] < 0.9
    assert interval(0, 0) == (0, 1)
    assert interval(200, 400)[1] - interval(200, 400)[0] < interval(20, 40)[1] - interval(20, 40)[0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"threat": "robust"}, "expected a threat out of none, blind"),
        ({"robust": 11}, r"expected robust within 0..10 images, got 11"),
        ({"fooled": 9}, r"expected fooled within 0..8 correct clean images, got 9"),
    ],
)
def test_impossible_counts_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        row(**changes)
    with pytest.raises(InputError, match="expected 0 <= right <= count"):
        interval(3, 2)
