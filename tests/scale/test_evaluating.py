"""Evaluations on Ray: the records and pictures of one process, resumed, also by the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from torch import nn

from purifier import OptionError, Purifier, reference_model
from purifier.attacks import PGD, Aware, Blind
from purifier.cli import command
from purifier.evaluation import Evaluation, EvaluationSettings, LabelledImages, evaluate, labelled_images
from purifier.scale import OnRay, Workers
from tests.scenes import COLOURS, class_folders

ray = pytest.importorskip("ray", reason="needs ray, of the extra scale")
pytestmark = [
    pytest.mark.slow,
    # What Ray says of its own code.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def address(cluster: Any) -> str:
    found: str = cluster.address
    return found


@pytest.fixture
def data(tmp_path: Path) -> LabelledImages:
    return labelled_images(class_folders(tmp_path / "data"), 32, classes=COLOURS)


def run(data: LabelledImages, out: Path, model: Any = None, **options: Any) -> Evaluation:
    return evaluate(
        reference_model("demo") if model is None else model,
        data,
        purifiers={"gs": Purifier.from_pretrained("gs"), "resize-pad": Purifier.from_pretrained("resize-pad")},
        attacks={"PGD": PGD(eps=8 / 255, steps=2)},
        threats={"blind": Blind(), "aware": Aware()},
        out=out,
        settings=EvaluationSettings(batch_size=5, pictures=2, probe_images=0),
        **options,
    )


def contents(out: Path) -> dict[str, Any]:
    """Returns what the files of an evaluation hold, without the times."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else []
        records = [{k: v for k, v in json.loads(line).items() if k != "milliseconds"} for line in lines]
        found[str(path.relative_to(out))] = records or path.read_bytes()
    return found


def without_times(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [{**row.to_dict(), "milliseconds": None} for row in evaluation.rows]


def test_workers_measure_what_one_process_does(address: str, data: LabelledImages, tmp_path: Path) -> None:
    here = run(data, tmp_path / "here")
    counts: list[int] = []
    there = run(data, tmp_path / "there", engine=OnRay(address, Workers(least=2)), progress=counts.append)
    assert without_times(here) == without_times(there) and sum(counts) == 4 * len(data)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_a_model_that_cannot_be_sent_is_refused(address: str, data: LabelledImages, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected a model and data that can be pickled for the workers"):
        run(data, tmp_path / "other", Unsent().eval(), engine=OnRay(address))


class Unsent(nn.Module):
    """A model that holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.model = reference_model("demo")
        self.held = (number for number in range(3))

    def forward(self, images: Any) -> Any:
        return self.model(images)


def test_the_command_line_resumes_on_ray(address: str, tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "data")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))[:4]
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\n" + "".join(f"{path},{number}\n" for number, path in enumerate(files)))
    arguments = [
        "evaluate", "--model", "reference:demo", "--data", str(folder), "--labels", str(labels), "--size", "32",
        "--threat", "blind", "--attack", "PGD:steps=1", "--purifier", "gs", "--probe-images", "0", "--out",
    ]  # fmt: skip
    here = CliRunner().invoke(command, [*arguments, str(tmp_path / "here")])
    assert here.exit_code == 0, here.output
    # What a killed run left: some records of every cell.
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    for cut in (tmp_path / "there" / "records").iterdir():
        cut.write_text("".join(cut.read_text().splitlines(keepends=True)[:3]))
    assert contents(tmp_path / "here" / "records") != contents(tmp_path / "there" / "records")
    there = CliRunner().invoke(
        command, [*arguments, str(tmp_path / "there"), "--engine", "ray", "--address", address, "--workers", "1"]
    )
    assert there.exit_code == 0, there.output
    assert contents(tmp_path / "here" / "records") == contents(tmp_path / "there" / "records")
    refused = CliRunner().invoke(command, [*arguments, str(tmp_path / "no"), "--workers", "2"])
    assert refused.exit_code != 0 and not (tmp_path / "no").exists()
