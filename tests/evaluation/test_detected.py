"""Attack scores in evaluations: rates, attackers who hide from the gate, and the check that misses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from purifier import Purifier, reference_model
from purifier.attacks import PGD, Aware, Blind, ThreatModel
from purifier.data.sets import LabelledImages
from purifier.evaluation import Evaluation, EvaluationSettings, evaluate, labelled_images, write_report
from purifier.evaluation.detected import area_under_roc, limit_at

CHECK = "detector judged by unaware attacks"


def pictures(folder: Path, count: int) -> LabelledImages:
    """Smooth pictures with a little noise, whose scores differ, and the demo model's labels for them."""
    folder.mkdir()
    model, lines = reference_model("demo").eval(), ["file,label"]
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = torch.from_numpy(random.integers(60, 190, (1, 3, 4, 4)).astype(np.float32))
        smooth = F.interpolate(coarse, (48, 48), mode="bicubic")[0].round().numpy()
        noise = (random.random(smooth.shape) < 0.2) * random.choice([-1, 1], smooth.shape)
        values = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        Image.fromarray(values.transpose(1, 2, 0)).save(folder / f"{number:02}.png")
        with torch.no_grad():
            label = int(model(torch.from_numpy(values)[None] / 255).argmax())
        lines.append(f"{number:02}.png,{label}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return labelled_images(folder, 48, labels=folder / "labels.csv")


def measured(data: LabelledImages, out: Path, **threats: ThreatModel) -> Evaluation:
    return evaluate(
        reference_model("demo").eval(), data,
        purifiers={name: Purifier.from_pretrained(name) for name in ("alloy-s", "gs")},
        attacks={"PGD": PGD(eps=8 / 255, steps=10)}, threats=threats, out=out,
        settings=EvaluationSettings(batch_size=8, probe_images=0, pictures=0),
    )  # fmt: skip


def test_scores_are_judged_and_an_attack_that_knows_the_gate_hides(tmp_path: Path) -> None:
    data, threats = pictures(tmp_path / "data", 24), {"blind": Blind(), "hiding": Aware(gate_weight=1.0)}
    found = measured(data, tmp_path / "out", **threats)
    rows = {row.threat: row for row in found.detected}
    assert {row.purifier for row in found.detected} == {"alloy-s"} and set(rows) == {"blind", "hiding"}
    assert [(one.purifier, one.reason) for one in found.skipped] == [("gs", "the purifier has no gate to hide from")]
    assert rows["hiding"].knows_gate and not rows["blind"].knows_gate and rows["blind"].images == 24
    assert rows["blind"].area > 0.95 and rows["blind"].detected == 24 and rows["blind"].hidden == 0
    assert rows["hiding"].area < 0.5 and rows["hiding"].detected == 0 and (rows["hiding"].hidden or 0) > 20
    assert CHECK not in [finding.check for _, finding in found.findings]
    texts = write_report(found, tmp_path / "out")
    for kind in ("html", "markdown"):
        assert "Attack scores" in texts[kind].read_text()
    # A resumed run reads the scores from its records.
    assert measured(data, tmp_path / "out", **threats).detected == found.detected


def test_a_detector_that_no_attack_knows_is_named_and_few_images_give_no_threshold(tmp_path: Path) -> None:
    found = measured(pictures(tmp_path / "data", 6), tmp_path / "out", blind=Blind())
    assert [(name, one.check) for name, one in found.findings if one.check == CHECK] == [("alloy-s", CHECK)]
    (row,) = found.detected
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
