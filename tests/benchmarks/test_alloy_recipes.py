"""How alloy was made: its judges, its ablations, the mean of networks, and the settings files of all recipes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import nn

from benchmarks.recipes import alloy_ablation, alloy_judge, changed_judge, extractors
from benchmarks.recipes.ship import ship, without_places
from purifier import Purifier
from purifier.commands.train import command
from purifier.methods.alloy import Alloy
from purifier.training.extractors import read_extractors
from purifier.training.perturbations import read_sources
from purifier.training.settings import PhotographTraining
from tests.builders import small_purifier
from tests.scenes import class_folders

RECIPES = Path(alloy_ablation.__file__).parent
FILES = sorted(RECIPES.glob("*.yaml"))
NETWORKS = ("vgg", "mobilenet", "demo", "deeplab")
SMALL = {
    "device": "cpu", "precision": "no", "workers": 0, "filters": 4, "blocks": 1, "crop_size": 32, "batch_size": 2,
    "steps": 2, "validate_every": 2, "validation_every": 2, "validation_images": 1,
}  # fmt: skip


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    script.main()


def train(method: str, config: Path, kit: Path, out: Path, **changes: object) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in {**SMALL, **changes}.items()]
    data = [f"--data={kit / name}" for name in ("photos", "objects/train")]
    done = CliRunner().invoke(command, [method, f"--config={config}", f"--out={out}", *data, *options])
    assert done.exit_code == 0, done.output


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", [path for path in FILES if not path.name.startswith(("gad", "bank"))], ids=lambda file: file.stem
)
def test_every_settings_file_trains(file: Path, small_kit: Path, tmp_path: Path) -> None:
    method = file.name.split("-")[0].removesuffix(".yaml").replace("smooth", "denoiser")
    values = yaml.safe_load(file.read_text())
    if "lite" in str(values.get("extractors")):
        pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra [judges]")
    smaller = {"alloy": {"levels": 1}, "denoiser": {"levels": 1}}.get(method, {"attack_steps": 1})
    # A network that starts from a shipped one has its size.
    same = {name: values.get(name) for name in ("filters", "blocks")}
    train(method, file, small_kit, tmp_path / "run", **(same if values.get("init") else smaller))
    name = values.get("name", values.get("network"))
    assert Purifier.from_pretrained(tmp_path / "run" / name).name == name


@pytest.mark.slow
# Three steps on two pictures of each class prove nothing about overfitting.
@pytest.mark.filterwarnings("ignore:the training has overfitted to its attack")
@pytest.mark.filterwarnings("ignore:without a purifier the model scores")
@pytest.mark.parametrize("file", sorted(RECIPES.glob("gad-aware*.yaml")), ids=lambda file: file.stem)
def test_every_settings_file_against_aware_attackers_trains(file: Path, tmp_path: Path) -> None:
    for made, known in zip(class_folders(tmp_path / "colours").iterdir(), ("cat", "dog", "cow"), strict=True):
        made.rename(tmp_path / "colours" / known)
    smaller = {
        "steps": 3, "batch_size": 4, "size": 32, "filters": 4, "blocks": 1, "precision": "no", "device": "cpu",
        "validation_every": 2, "validation_images": 2, "validate_every": 3, "checkpoint_every": 3,
    }  # fmt: skip
    values = yaml.safe_load(file.read_text())
    if values.get("init"):
        smaller |= {"filters": values["filters"], "blocks": values["blocks"], "init": "gad-cifar10-resnet20-aware"}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in smaller.items()]
    fixed, out = ["--model=reference:demo", f"--data={tmp_path / 'colours'}"], tmp_path / "run"
    done = CliRunner().invoke(command, ["gad", *fixed, f"--config={file}", f"--out={out}", *options])
    assert done.exit_code == 0, done.output
    trained = Purifier.from_pretrained(out / "gad")
    assert trained.method.options["patch"] == values.get("patch", 2)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_settings_file_reads_an_evaluation_image(file: Path) -> None:
    values = yaml.safe_load(file.read_text())
    assert not {"data", "labelled", "masks", "annotations"} & values.keys()
    networks = str(values.get("extractors")) + str(values.get("networks"))
    assert "resnet" not in networks
    assert "lite2" not in networks


@pytest.mark.parametrize("size", [16, 17])
def test_the_centre_is_a_quarter_of_the_crop(small_kit: Path, size: int) -> None:
    images = torch.rand(1, 3, size, size)
    seen = slice(4, 4 + (size + 1) // 2)
    expected = extractors.feature_extractor()(images[..., seen, seen])
    torch.testing.assert_close(extractors.centre_extractor()(images), expected)


def test_without_a_purifier_everything_is_left(small_kit: Path) -> None:
    base = PhotographTraining(data=(str(small_kit / "photos"), str(small_kit / "objects/train")), validation_every=2)
    assert alloy_judge.held_out(base, 2).shape == (2, 3, 160, 160)
    judges = alloy_judge.judges_of(base, 2)
    row = alloy_judge.unpurified(judges)
    assert [row[f"left {name}"] for name in NETWORKS] == [1] * 4
    assert row["standard demo"] == row["standard mobilenet"] == 1 and row["robust demo"] == 0
    assert "psnr" not in row and all(one.damage > 0 for one in judges)
    # A purifier that restores the clean images leaves nothing.
    images = judges[0].images
    assert judges[0].figures(lambda x: images, images)["left vgg"] == 0


@pytest.mark.slow
def test_trained_weights_are_compared_by_name(
    small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Purifier(Alloy(patch=1, filters=4, blocks=1), name="small").save_pretrained(results / "small")
    run(alloy_judge, monkeypatch, f"small={results / 'small'}", "--images", 1)
    result = json.loads((results / "alloy_judge.json").read_text())
    assert list(result["rows"]) == ["no purifier", "small"] and list(result["weights"]) == ["small"]
    assert list(result["rows"]["small"]) == ["k=1", "k=2", "k=3"]
    shown = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert shown == [["| purifier", "k"], ["| no purifier", "0"], *(["| small", str(k)] for k in (1, 2, 3))]


def test_changed_images_count_as_right_where_the_class_is_that_of_the_clean_image() -> None:
    images = torch.stack([torch.full((3, 16, 16), value) for value in (0.1, 0.2, 0.9, 0.8)])
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        network[2].weight.copy_(torch.tensor([[-1.0] * 3, [1.0] * 3]))
        network[2].bias.copy_(torch.tensor([1.5, -1.5]))
    kept = changed_judge.shares(lambda x: x, network, images, {"inverted": 1 - images})
    undone = changed_judge.shares(lambda x: 1 - x, network, images, {"inverted": 1 - images})
    columns = len(changed_judge.changes())
    assert kept == [["clean", *["100.0"] * columns], ["inverted", *["0.0"] * columns]]
    assert undone == [["clean", *["0.0"] * columns], ["inverted", *["100.0"] * columns]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The settings of the ablations, made small."""
    values = yaml.safe_load(alloy_ablation.BASE.read_text())
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**values, **SMALL, "levels": 1, "patch": 1}))
    return tmp_path / "small.yaml"


