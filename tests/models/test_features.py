"""Feature extractors by name."""

from pathlib import Path

import pytest
import torch
from torch import nn

from purifier import OptionError
from purifier.models import features as _features
from purifier.models.features import load_features


def test_a_function_of_a_module_on_the_path_gives_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from torch import nn\ndef pooled():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout())\n"
    (tmp_path / "their_features.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    features = load_features("their_features:pooled")
    assert features(torch.rand(2, 3, 8, 8)).shape == (2, 4, 6, 6)
    assert not any(module.training for module in features.modules())
    assert not any(weight.requires_grad for weight in features.parameters())


@pytest.mark.parametrize("name", ["", "vgg", "vgg16:", ":tiny", "tests.training.features.tiny"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"expected features='vgg16' or 'module:function' or 'file.py:function', got"):
        load_features(name)


@pytest.mark.parametrize("name", ["no_such_module:tiny", ".features:tiny", "tests.training.features:greedy"])
def test_a_function_that_cannot_be_imported_or_called_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=rf"can be imported and called, got '{name}'.*PYTHONPATH"):
        load_features(name)


@pytest.mark.parametrize("name", ["absent", "torch"])
def test_what_a_module_does_not_have_as_a_function_is_refused(name: str) -> None:
    with pytest.raises(
        OptionError, match=f"expected features to name a function of tests.training.features, got '{name}'"
    ):
        load_features(f"tests.training.features:{name}")


def test_a_function_that_returns_no_module_is_refused() -> None:
    with pytest.raises(OptionError, match=r"features:nothing to return an nn.Module, got NoneType"):
        load_features("tests.training.features:nothing")


def test_moving_vgg16_does_not_move_the_network_that_attacks_share(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = nn.Conv2d(3, 4, 3)
    monkeypatch.setattr(_features, "vgg16_features", lambda device, instead: shared)
    load_features("vgg16").double()
    assert shared.weight.dtype == torch.float32
