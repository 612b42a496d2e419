"""A random purifier is judged by resubmission: an image counts only if every submission is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError
from purifier.attacks import BPDA, FGSM, Aware, Blind
from purifier.data.sets import LabelledImages
from purifier.evaluation import Evaluation, EvaluationSettings, evaluate, labelled_images, write_report
from purifier.evaluation.specs import make_threat
from purifier.evaluation.tasks import Classification, Segmentation
from tests.scenes import COLOURS, Colours, class_folders


class Tossing(nn.Module):
    """Turns the channels round in one of three calls."""

    differentiable = True

    def __init__(self, random: bool = True) -> None:
        super().__init__()
        self.random, self.calls = random, 0

    def purify(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images.flip(1) if self.random and float(torch.rand(())) < 1 / 3 else images


@pytest.fixture
def data(tmp_path: Path) -> LabelledImages:
    return labelled_images(class_folders(tmp_path / "data"), 16, classes=COLOURS)


def judged(data: LabelledImages, out: Path, purifier: nn.Module, **options: Any) -> Evaluation:
    return evaluate(
        Colours(), data, purifiers={"toss": purifier}, attacks={"FGSM": FGSM(eps=1 / 255)},
        threats={"aware": Aware(**options)}, out=out,
        settings=EvaluationSettings(batch_size=1, probe_images=0, pictures=0),
    )  # fmt: skip


def robust(result: Evaluation) -> float:
    return next(row.robust_accuracy for row in result.rows if row.threat == "aware")  # type: ignore[union-attr]


def test_more_submissions_leave_fewer_images(data: LabelledImages, tmp_path: Path) -> None:
    once = robust(judged(data, tmp_path / "1", Tossing(), samples=2))
    often = judged(data, tmp_path / "12", Tossing(), samples=2, submissions=12)
    # One channel stays where it is: green. Of the others, a third is wrong at once, and nearly all after 12 tries.
    assert robust(often) <= once and robust(often) == pytest.approx(1 / 3, abs=0.1)
    assert "worst of 12" in write_report(often, tmp_path / "12")["markdown"].read_text()


def test_a_purifier_that_is_the_same_every_time_is_called_once(data: LabelledImages, tmp_path: Path) -> None:
    calls = []
    for submissions in (1, 5):
        purifier = Tossing(random=False)
        judged(data, tmp_path / f"{submissions}", purifier, submissions=submissions)
        calls.append(purifier.calls)
    assert calls[0] == calls[1]


def test_the_worst_of_several_is_a_wrong_prediction_if_there_is_one() -> None:
    task, targets = Classification(), torch.tensor([0, 1, 2, 3])
    assert task.worst([[0, 1, 2, 3], [0, 2, 2, -1], [0, 1, 0, 3]], targets) == [0, 2, 0, -1]
    assert task.worst([[5, 1, 2, 3]], targets) == [5, 1, 2, 3]
    assert Segmentation().worst([["a"]], None) == ["a"]
    with pytest.raises(OptionError, match="only classifiers"):
        Segmentation().worst([["a"], ["b"]], None)


def test_votes_make_a_random_purifier_steadier(data: LabelledImages, tmp_path: Path) -> None:
    def clean(votes: int, purifier: nn.Module) -> tuple[float, Evaluation]:
        result = evaluate(
            Colours(), data, purifiers={"toss": purifier}, attacks={}, threats={}, out=tmp_path / f"{votes}",
            settings=EvaluationSettings(batch_size=1, votes=votes, probe_images=0),
        )  # fmt: skip
        return next(row.standard_accuracy for row in result.rows if row.purifier == "toss"), result  # type: ignore[union-attr]

    (once, _), (voted, result) = clean(1, Tossing()), clean(25, Tossing())
    assert once < 0.9 and voted == 1
    assert result.settings["votes"] == 25
    assert "Votes of a random purifier" in write_report(result, tmp_path / "25")["html"].read_text()
    steady = Tossing(random=False)
    clean(2, steady)
    assert steady.calls <= len(data) + 2


def test_votes_count_in_each_submission() -> None:
    task = Classification()
    assert task.majority([[0, 1, 2], [0, 2, 1], [3, 2, 2]]) == [0, 2, 2]
    assert task.majority([[4, 1], [3, 1]]) == [3, 1]
    with pytest.raises(OptionError, match="only classifiers vote"):
        Segmentation().majority([["a"], ["b"]])


def test_options_are_checked_and_stated() -> None:
    for threat in (Aware, BPDA):
        with pytest.raises(OptionError, match="submissions"):
            threat(submissions=0)
    assert make_threat("bpda:samples=2,submissions=10").settings()["submissions"] == 10
    assert "submissions" not in Blind().settings()
