"""Certified accuracy: against the closed form of a linear classifier, resumed, and by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from purifier import InputError, OptionError, Purifier
from purifier.cli import command
from purifier.data.sets import LabelledImages, MaskedImages
from purifier.evaluation import Certification, Evaluation, EvaluationSettings, evaluate, labelled_images, write_report
from purifier.evaluation.certified import RADII
from purifier.evaluation.specs import make_certification
from tests.scenes import class_folders

SIGMA = 0.25
LABELS = (1, 1, 1, 1, 1, 0, 0, 0, 1)
CERTIFICATION = Certification(sigma=SIGMA, draws=400, first_draws=20)


class Brightness(nn.Module):
    """A linear classifier: class 1 above a mean of 1/2. Its distance to the boundary is known."""

    def forward(self, images: Tensor) -> Tensor:
        distance = (images.flatten(1).mean(1) - 0.5) * images[0].numel() ** 0.5
        return torch.stack([-distance, distance], 1)


@pytest.fixture
def data(tmp_path: Path) -> LabelledImages:
    # At distances of 0.14, 0.30, 0.41, 0.63, 0.79, -0.30, -0.63, 0.41 and -0.41; the last two have the wrong label.
    folder = tmp_path / "data"
    folder.mkdir()
    for number, level in enumerate((130, 133, 135, 139, 142, 122, 116, 135, 120)):
        Image.new("RGB", (8, 8), (level,) * 3).save(folder / f"{number}.png")
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"{n}.png,{one}\n" for n, one in enumerate(LABELS)))
    return labelled_images(folder, 8, labels=folder / "labels.csv")


def run(data: Any, out: Path, **options: Any) -> Evaluation:
    settings = EvaluationSettings(probe_images=0)
    given: dict[str, Any] = {"certifications": {"0.25": CERTIFICATION}, "settings": settings, **options}
    return evaluate(Brightness().eval(), data, purifiers={}, attacks={}, threats={}, out=out, **given)


def test_radii_of_a_linear_classifier_are_below_its_distances(data: LabelledImages, tmp_path: Path) -> None:
    (row,) = run(data, tmp_path).certified
    # No certificate exceeds the distance. 400 draws show at most 2.1 sigma = 0.53, and an image at 0.1 may abstain.
    assert (row.purifier, row.images) == ("none", 9) and CERTIFICATION.largest_radius == pytest.approx(0.529, abs=1e-3)
    assert row.certified[0] in (6, 7) and row.certified[3:] == (0, 0)
    assert row.certified[1] <= 6 and row.certified[2] <= 3
    lines = next((tmp_path / "records").glob("certified*")).read_text().splitlines()[1:]
    records = [json.loads(line) for line in lines]
    distances = (data.load(range(9))[0].flatten(1).mean(1) - 0.5).abs() * 192**0.5
    assert all(0 <= one["radius"] <= distances[one["index"]] + 1e-6 for one in records)


def test_a_run_resumes_to_the_same_rows(data: LabelledImages, tmp_path: Path) -> None:
    whole = run(data, tmp_path / "a").certified
    run(data, tmp_path / "b")
    records = next((tmp_path / "b" / "records").glob("certified*"))
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:4]))
    assert run(data, tmp_path / "b").certified == whole
    with pytest.raises(OptionError, match="sigma"):
        run(data, tmp_path / "b", certifications={"0.25": Certification(sigma=0.5, draws=400, first_draws=20)})


def test_the_report_has_the_certified_accuracy_and_says_if_draws_are_few(data: LabelledImages, tmp_path: Path) -> None:
    evaluation = run(data, tmp_path, certifications={"few": Certification(sigma=SIGMA, draws=20)})
    files = write_report(evaluation, tmp_path)
    assert "few draws" in [finding.check for _, finding in evaluation.findings]
    (found,) = json.loads(files["json"].read_text())["certified"]
    assert [one["radius"] for one in found["accuracies"]] == list(RADII) and found["threat"] == "certified"
    assert "## Certified accuracy" in files["markdown"].read_text()
    assert "radius 0.25" in files["html"].read_text()
    enough = run(data, tmp_path / "enough", certifications={"1": Certification(sigma=SIGMA)}).findings
    assert "few draws" not in [finding.check for _, finding in enough]


def test_a_denoiser_is_part_of_the_classifier(data: LabelledImages, tmp_path: Path) -> None:
    jpeg = Purifier.from_pretrained("jpeg")
    rows = evaluate(
        Brightness().eval(), data, purifiers={"jpeg": jpeg}, attacks={}, threats={}, out=tmp_path,
        certifications={"0.25": CERTIFICATION}, settings=EvaluationSettings(probe_images=0),
    ).certified  # fmt: skip
    assert [row.purifier for row in rows] == ["none", "jpeg"]
    assert rows[1].to_dict()["accuracies"][0]["share"] == rows[1].certified[0] / 9


def test_odd_certifications_are_refused(data: LabelledImages, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected certifications as a dict"):
        run(data, tmp_path, certifications=[CERTIFICATION])
    with pytest.raises(InputError, match="only classifiers"):
        run(MaskedImages(root=data.root, files=data.files, size=8, masks=data.files), tmp_path)
    for text, said in (("certified", "sigma=0.25"), ("certified:sigma=0", "sigma > 0"), ("certified:x=1", "'x'")):
        with pytest.raises(OptionError, match=said):
            make_certification(text)
    with pytest.raises(OptionError, match="draws"):
        Certification(sigma=0.1, draws=0)
    assert make_certification("certified:sigma=0.12,draws=50") == Certification(sigma=0.12, draws=50)


def test_the_command_line_certifies(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "data")
    arguments = [
        "evaluate", "--model", "reference:demo", "--data", str(folder), "--images", "2", "--size", "32", "--threat",
        "certified:sigma=0.12,draws=20,first_draws=5", "--purifier", "gs", "--probe-images", "0",
    ]  # fmt: skip
    names = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))[:2]
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{name},0\n" for name in names))
    done = CliRunner().invoke(
        command, [*arguments, "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert "certified accuracy" in done.output and "radius 0.5" in done.output
