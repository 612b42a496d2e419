"""Evaluations refuse arguments of other types before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from purifier import InputError, OptionError, Purifier
from purifier.attacks import FGSM, Blind
from purifier.evaluation import EvaluationSettings, evaluate, labelled_images
from tests.scenes import COLOURS, Colours, class_folders


@pytest.mark.parametrize("name", ["batch_size", "pictures", "probe_images", "seed", "eight_bit", "defend_dtypes"])
@pytest.mark.parametrize("value", ["x", 1.5, None, -1, object()])
def test_settings_of_other_types_are_refused(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"expected {name}"):
        EvaluationSettings(**{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": 5}, "expected a model or a function of images, got 5"),
        ({"purifiers": ["gs"]}, r"expected purifiers as a dict from names to Purifier, got \['gs'\]"),
        ({"purifiers": {"gs": "gs"}}, "dict from names to Purifier, got 'gs': 'gs'"),
        ({"attacks": {"FGSM": FGSM}}, "dict from names to Attack or Attacked, got 'FGSM'"),
        ({"attacks": {3: FGSM(eps=0.1)}}, "dict from names to Attack or Attacked, got 3: "),
        ({"threats": {"blind": "blind"}}, "dict from names to ThreatModel, got 'blind': 'blind'"),
        ({"settings": {"seed": 1}}, "expected settings as EvaluationSettings, got"),
        ({"out": 5}, "expected the path of a folder for the results, got int"),
        ({"data": "folder"}, "expected data of one of the types LabelledImages"),
    ],
)
def test_arguments_of_other_types_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "model": Colours(),
        "data": labelled_images(class_folders(tmp_path / "data", each=1), 16, classes=COLOURS),
        "purifiers": {"gs": Purifier.from_pretrained("gs")},
        "attacks": {},
        "threats": {"blind": Blind()},
        "out": tmp_path / "out",
    }
    with pytest.raises((OptionError, InputError), match=message):
        evaluate(**{**given, **changes})
    assert not (tmp_path / "out").exists()
