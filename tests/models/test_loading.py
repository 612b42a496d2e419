"""Models by name."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from purifier import InputError, OptionError, UnknownNameError, WeightsError
from purifier.models.loading import load_model
from purifier.models.normalised import Normalised

SCENES = Path(__file__).parent / "scenes.py"


def test_the_reference_model_has_classes_and_an_identity():
    model = load_model("reference:demo")
    assert len(model.classes) == 24
    assert model.identity["name"] == "reference:demo" and len(model.identity["sha256"]) == 64
    assert load_model("demo").identity["sha256"] == model.identity["sha256"]


@pytest.mark.parametrize("spec", ["tests.scenes:colours", f"{SCENES}:colours"])
def test_a_function_of_the_users_gives_the_model(spec):
    model = load_model(spec)
    assert model.classes == ("blue", "green", "red")
    assert model.call(torch.rand(2, 3, 8, 8)).shape == (2, 3)
    assert {"sha256", "entry_sha256"} <= model.identity.keys()


def test_modules_of_the_working_directory_are_found(tmp_path, monkeypatch):
    (tmp_path / "my_own_models.py").write_text("def double():\n    return lambda images: images * 2\n")
    monkeypatch.chdir(tmp_path)
    model = load_model("my_own_models:double")
    assert model.call(2) == 4 and len(model.identity["source_sha256"]) == 64
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_of_torchvision_are_read(tmp_path, suffix):
    net = torchvision.models.mobilenet_v3_small(num_classes=7).eval()
    path = tmp_path / f"weights{suffix}"
    state = {name: value.clone() for name, value in net.state_dict().items()}
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    model = load_model(f"mobilenet_v3_small@{path}")
    images = torch.rand(1, 3, 32, 32)
    assert isinstance(model.call, Normalised) and not model.call.training
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = net((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        assert torch.allclose(model.call(images), expected, atol=1e-5)
    with pytest.raises(WeightsError, match=r"expected weights of MobileNetV2 in .*, got others"):
        load_model(f"torchvision:mobilenet_v2@{path}")


def test_local_weights_of_timm_are_read(tmp_path):
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet", num_classes=5).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model = load_model(f"timm:test_resnet@{tmp_path / 'w.safetensors'}")
    assert model.call(torch.rand(1, 3, 64, 64)).shape == (1, 5)


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def test_weights_that_would_run_code_are_refused(tmp_path, capsys):
    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="got a file that cannot be read"):
        load_model(f"resnet18@{tmp_path / 'evil.pth'}")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ("resnet5", UnknownNameError, r"got 'resnet5'; did you mean 'resnet50'"),
        ("reference:dem", UnknownNameError, "got 'dem'; did you mean 'demo'"),
        ("timm:resnet5", UnknownNameError, "expected a model of timm, got 'resnet5'"),
        ("resnet18@none.pth", WeightsError, "expected a weights file, got none.pth"),
        ("reference:demo@a.pth", OptionError, "expected a reference model without @FILE"),
        ("torchvision:", OptionError, "expected a model as reference:demo"),
        ("no_such_module:model", InputError, "expected a module 'no_such_module' on the path"),
        ("none.py:model", InputError, "expected a Python file, got none.py"),
        (f"{SCENES}:color", InputError, "expected a function 'color' in .*, got none; did you mean 'colours'"),
        (f"{SCENES}:no_model", InputError, "to return a model that can be called, got str"),
    ],
)
def test_what_cannot_be_loaded_is_refused(spec, error, text):
    with pytest.raises(error, match=text):
        load_model(spec)
