"""purifier evaluate: files, resumed runs, and errors that tell what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from purifier import OptionError, PurifierError
from purifier.cli import command, main
from purifier.commands._model_options import build_purifiers
from tests.builders import stand_in
from tests.scenes import class_folders, mask_folders

SCENES = Path(__file__).parents[1] / "scenes.py"
QUICK = ["--device", "cpu", "--batch-size", "6", "--size", "16"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data")


def evaluate(*arguments: object, model: str = "colours") -> Result:
    return CliRunner().invoke(
        command, ["evaluate", "--model", f"{SCENES}:{model}", *QUICK, *map(str, arguments)], catch_exceptions=True
    )


def test_a_report_of_every_cell_is_written_and_printed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = [
        "--purifier",
        "gs:iterations=1",
        "--attack",
        "PGD:steps=2",
        "--attack",
        "FGSM:eps=0.02",
        "--eps",
        "4/255",
    ]
    result = evaluate(
        "--data", folder, "--out", out, *options, "--eps", "8/255", "--eight-bit", "--defend-dtype", "bf16"
    )
    assert result.exit_code == 0, result.output
    stored = json.loads((out / "results.json").read_text())
    keys = {row["settings"].get("attack_key") for row in stored["rows"]}
    assert keys == {None, "PGD:steps=2 eps=4/255", "PGD:steps=2 eps=8/255", "FGSM:eps=0.02"}
    assert {row["threat"] for row in stored["rows"]} == {"none", "blind", "aware"}
    assert {row["dtype"] for row in stored["rows"]} == {"float32", "bfloat16"}
    assert stored["settings"]["model"]["name"] == f"{SCENES}:colours"
    assert "blind" in result.output and "aware" in result.output and f"report: {out / 'report.html'}" in result.output
    assert (out / "table.md").is_file()
    before = {path: path.stat().st_mtime_ns for path in (out / "records").iterdir()}
    again = evaluate(
        "--data", folder, "--out", out, *options, "--eps", "8/255", "--eight-bit", "--defend-dtype", "bf16"
    )
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "records").iterdir()} == before


def test_labels_come_from_a_table_and_surrogates_from_anywhere(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{name}/{i}.png,{name}\n" for name in ("red", "blue") for i in range(3)))
    result = evaluate(
        "--data", folder, "--labels", table, "--images", 4, "--attack", "PGD:steps=1", "--threat", "transfer",
        "--surrogate", f"{SCENES}:colours", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored["settings"]["images"] == 4
    assert stored["settings"]["threats"]["transfer"]["surrogates"] == [f"{SCENES}:colours"]


def test_surrogates_go_with_transfer_and_its_options(folder: Path, tmp_path: Path) -> None:
    surrogates = ["--surrogate", f"{SCENES}:colours", "--surrogate", f"{SCENES}:colours"]
    options = ["--attack", "PGD:steps=1", "--threat", "transfer:average=losses", *surrogates]
    result = evaluate("--data", folder, *options, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored["settings"]["threats"]["transfer:average=losses"]["average"] == "losses"


def test_segmentation_takes_a_folder_of_masks(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path / "data")
    arguments = ["--task", "segmentation", "--data", images, "--size", "0", "--attack", "BIM:steps=2"]
    result = evaluate(*arguments, "--labels", masks, "--out", tmp_path / "out", model="Pixels")
    assert result.exit_code == 0, result.output
    assert "mean_iou" in json.loads((tmp_path / "out" / "results.json").read_text())["rows"][0]["standard"]
    result = evaluate(*arguments, "--out", tmp_path / "other", model="Pixels")
    assert isinstance(result.exception, OptionError)
    assert "expected --labels with the folder of masks for segmentation, got none" in str(result.exception)


def test_the_evaluation_is_compared_with_the_trained_range(folder: Path, tmp_path: Path) -> None:
    arguments = [
        "--data",
        folder,
        "--purifier",
        "gs:iterations=1",
        "--attack",
        "PGD:steps=2",
        "--out",
        tmp_path / "out",
    ]
    result = evaluate(*arguments, "--trained", "gs:iterations=1:eps=1/255,size=224")
    assert result.exit_code == 0, result.output
    assert "self-check outside" in result.output
    result = evaluate(*arguments, "--trained", "gs:iterations=1")
    assert "expected PURIFIER:eps=16/255,size=224 for --trained" in str(result.exception)


def test_a_stand_in_is_reported_under_its_own_name(folder: Path, tmp_path: Path) -> None:
    arguments = ["--data", folder, "--purifier", "soft:iterations=1", "--attack", "PGD:steps=2", "--probe-images", "0"]
    with stand_in(tmp_path / "bundled"):
        result = evaluate(*arguments, "--trained", "soft:iterations=1:eps=1/255", "--out", tmp_path / "out")
        assert set(build_purifiers(["soft+gs:iterations=1"], "cpu", "auto")) == {"gs+gs:iterations=1"}
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {row["purifier"] for row in rows} == {"none", "gs:iterations=1"}
    assert "self-check outside" in result.output and "soft" not in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--attack", "PGD", "--eps", "8"], "write 8/255, not 8"),
        (["--attack", "PDG"], "did you mean 'PGD'"),
        (["--attack", "PGD:step=3"], "did you mean 'steps'"),
        (["--purifier", "ncsi"], "did you mean 'ncis'"),
        (["--purifier", "gs:iteration=3"], "did you mean 'iterations'"),
        (["--threat", "awar"], "did you mean 'aware'"),
        (["--threat", "transfer"], "expected a surrogate"),
        (["--surrogate", "reference:demo"], "expected --threat transfer beside --surrogate"),
        (["--device", "cuda:99"], "expected an available device"),
        (["--defend-dtype", "fp12"], "expected dtype to be"),
        (["--ignore-index", "11"], "expected ignore_index for segmentation only, got it for classification"),
        (["--loss", "cls"], "expected loss for detection only, got it for classification"),
    ],
)
def test_wrong_options_are_refused(folder: Path, tmp_path: Path, arguments: list[str], text: str) -> None:
    result = evaluate("--data", folder, "--out", tmp_path / "out", *arguments)
    assert isinstance(result.exception, PurifierError) and text in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("training", "expected a model in eval mode"),
        ("detached", "expected a model that gives gradients"),
        ("no_model", "to return a model that can be called"),
        ("color", "did you mean 'colours'"),
    ],
)
def test_models_that_cannot_be_evaluated_are_refused(folder: Path, tmp_path: Path, model: str, text: str) -> None:
    result = evaluate("--data", folder, "--attack", "PGD:steps=1", "--out", tmp_path / "out", model=model)
    assert isinstance(result.exception, PurifierError) and text in str(result.exception)


def test_images_that_cannot_be_evaluated_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = evaluate("--data", tmp_path / "empty", "--out", tmp_path / "out")
    assert "expected a folder for each class" in str(result.exception)
    (folder / "zebra").mkdir()
    (folder / "red" / "0.png").rename(folder / "zebra" / "0.png")
    result = evaluate("--data", folder, "--out", tmp_path / "out")
    assert "got 4 folders, of which these match no class: 'zebra'" in str(result.exception)
    (tmp_path / "labels.csv").write_text("file,label\nzebra/0.png,3\n")
    result = evaluate("--data", folder, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "out")
    assert "expected labels within 0..2, as the model has 3 classes, got 3 for zebra/0.png" in str(result.exception)


def test_an_error_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(
            ["evaluate", "--model", "reference:demo", "--data", str(folder), "--attack", "PDG", "--out", str(tmp_path)]
        )
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: expected an attack out of") and error.count("\n") == 1


def test_the_self_checks_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = evaluate(
        "--data", folder, "--out", out, "--purifier", "bit-depth", "--attack", "PGD:steps=2", "--probe-images", "0"
    )
    assert result.exit_code == 0, result.output
    checks = {finding["check"] for finding in json.loads((out / "results.json").read_text())["findings"]}
    assert "quantising purifier" not in checks


def test_results_of_other_settings_are_replaced_with_overwrite(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--data", folder, "--out", out, "--attack", "FGSM", "--probe-images", 0]
    assert evaluate(*options).exit_code == 0
    (out / "records" / "notes.txt").write_text("mine")
    refused = evaluate(*options, "--seed", 5)
    assert isinstance(refused.exception, OptionError)
    assert "seed: 0 there, 5 here); choose another --out, or pass --overwrite" in str(refused.exception)
    assert evaluate(*options, "--seed", 5, "--overwrite").exit_code == 0
    assert json.loads((out / "results.json").read_text())["settings"]["seed"] == 5
    assert (out / "records" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["", "runs/one"])
def test_results_inside_the_images_are_refused(folder: Path, tmp_path: Path, place: str) -> None:
    result = evaluate("--data", folder, "--out", folder / place)
    assert isinstance(result.exception, OptionError)
    assert f"outside the folder of images, {folder}, got {folder / place}" in str(result.exception)
    assert {path.name for path in folder.iterdir()} == {"red", "green", "blue"}
    images, masks = mask_folders(tmp_path / "scenes")
    result = evaluate("--task", "segmentation", "--data", images, "--labels", masks, "--out", images / place)
    assert "outside the folder of images" in str(result.exception)


def test_results_beside_images_that_a_table_lists_are_no_images(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\nred/0.png,red\n")
    result = evaluate("--data", folder, "--labels", folder / "labels.csv", "--out", folder / "run")
    assert result.exit_code == 0, result.output


def test_images_in_the_place_of_the_reports_pictures_are_kept(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pictures")
    before = sorted(folder.rglob("*.png"))
    result = evaluate("--data", folder, "--out", tmp_path, "--overwrite")
    assert isinstance(result.exception, OptionError)
    assert f"outside {folder}, where the report has its pictures, got {folder}" in str(result.exception)
    assert before and sorted(folder.rglob("*.png")) == before


def test_without_an_attack_the_clean_figures_are_printed(folder: Path, tmp_path: Path) -> None:
    result = evaluate("--data", folder, "--out", tmp_path / "out", "--purifier", "gs:iterations=1")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines() if line.startswith("no attack")]
    assert [row[2] for row in rows] == ["none", "gs:iterations=1"]
    assert all(row[3].replace(".", "").isdecimal() and row[4] == "%" for row in rows)
    assert "No attack was measured" in result.output and "Give --attack" in result.output
