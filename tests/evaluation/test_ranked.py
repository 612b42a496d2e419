"""The three ranked-label measures, on lists whose figures can be counted by hand."""

import json
from typing import Any

import pytest

from purifier import InputError, OptionError
from purifier.evaluation.metrics.classification import interval
from purifier.evaluation.metrics.ranked import ranked_scores

CLEAN = [list("abcde"), list("fghij"), list("klmno"), list("pqrst")]


def test_equal_lists_score_one() -> None:
    scores = ranked_scores(CLEAN, CLEAN)
    assert (scores.prediction_accuracy, scores.top1_accuracy, scores.topk_accuracy) == (1, 1, 1)
    assert scores.prediction_interval == scores.top1_interval == scores.topk_interval == interval(4, 4)


def test_disjoint_lists_score_zero() -> None:
    scores = ranked_scores(CLEAN, [list("VWXYZ")] * 4)
    assert (scores.prediction_accuracy, scores.top1_accuracy, scores.topk_accuracy) == (0, 0, 0)


def test_the_three_measures_are_those_of_the_paper() -> None:
    purified = [
        list("aVWXY"),  # one label shared, the first the same
        list("gfVWX"),  # two shared, the first clean one is second
        list("lmnoV"),  # four shared, the first clean one is lost
        list("tsrqp"),  # all shared, the first clean one is last
    ]
    scores = ranked_scores(CLEAN, purified)
    assert scores.prediction_accuracy == pytest.approx((1 + 2 + 4 + 5) / 20)
    assert scores.top1_accuracy == 1 / 4
    assert scores.topk_accuracy == 3 / 4
    assert (scores.images, scores.labels, scores.shared, scores.first, scores.among) == (4, 20, 12, 1, 3)


def test_only_the_first_k_labels_count_and_repeats_do_not() -> None:
    scores = ranked_scores([list("abcdef")], [list("fffabZ")], k=3)
    assert (scores.labels, scores.shared, scores.among) == (3, 2, 1)


def test_short_and_empty_answers_are_counted_by_the_clean_labels() -> None:
    scores = ranked_scores([["a", "b"], ["c"]], [["b"], []])
    assert (scores.labels, scores.shared, scores.first, scores.among) == (3, 1, 0, 0)
    assert scores.prediction_accuracy == pytest.approx(1 / 3)


def test_the_interval_of_a_mean_share_counts_images_not_labels() -> None:
    scores = ranked_scores([list("abcde")] * 20, [list("abVWX")] * 20)
    assert scores.prediction_accuracy == pytest.approx(0.4)
    assert scores.prediction_interval == interval(8, 20)
    # 20 x 0.3 is no whole number of images in floating point; the interval is rounded outwards at most.
    low, high = ranked_scores([list("abc")] * 4, [list("aVW")] * 4, k=3).prediction_interval
    assert low == interval(1, 4)[0] and high == interval(2, 4)[1]


def test_results_are_ready_for_json() -> None:
    figures = json.loads(json.dumps(ranked_scores(CLEAN, CLEAN).to_dict()))
    assert figures["top5_accuracy"] == {"share": 1.0, "interval": list(interval(4, 4))}


@pytest.mark.parametrize(
    ("clean", "purified", "k", "kind", "text"),
    [
        (CLEAN, CLEAN[:3], 5, InputError, "got 4 clean and 3 purified lists"),
        ([["a"], []], [["a"], ["b"]], 5, InputError, "got none for image 1"),
        (["cat"], [["cat"]], 5, InputError, "got the text 'cat'; put it into a list"),
        (CLEAN, CLEAN, 0, OptionError, "expected k of at least 1, got 0"),
    ],
)
def test_lists_that_cannot_be_compared_are_refused(
    clean: list[Any], purified: list[list[str]], k: int, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        ranked_scores(clean, purified, k=k)
