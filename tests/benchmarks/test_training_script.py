"""Settings on the command line of the training scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.recipes.training_script import export, joined, read_changes, without_places

from purifier import Purifier
from purifier.training.alloy import AlloyTraining
from tests.builders import small_purifier


def test_a_change_is_read_as_the_type_of_the_field() -> None:
    changes = ["steps=7", "eps=0.5", "clamp=false", "name=mine", "sources=ssp:vgg:0.5:2-3,none:0.5"]
    assert read_changes(AlloyTraining, changes) == {
        "steps": 7,
        "eps": 0.5,
        "clamp": False,
        "name": "mine",
        "sources": ("ssp:vgg:0.5:2-3", "none:0.5"),
    }


def test_a_setting_that_there_is_not_is_refused() -> None:
    with pytest.raises(SystemExit, match="expected KEY=VALUE with a field of AlloyTraining, got 'stops=3'"):
        read_changes(AlloyTraining, ["stops=3"])


def test_what_ships_is_named_after_its_folder_in_half_precision_and_names_no_places(tmp_path: Path) -> None:
    small = small_purifier("alloy")
    small.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "training.yaml").write_text(
        "steps: 5\ndata:\n- /anywhere/kit/photos\ninit: /anywhere/runs/x/alloy\n"
    )
    export(tmp_path / "run", tmp_path / "alloy-s")
    shipped = Purifier.from_pretrained(tmp_path / "alloy-s")
    assert shipped.name == "alloy-s"
    for one, other in zip(small.parameters(), shipped.parameters(), strict=True):
        torch.testing.assert_close(one.half().float(), other.float(), rtol=0, atol=0)
    assert (tmp_path / "alloy-s" / "training.yaml").read_text() == "steps: 5\ndata:\n- kit/photos\ninit: x/alloy\n"


def test_of_several_processes_only_the_first_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    export(tmp_path / "not-yet-there", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_names_and_relative_paths_stay() -> None:
    text = "init: nrp-resg\nextractors:\n- vgg=benchmarks.recipes.extractors:feature_extractor:0.5\ndata: photos/a\nrate: 1/2\n"
    assert without_places(text) == text


def test_trainings_that_went_on_from_one_another_are_joined() -> None:
    first = {"settings": {"steps": 4}, "history": [{"step": 2, "clean": 0.1}, {"step": 4, "clean": 0.2}], "seconds": 5}
    then = {"settings": {"steps": 3}, "history": [{"step": 3, "clean": 0.3}], "seconds": 2}
    assert joined(first, then) == {
        "settings": [{"steps": 4}, {"steps": 3}],
        "history": [{"step": 2, "clean": 0.1}, {"step": 4, "clean": 0.2}, {"step": 7, "clean": 0.3}],
        "seconds": 7,
    }
