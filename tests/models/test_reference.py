"""The reference classifiers: loading, contract, refusal of damaged files, and what they recognise."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from purifier._errors import InputError, OptionError, UnknownNameError, WeightsError
from purifier.models import reference as _reference
from purifier.models.reference import ReferenceClassifier, reference_model

KIT = os.environ.get("PURIFIER_KIT")


def square(picture: object, size: int = 128) -> Tensor:
    """Cuts the central square of a PIL image or a uint8 array (H, W, 3): (1, 3, size, size) in [0, 1]."""
    np = pytest.importorskip("numpy")
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = image[None, :, top : top + side, left : left + side]
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True).clamp(0, 1)


@pytest.fixture(scope="module")
def demo() -> ReferenceClassifier:
    model = reference_model("demo")
    assert isinstance(model, ReferenceClassifier)
    return model


def test_demo_comes_in_eval_mode_and_single_precision_with_trainable_weights(
    demo: ReferenceClassifier,
) -> None:
    assert not demo.training
    assert {p.dtype for p in demo.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in demo.parameters())


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (128, 128), (97, 200)])
def test_demo_scores_images_of_any_size(demo: ReferenceClassifier, size: tuple[int, int]) -> None:
    logits = demo(torch.rand(2, 3, *size))
    assert logits.shape == (2, 24)
    assert logits.isfinite().all()


def test_demo_scores_a_batch_as_it_scores_its_images_one_by_one(demo: ReferenceClassifier) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    singles = torch.cat([demo(image[None]) for image in images])
    torch.testing.assert_close(demo(images), singles, atol=1e-4, rtol=1e-4)


def test_demo_classes_are_a_sorted_tuple_of_names(demo: ReferenceClassifier) -> None:
    assert isinstance(demo.classes, tuple)
    assert len(set(demo.classes)) == 24
    assert list(demo.classes) == sorted(demo.classes)
    assert {"cat", "cup", "person"} <= set(demo.classes)


def test_demo_lets_the_gradient_reach_the_input(demo: ReferenceClassifier) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(demo(images).logsumexp(1).sum(), images)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_demo_is_loaded_afresh_at_every_call(demo: ReferenceClassifier) -> None:
    again = reference_model("demo")
    assert again is not demo
    for one, other in zip(demo.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()


def test_demo_follows_the_dtype_of_its_weights() -> None:
    assert reference_model("demo").double()(torch.rand(1, 3, 32, 32, dtype=torch.float64)).dtype == torch.float64


def test_demo_weights_take_less_than_six_megabytes() -> None:
    stored = files("purifier.weights") / "reference-demo" / "model.safetensors"
    assert len(stored.read_bytes()) < 6e6


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 64, 64, 3), (1, 3, 31, 64)])
def test_demo_refuses_other_shapes(demo: ReferenceClassifier, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected images of shape \(N, 3, H, W\) with H, W >= 32, got \("):
        demo(torch.rand(shape))


def test_unknown_name_says_what_there_is_and_what_is_near() -> None:
    with pytest.raises(UnknownNameError, match=r"one of .*'demo'.*, got 'dmeo'; did you mean 'demo'\?"):
        reference_model("dmeo")


def test_unknown_name_with_nothing_near_still_says_what_to_do() -> None:
    with pytest.raises(UnknownNameError, match=r"got 'vit'; call reference_model with one of those names"):
        reference_model("vit")


def test_widths_that_do_not_fit_the_blocks_are_refused() -> None:
    with pytest.raises(
        OptionError,
        match=r"expected one width and one stride more .* got widths=\(8, 16\), strides=\(2, 2\) and blocks=\(1, 1\)",
    ):
        ReferenceClassifier(classes=("a", "b"), widths=(8, 16), blocks=(1, 1))


def test_weights_that_are_not_those_of_the_config_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reference-demo"
    folder.mkdir()
    shipped = files("purifier.weights") / "reference-demo"
    stored = bytearray((shipped / "model.safetensors").read_bytes())
    stored[-1] ^= 1
    (folder / "model.safetensors").write_bytes(stored)
    (folder / "config.json").write_bytes((shipped / "config.json").read_bytes())
    monkeypatch.setattr(_reference, "files", lambda package: tmp_path)
    sha256 = json.loads((folder / "config.json").read_text())["sha256"]
    with pytest.raises(WeightsError, match=rf"SHA-256 {sha256}, got [0-9a-f]{{64}}; .* reinstall the package"):
        reference_model("demo")


def test_weights_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reference, "files", lambda package: tmp_path)
    with pytest.raises(WeightsError, match=r"weights of reference model 'demo' inside the package, got .*reinstall"):
        reference_model("demo")


@pytest.mark.parametrize(("name", "kind"), [("chelsea", "cat"), ("coffee", "cup"), ("motorcycle_left", "motorbike")])
def test_demo_recognises_the_photographs_of_scikit_image(demo: ReferenceClassifier, name: str, kind: str) -> None:
    from PIL import Image

    package = pytest.importorskip("skimage")
    with Image.open(Path(package.__file__).parent / "data" / f"{name}.png") as photograph, torch.no_grad():
        assert demo.classes[int(demo(square(photograph.convert("RGB"))).argmax())] == kind


@pytest.mark.skipif(not KIT, reason="PURIFIER_KIT is unset: no labelled pictures")
def test_demo_is_right_on_three_quarters_of_the_test_part(demo: ReferenceClassifier) -> None:
    from PIL import Image

    paths = sorted((Path(str(KIT)) / "objects" / "test").glob("*/*.jpg"))
    assert len(paths) == 564
    right = 0
    for start in range(0, len(paths), 64):
        part = paths[start : start + 64]
        images = torch.cat([square(Image.open(path).convert("RGB")) for path in part])
        labels = torch.tensor([demo.classes.index(path.parent.name) for path in part])
        with torch.no_grad():
            right += int((demo(images).argmax(1) == labels).sum())
    assert right / len(paths) >= 0.75
