"""Attack scores in evaluations: rates, attackers who hide from the gate, and the check that misses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier import Purifier
from purifier.attacks import PGD, Aware, Blind, ThreatModel
from purifier.data.sets import LabelledImages
from purifier.evaluation import Evaluation, EvaluationSettings, evaluate, labelled_images, write_report
from purifier.evaluation.detected import area_under_roc, limit_at
from tests.scenes import COLOURS, class_folders

EPS = 8 / 255
CHECK = "detector judged by unaware attacks"


class Smoothed(nn.Module):
    """Says which channel is the strongest in a blurred image, and can be fooled by fine patterns."""

    classes = COLOURS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 16, 3, padding=1)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        texture = self.features(images).relu().mean((2, 3))
        return 30 * (F.avg_pool2d(images, 8).mean((2, 3)).flip(1) + 0.4 * texture[:, :3])


@pytest.fixture
def data(tmp_path: Path) -> LabelledImages:
    return labelled_images(class_folders(tmp_path / "data", each=8, size=32), 32, classes=COLOURS)


def measured(data: LabelledImages, out: Path, **threats: ThreatModel) -> Evaluation:
    return evaluate(
        Smoothed(), data, purifiers={name: Purifier.from_pretrained(name) for name in ("alloy-s", "gs")},
        attacks={"PGD": PGD(eps=EPS, steps=10)}, threats=threats, out=out,
        settings=EvaluationSettings(batch_size=8, probe_images=0, pictures=0),
    )  # fmt: skip


def test_scores_are_judged_and_an_attack_that_knows_the_gate_hides(data: LabelledImages, tmp_path: Path) -> None:
    found = measured(data, tmp_path / "out", blind=Blind(), hiding=Aware(gate_weight=3.0))
    rows = {row.threat: row for row in found.detected}
    assert {row.purifier for row in found.detected} == {"alloy-s"} and set(rows) == {"blind", "hiding"}
    assert [(one.purifier, one.reason) for one in found.skipped] == [("gs", "the purifier has no gate to hide from")]
    assert rows["hiding"].knows_gate and not rows["blind"].knows_gate
    assert rows["blind"].images == len(data) == 24
    assert rows["hiding"].area < rows["blind"].area - 0.1
    assert rows["hiding"].detected is not None and rows["blind"].detected is not None
    assert rows["hiding"].detected < rows["blind"].detected
    assert CHECK not in [finding.check for _, finding in found.findings]
    texts = write_report(found, tmp_path / "out")
    for kind in ("html", "markdown"):
        assert "Attack scores" in texts[kind].read_text()
    # A resumed run reads the scores from its records.
    assert measured(data, tmp_path / "out", blind=Blind(), hiding=Aware(gate_weight=3.0)).detected == found.detected


def test_a_detector_that_no_attack_knows_is_named(data: LabelledImages, tmp_path: Path) -> None:
    found = measured(data, tmp_path / "out", blind=Blind())
    assert [(name, one.check) for name, one in found.findings if one.check == CHECK] == [("alloy-s", CHECK)]


def test_few_images_give_no_threshold(tmp_path: Path) -> None:
    few = labelled_images(class_folders(tmp_path / "data", each=2, size=32), 32, classes=COLOURS)
    (row,) = measured(few, tmp_path / "out", blind=Blind()).detected
    assert row.detected is row.hidden is None and 0 <= row.area <= 1


@pytest.mark.parametrize(
    ("attacked", "clean", "expected"),
    [([3, 4], [1, 2], 1), ([1, 2], [3, 4], 0), ([1, 3], [2, 2], 0.5), ([2], [2], 0.5)],
)
def test_the_area_is_the_chance_of_a_higher_score(attacked: Any, clean: Any, expected: float) -> None:
    assert area_under_roc(attacked, clean) == expected


def test_a_share_of_the_clean_scores_is_above_the_limit() -> None:
    scores = [float(number) for number in range(100)]
    assert sum(score > limit_at(scores, 0.05) for score in scores) == 5
    assert limit_at([1.0], 0.05) == 1
