"""Settings: their checks, the learning rate, and names of earlier versions."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from purifier import OptionError
from purifier.training.alloy import AlloyTraining
from purifier.training.gad import GADTraining
from purifier.training.ncis import NCISTraining
from purifier.training.nrp import NRPTraining
from purifier.training.settings import LoopConfig, PhotographTraining


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "expected steps to be an integer of at least 1, got 0"),
        ({"steps": 3.7}, "expected steps to be an integer"),
        ({"checkpoint_every": 0}, "expected checkpoint_every to be an integer of at least 1, got 0"),
        ({"validate_every": 0}, "expected validate_every to be an integer of at least 1, got 0"),
        ({"seed": -1}, "expected seed to be an integer of at least 0"),
        ({"workers": -1}, "expected workers to be an integer of at least 0"),
        ({"warmup_steps": -1}, "expected warmup_steps to be"),
        ({"learning_rate": -1.0}, "expected a learning_rate above 0, got -1.0"),
        ({"learning_rate": float("nan")}, "expected a learning_rate above 0, got nan"),
        ({"ema_decay": 2.0}, "expected ema_decay to be a number from 0 to 1"),
        ({"precision": "fp16"}, "expected precision as one of auto, no, bf16, got 'fp16'"),
        ({"gradient_norm": float("nan")}, "expected gradient_norm of at least 0"),
        ({"cosine_minutes": -1.0}, "expected cosine_minutes of at least 0"),
        ({"device": "cuda:1"}, "expected device to be auto, cpu or cuda, got 'cuda:1'; choose a GPU by"),
        ({"crop_size": 0}, "expected crop_size to be an integer of at least 1"),
        ({"shrink": 2.0}, "expected shrink to be a number from 0.01 to 1"),
        ({"vary": 1.5}, r"expected vary to be a number from 0\.0 to 1\.0, got 1\.5"),
        ({"validation_every": 1}, "expected validation_every to be an integer of at least 2, got 1"),
        ({"validation_images": 0}, "expected validation_images to be an integer of at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        PhotographTraining(**change)


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        (NRPTraining, "blok", "expected settings of NRPTraining, got 'blok'; did you mean 'blocks'"),
        (NCISTraining, "unrol", "expected settings of NCISTraining, got 'unrol'; did you mean 'unroll'"),
        (AlloyTraining, "belief_weight", "got 'belief_weight'; did you mean 'prediction_weight'?"),
        *(
            (AlloyTraining, name, f"got {name!r}; this setting was removed, because")
            for name in ("network", "adversarial_weight", "aware_share", "unroll", "head_start", "start")
        ),
    ],
)
def test_unknown_and_removed_settings_are_refused(settings: type[LoopConfig], name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        settings(**{name: 1})


@pytest.mark.parametrize("settings", [AlloyTraining, GADTraining, NCISTraining, NRPTraining])
def test_settings_can_be_copied_and_pickled(settings: type[LoopConfig]) -> None:
    config = settings(steps=7)
    assert replace(config) == copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config


def test_a_changed_copy_is_checked() -> None:
    with pytest.raises(OptionError, match="expected steps"):
        replace(LoopConfig(), steps=0)


def test_the_learning_rate_falls_with_the_steps_or_the_clock_whichever_is_ahead() -> None:
    by_steps = LoopConfig(steps=1100, warmup_steps=100, learning_rate=1.0)
    by_clock = replace(by_steps, cosine_minutes=10.0)
    assert by_steps.learning_rate_at(600, seconds=590.0) == pytest.approx(0.5)
    for step, seconds, rate in (
        (600, 60.0, 0.5),
        (200, 300.0, 0.5),
        (200, 600.0, 0.0),
        (1100, 0.0, 0.0),
        (49, 600.0, 0.5),
    ):
        assert by_clock.learning_rate_at(step, seconds) == pytest.approx(rate)


def test_one_folder_may_be_given_as_text_or_path(tmp_path: Path) -> None:
    for data in (str(tmp_path), tmp_path):
        assert PhotographTraining(data=data).data == (str(tmp_path),)  # type: ignore[arg-type]
