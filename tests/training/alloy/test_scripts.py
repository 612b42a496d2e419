"""benchmarks/recipes/train_alloy.py, alloy_ablation.py and alloy_judge.py, at small size and on the CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from purifier import Purifier
from purifier.methods.alloy import Alloy
from purifier.training.alloy.config import read_extractors, read_sources
from tests.methods.test_alloy import SIZES

SMALL = {
    "device": "cpu",
    "precision": "no",
    "compile": "false",
    "workers": 0,
    "patch": 1,
    "filters": 4,
    "blocks": 1,
    "levels": 1,
    "crop_size": 32,
    "batch_size": 2,
    "steps": 2,
    "validate_every": 2,
    "validation_images": 1,
}


@pytest.fixture
def script(small_kit: Path) -> ModuleType:
    from benchmarks.recipes import train_alloy

    return train_alloy


@pytest.fixture
def judge(small_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    from benchmarks import kit as _kit
    from benchmarks.recipes import alloy_figures as _alloy_judge

    monkeypatch.setattr(_kit, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(_alloy_judge, "SIDE", 40)
    return _alloy_judge


@pytest.fixture
def ablation(judge: ModuleType, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    from benchmarks.recipes import alloy_ablation

    monkeypatch.setattr(alloy_ablation, "environment", lambda: {"torch": torch.__version__})
    monkeypatch.setattr(alloy_ablation, "RESULTS", tmp_path / "results")
    return alloy_ablation


def call(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *arguments: object, **changes: object) -> None:
    sets = [text for key, value in {**SMALL, **changes}.items() for text in ("--set", f"{key}={value}")]
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments), *sets])
    module.main()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["alloy-cpu", "alloy-s-cpu", "alloy-gpu", "alloy-s-gpu"])
def test_every_preset_trains(preset: str, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, script, preset, "--out", tmp_path / "runs")
    name = preset.removesuffix("-cpu").removesuffix("-gpu")
    assert Purifier.from_pretrained(tmp_path / "runs" / preset / name).name == name


@pytest.mark.slow
def test_a_gate_is_trained_for_weights_that_have_none(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = tmp_path / "free"
    Purifier(
        Alloy(**{key: SMALL[key] for key in ("patch", "filters", "blocks", "levels")}), name="free"
    ).save_pretrained(free)
    call(monkeypatch, script, "alloy-gate", "--init", free, "--out", tmp_path / "runs", gate=2)
    gated = Purifier.from_pretrained(tmp_path / "runs" / "alloy-gate" / "alloy").method.state_dict()
    known = Purifier.from_pretrained(free).method.state_dict()
    assert all(torch.equal(gated[name], value) for name, value in known.items())
    assert gated.keys() > known.keys()


def test_weights_are_exported_in_half_precision(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = "ssp:vgg:0.5:1,none:0.5"
    to = tmp_path / "alloy-s"
    call(monkeypatch, script, "alloy-s-cpu", "--out", tmp_path / "runs", "--export", to, sources=sources)
    full, half = (Purifier.from_pretrained(tmp_path / name) for name in ("runs/alloy-s-cpu/alloy-s", "alloy-s"))
    assert half.name == "alloy-s"
    for a, b in zip(full.parameters(), half.parameters(), strict=True):
        assert a.half().float().equal(b)
    card = (tmp_path / "alloy-s" / "README.md").read_text()
    assert "- sources: ('ssp:vgg:0.5:1', 'none:0.5')\n" in card


def test_an_unknown_setting_is_refused(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="with a field of AlloyTraining, got 'blok=3'"):
        call(monkeypatch, script, "alloy-cpu", blok=3)


def test_the_presets_are_of_the_two_sizes_and_read_no_evaluation_image(script: ModuleType, small_kit: Path) -> None:
    for preset in script.PRESETS:
        config = script.settings(preset, [], init="runs/free" if preset.endswith("gate") else "")
        # Trained behind one pass of GS, whatever is before it in use.
        options = {**SIZES[config.name][0], "blur": 1}
        if preset.endswith("-gpu"):
            # The network alone.
            options["gate"] = 0
        assert options == {key: getattr(config, key) for key in options}
        assert set(config.data) == {str(small_kit / "photos"), str(small_kit / "objects/train")}
        assert config.labelled == ""
        assert "resnet" not in str(config.extractors)


@pytest.mark.parametrize("size", [16, 17])
def test_the_centre_is_a_quarter_of_the_crop(script: ModuleType, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import kit as _kit

    monkeypatch.setattr(_kit, "feature_extractor", torch.nn.Identity)
    images = torch.rand(1, 3, size, size)
    seen = slice(4, 4 + (size + 1) // 2)
    assert torch.equal(_kit.centre_extractor()(images), images[..., seen, seen])


@pytest.mark.slow
def test_ablations_are_run_once_and_judged_by_every_extractor(
    ablation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("base", "without-mobilenet", "features-only")
    arguments = (*names, "--work", tmp_path / "work", "--images", 2)
    changes = {"validation_every": 2}
    call(monkeypatch, ablation, *arguments, **changes)
    result = json.loads((tmp_path / "results" / "alloy_ablation.json").read_text())
    assert list(result["runs"]) == list(names) and "data" not in result["settings"]
    for run in result["runs"].values():
        assert list(run["rows"]) == ["k=1", "k=2"]
        for row in run["rows"].values():
            assert set(row) == {
                "psnr", "left vgg", "left mobilenet", "left demo", "left deeplab",
                "standard mobilenet", "standard demo", "robust mobilenet", "robust demo", "mean",
            }  # fmt: skip
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in printed if line.startswith("| ")] == [
        "| ablation", "| no purifier", "| gs", "| ncis", *(f"| {name}" for name in names),
    ]  # fmt: skip

    monkeypatch.setattr(ablation, "train", lambda *_: pytest.fail("trained again"))
    call(monkeypatch, ablation, *arguments, **changes)
    assert json.loads((tmp_path / "results" / "alloy_ablation.json").read_text()) == result
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        call(monkeypatch, ablation, *arguments, **changes, pixel_weight=2)


def test_earlier_ablations_of_the_same_settings_stay_in_the_order_of_the_list(ablation: ModuleType) -> None:
    # The earlier result is of a time without gates.
    stated = {"settings": {"steps": 250, "gate": 0}, "images": 96}
    earlier = {
        "settings": {"steps": 250},
        "images": 96,
        "runs": {"base": {"seconds": 1}, "no-kl": {"seconds": 1}, "forgotten": {"seconds": 1}},
    }
    runs = {"no-kl": {"seconds": 2}, "seed-1": {"seconds": 2}}
    found = ablation.with_earlier(runs, stated, earlier)
    assert list(found.items()) == [("base", {"seconds": 1}), ("seed-1", {"seconds": 2}), ("no-kl", {"seconds": 2})]
    for other in ({}, {**earlier, "images": 32}, {**earlier, "settings": {"steps": 250, "gate": 8}}):
        assert ablation.with_earlier(runs, stated, other) == runs


def test_without_a_purifier_everything_is_left(judge: ModuleType, script: ModuleType) -> None:
    base = script.settings("alloy-s-cpu", ["validation_every=2"])
    assert judge.held_out(base, 2).shape == (2, 3, 40, 40)
    judges = judge.judges_of(base, 2)
    row = judge.unpurified(judges)
    assert [row[f"left {name}"] for name in ("vgg", "mobilenet", "demo", "deeplab")] == [1] * 4
    assert row["standard demo"] == row["standard mobilenet"] == 1
    assert row["robust demo"] == 0
    assert "psnr" not in row
    assert all(one.damage > 0 for one in judges)
    # Attacks undone.
    images = judges[0].images
    assert judges[0].figures(lambda x: images, images)["left vgg"] == 0


@pytest.mark.slow
def test_trained_weights_are_judged_by_name(
    judge: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.recipes import alloy_judge

    Purifier(Alloy(patch=1, filters=4, blocks=1), name="small").save_pretrained(tmp_path / "small")
    monkeypatch.setattr(sys, "argv", ["script", f"small={tmp_path / 'small'}", "--images", "2"])
    monkeypatch.setattr(alloy_judge, "environment", lambda: {"torch": torch.__version__})
    alloy_judge.main()
    result = json.loads((tmp_path / "results" / "alloy_judge.json").read_text())
    assert list(result["rows"]) == ["no purifier", "small"] and list(result["weights"]) == ["small"]
    assert list(result["rows"]["small"]) == ["k=1", "k=2", "k=3"]
    shown = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert shown == [["| purifier", "k"], ["| no purifier", "0"], *(["| small", str(k)] for k in (1, 2, 3))]


def test_held_out_images_are_those_that_no_training_sees(ablation: ModuleType, script: ModuleType) -> None:
    for change in ablation.ABLATIONS.values():
        base = script.settings("alloy-s-cpu", ["validation_every=2"])
        crops, paths = ablation.replace(base, **change(base)).crops_and_validation()
        assert not set(crops.paths) & set(paths)
        assert paths == base.crops_and_validation()[1]


def test_every_ablation_changes_something_that_can_be_read(ablation: ModuleType) -> None:
    base = ablation.base_settings("alloy-s-cpu", 300, [], "runs/noise")
    for name, change in ablation.ABLATIONS.items():
        config = ablation.replace(base, **change(base))
        assert (config == base) == (name == "base")
        names = {line.name for line in read_extractors(config.extractors)}
        assert {line.extractor for line in read_sources(config.sources)} <= {"", *names}


def test_sources_and_extractors_are_left_out_by_name(ablation: ModuleType, script: ModuleType) -> None:
    base = script.settings("alloy-s-cpu", [])
    assert [line.kind for line in read_sources(ablation.drop_sources(base, "ssp", "none"))] == [
        "kl", "kl", "gaussian", "sign",
    ]  # fmt: skip
    assert "ssp:mobilenet:0.18:2-4" in ablation.drop_sources(base, "ssp", extractor="vgg")
    alone = ablation.keep_extractors(base, "vgg", "centre")
    assert [line.name for line in read_extractors(alone["extractors"])] == ["vgg", "centre"]
    assert alone["sources"] == ("ssp:vgg:0.20:2", "gaussian:0.04", "sign:0.06", "none:0.17")
    assert ablation.leave_out(base, "mobilenet", "demo") == alone
    replaced = ablation.replace_extractor(base, "demo", "demo=reference:demo:1")["extractors"]
    assert replaced == (*base.extractors[:-1], "demo=reference:demo:1")
    assert all(line.weight == 0 for line in read_extractors(ablation.weightless(base)["extractors"]))
    lines = read_sources(ablation.noise(base, 0.4)["sources"])
    noise = sum(line.share for line in lines if line.kind in ("gaussian", "sign"))
    assert noise / sum(line.share for line in lines) == pytest.approx(0.4, abs=1e-3)


def test_an_unknown_ablation_is_refused(ablation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"expected names out of base, .* got bass"):
        call(monkeypatch, ablation, "bass")
