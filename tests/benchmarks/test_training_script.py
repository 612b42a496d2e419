"""Settings on the command line of the training scripts."""

from __future__ import annotations

import pytest
from _training_script import read_changes

from purifier.training.alloy import AlloyTraining


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
