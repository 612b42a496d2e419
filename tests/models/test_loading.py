"""Models by name."""

import sys
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from purifier import OptionError, UnknownNameError, UnsafeFileError, WeightsError
from purifier.models.loading import load_classifier, load_model
from purifier.models.normalised import Normalised

SCENES = Path(__file__).parents[1] / "scenes.py"


def test_the_reference_model_has_classes_and_an_identity() -> None:
    model = load_model("reference:demo")
    assert len(model.classes) == 24
    assert model.identity["name"] == "reference:demo" and len(model.identity["sha256"]) == 64
    assert load_model("demo").identity["sha256"] == model.identity["sha256"]


@pytest.mark.parametrize("spec", ["tests.scenes:colours", f"{SCENES}:colours"])
def test_a_function_of_the_user_returns_the_model(spec: str) -> None:
    model = load_model(spec)
    assert model.classes == ("blue", "green", "red")
    assert model.call(torch.rand(2, 3, 8, 8)).shape == (2, 3)
    assert {"sha256", "entry_sha256"} <= model.identity.keys()


def test_modules_of_the_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_models.py").write_text("def double():\n    return lambda images: images * 2\n")
    monkeypatch.chdir(tmp_path)
    model = load_model("my_own_models:double")
    assert model.call(2) == 4 and len(model.identity["source_sha256"]) == 64
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_of_torchvision_are_read(tmp_path: Path, suffix: str) -> None:
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


def test_local_weights_of_timm_are_read(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet", num_classes=5).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model = load_model(f"timm:test_resnet@{tmp_path / 'w.safetensors'}")
    assert model.call(torch.rand(1, 3, 64, 64)).shape == (1, 5)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("ran",))


def test_weights_that_would_run_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeFileError, match=r"nothing but tensors, got evil\.pth, which holds a call of .*print"):
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
        (
            "no_such_module:model",
            OptionError,
            "can be imported and called, got 'no_such_module:model': No module named",
        ),
        ("none.py:model", OptionError, "can be imported and called, got 'none.py:model': .*No such file"),
        (
            f"{SCENES}:color",
            OptionError,
            "expected model to name a function of .*, got 'color', .*did you mean 'colours'",
        ),
        (f"{SCENES}:no_model", OptionError, "to return a model that can be called, got str"),
    ],
)
def test_what_cannot_be_loaded_is_refused(spec: str, error: type[Exception], text: str) -> None:
    if spec.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(error, match=text):
        load_model(spec)


def test_only_models_of_known_image_size_state_it() -> None:
    demo, own = load_model("demo"), load_model("tests.scenes:colours")
    assert (demo.size, demo.crop) == (128, 1.0)
    assert own.size is None


def test_an_unknown_classifier_is_refused_with_its_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match=r"got 'resnet_18'; did you mean .*'resnet18'"):
        load_classifier("resnet_18")


def test_without_timm_the_error_for_an_unknown_classifier_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purifier.models.loading.find_spec", lambda _: None)
    with pytest.raises(UnknownNameError, match="pip install timm"):
        load_classifier("vit_tiny_patch16_224")


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(WeightsError, match=r"torchvision's 'resnet18' .* no network.*; go online once, copy .*hub"):
        load_classifier("resnet18")


def test_a_classifier_of_torchvision_states_the_images_and_classes_of_its_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = torchvision.models.squeezenet1_1().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: stored)
    loaded = load_classifier("squeezenet1_1")
    assert isinstance(loaded.call, Normalised) and not loaded.call.training
    assert loaded.call.normalisation == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert loaded.classes is not None
    assert (loaded.name, loaded.size, loaded.crop, len(loaded.classes)) == ("squeezenet1_1", 224, 224 / 256, 1000)


def test_a_classifier_of_timm_states_its_own_normalisation_images_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, num_classes: create(name))
    loaded = load_classifier("vit_tiny_patch16_224")
    assert isinstance(loaded.call, Normalised)
    assert loaded.call.normalisation == ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert (loaded.name, loaded.size, loaded.crop) == ("vit_tiny_patch16_224", 224, 0.9)
    assert loaded.classes is not None and loaded.classes[0].startswith("tench")
    assert loaded.call(torch.rand(1, 3, 224, 224)).shape == (1, len(loaded.classes)) == (1, 1000)