@pytest.mark.slow
def test_finished_ablations_are_kept_until_their_settings_change(
    config: Path, small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("base", "without-mobilenet", "features-only")
    run(alloy_ablation, monkeypatch, *names, "--config", config, "--images", 1)
    result = json.loads((results / "alloy_ablation_some.json").read_text())
    assert list(result["runs"]) == list(names) and "data" not in result["settings"]
    for one in result["runs"].values():
        assert list(one["rows"]) == ["k=1", "k=2"]
        assert set(one["rows"]["k=1"]) == {
            "psnr", "mean", *(f"left {name}" for name in NETWORKS),
            *(f"{kind} {name}" for kind in ("standard", "robust") for name in ("mobilenet", "demo")),
        }  # fmt: skip
    printed = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert printed == ["| ablation", "| no purifier", "| gs", "| ncis", *(f"| {name}" for name in names)]

    work = Path("runs/alloy_ablation")
    trained = {name: (work / name / "checkpoint.pt").stat().st_mtime_ns for name in names}
    run(alloy_ablation, monkeypatch, *names, "--config", config, "--images", 1)
    assert {name: (work / name / "checkpoint.pt").stat().st_mtime_ns for name in names} == trained
    assert json.loads((results / "alloy_ablation_some.json").read_text())["runs"] == result["runs"]


def test_held_out_images_are_those_that_no_training_sees(config: Path, small_kit: Path) -> None:
    base = alloy_ablation.base_settings(config, "")
    for change in alloy_ablation.ABLATIONS.values():
        crops, paths = replace(base, **change(base)).crops_and_validation()
        assert not set(crops.paths) & set(paths)
        assert paths == base.crops_and_validation()[1]


def test_every_ablation_changes_something_that_can_be_read(small_kit: Path) -> None:
    base = alloy_ablation.base_settings(alloy_ablation.BASE, "runs/noise")
    for name, change in alloy_ablation.ABLATIONS.items():
        changed = replace(base, **change(base))
        assert (changed == base) == (name == "base")
        names = {line.name for line in read_extractors(changed.extractors)}
        assert {line.extractor for line in read_sources(changed.sources)} <= {"", *names}
        sizes = ("patch", "filters", "blocks", "levels")
        assert changed.init or any(getattr(changed, key) != getattr(base, key) for key in sizes) or "start" in name


def test_sources_and_extractors_are_left_out_by_name(small_kit: Path) -> None:
    base = alloy_ablation.base_settings(alloy_ablation.BASE, "")
    left = alloy_ablation.drop_sources(base, "ssp", "none")["sources"]
    assert [line.kind for line in read_sources(left)] == ["kl", "kl", "gaussian", "sign"]
    alone = alloy_ablation.keep_extractors(base, "vgg", "centre")
    assert [line.name for line in read_extractors(alone["extractors"])] == ["vgg", "centre"]
    assert alone["sources"] == ("ssp:vgg:0.20:2", "gaussian:0.04", "sign:0.06", "none:0.17")
    assert alloy_ablation.leave_out(base, "mobilenet", "demo") == alone
    weights = read_extractors(alloy_ablation.attacked_only(base)["extractors"])
    assert all(line.weight == 0 for line in weights)


def test_an_ablation_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"expected names out of base, .* got bass"):
        run(alloy_ablation, monkeypatch, "bass")


def test_what_ships_is_named_after_its_folder_in_half_precision_and_names_no_places(tmp_path: Path) -> None:
    small = small_purifier("alloy")
    small.save_pretrained(tmp_path / "run")
    settings = "steps: 5\ndata:\n- /anywhere/kit/photos\ninit: /anywhere/runs/x/alloy\n"
    (tmp_path / "run" / "training.yaml").write_text(settings)
    ship(tmp_path / "run", tmp_path / "alloy-s")
    shipped = Purifier.from_pretrained(tmp_path / "alloy-s")
    assert shipped.name == "alloy-s"
    for one, other in zip(small.parameters(), shipped.parameters(), strict=True):
        torch.testing.assert_close(one.half().float(), other.float(), rtol=0, atol=0)
    assert (tmp_path / "alloy-s" / "training.yaml").read_text() == "steps: 5\ndata:\n- kit/photos\ninit: x/alloy\n"


def test_names_and_relative_paths_stay() -> None:
    text = "init: nrp-resg\nextractors:\n- vgg=benchmarks.recipes.extractors:deeplab:0.5\ndata: photos/a\nrate: 1/2\n"
    assert without_places(text) == text
