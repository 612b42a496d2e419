"""The feature extractor that a configuration names."""

import pytest
import torch
from torch import nn

from purifier import OptionError
from purifier.models import features as _features
from purifier.models.features import load_features


def test_a_function_of_a_module_on_the_path_gives_the_features(tmp_path, monkeypatch):
    source = "from torch import nn\ndef pooled():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout())\n"
    (tmp_path / "their_features.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    features = load_features("their_features:pooled")
    assert features(torch.rand(2, 3, 8, 8)).shape == (2, 4, 6, 6)
    assert not any(module.training for module in features.modules())
    assert not any(weight.requires_grad for weight in features.parameters())


@pytest.mark.parametrize("name", ["", "vgg", "vgg16:", ":tiny", "tests.training.features.tiny"])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(OptionError, match="expected features='vgg16' or 'module:function', got"):
        load_features(name)


@pytest.mark.parametrize(
    "name",
    [
        "no_such_module:tiny",
        ".features:tiny",
        "tests.training.features:absent",
        "tests.training.features:torch",
        "tests.training.features:greedy",
    ],
)
def test_a_function_that_cannot_be_called_is_refused(name):
    with pytest.raises(OptionError, match=rf"can be imported and called, got '{name}'.*PYTHONPATH"):
        load_features(name)


def test_a_function_that_gives_no_module_is_refused():
    with pytest.raises(OptionError, match=r"features:nothing to return an nn.Module, got NoneType"):
        load_features("tests.training.features:nothing")


def test_vgg16_that_is_moved_does_not_move_the_one_that_attacks_use(monkeypatch):
    shared = nn.Conv2d(3, 4, 3)
    monkeypatch.setattr(_features, "vgg16_features", lambda device, instead: shared)
    load_features("vgg16").double()
    assert shared.weight.dtype == torch.float32
