"""Checks of a detector's numbering of labels, from boxes or from the labels alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from purifier.evaluation.checks.clean import foreign_labels

# COCO: 80 categories with ids from 1 to 90.
GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO = [number for number in range(1, 91) if number not in GAPS]


def scenes(labels: list[int], truths: list[int], *, overlap: bool = True) -> tuple[list[Any], list[Any]]:
    """An image for each label, with one box that is found with that label, and one of half its score elsewhere."""
    box, away = [10.0, 10.0, 50.0, 50.0], [200.0, 200.0, 220.0, 220.0]
    found = [
        {"boxes": [box if overlap else away, away], "scores": [0.9, 0.4], "labels": [label, label]} for label in labels
    ]
    return found, [{"boxes": torch.tensor([box]), "labels": torch.tensor([truth])} for truth in truths]


@pytest.mark.parametrize("count", [3, 4, 40])
def test_places_in_the_list_of_categories_are_told_from_ids(count: int) -> None:
    places = [(7 * number + 20) % 80 for number in range(count)]
    finding = foreign_labels(*scenes(places, [COCO[place] for place in places]), COCO)
    assert finding is not None and "as places in the sorted list of category ids, from 0" in finding.measured
    assert "map them" not in finding.measured and "Renumber the detector's labels" in finding.explanation


@pytest.mark.parametrize(("shift", "said"), [(-1, "raised by 1"), (1, "lowered by 1")])
def test_a_shift_is_named(shift: int, said: str) -> None:
    truths = [3, 5, 8, 9, 4, 7]
    finding = foreign_labels(*scenes([truth + shift for truth in truths], truths), list(range(1, 11)))
    assert finding is not None and f"and 6 if each label is {said}" in finding.measured


def test_honest_labels_and_honest_mistakes_accuse_nobody() -> None:
    assert foreign_labels(*scenes(COCO, COCO), COCO) is None
    # Three of eight wrong, two of them by one.
    assert foreign_labels(*scenes([1, 2, 3, 4, 5, 7, 8, 2], [1, 2, 3, 4, 5, 6, 7, 8]), list(range(1, 11))) is None
    assert foreign_labels(*scenes([5, 9], [7, 1]), COCO) is None
    assert foreign_labels([], [], COCO) is None
    assert foreign_labels([{"boxes": [], "scores": [], "labels": []}], scenes([1], [1])[1], COCO) is None


def test_labels_alone_tell_when_no_box_is_found() -> None:
    finding = foreign_labels(*scenes([0, 79, 3], [1, 90, 4], overlap=False), COCO)
    assert finding is not None
    assert finding.measured == "labels 0 to 79 look like places in the list of 80 categories, whose ids are 1 to 90"
    finding = foreign_labels(*scenes([300, 301], [1, 2], overlap=False), COCO)
    assert finding is not None and finding.measured == "labels 300 to 301 are predicted, and the categories are 1 to 90"
