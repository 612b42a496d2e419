"""Adapters: other libraries attack through them as our own attacks do, and protocols are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import purifier
from purifier import InputError, OptionError, Purifier, reference_model
from purifier.adapters import as_art, as_foolbox, as_maite_augmentation, as_maite_model, as_robustbench
from purifier.attacks import BPDA, PGD, Aware

EPS, ALPHA, STEPS = 8 / 255, 2 / 255, 3
ATTACK = PGD(eps=EPS, alpha=ALPHA, steps=STEPS, random_start=False)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 4, 4, generator=generator)
    return nn.functional.interpolate(coarse, size=(40, 40), mode="bicubic").clamp(0.1, 0.9)


@pytest.fixture
def model() -> nn.Module:
    return reference_model("demo").eval()


def ours(name: str, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Our attack by an attacker who knows the purifier."""
    threat = Aware() if Purifier.from_pretrained(name).differentiable else BPDA()
    found: Tensor = threat(ATTACK, purifier.wrap(model, name), images, labels)
    return found


@pytest.mark.parametrize("name", ["gs", "jpeg"])
def test_robustbench_gets_a_module_with_the_gradients_of_our_attacks(
    name: str, model: nn.Module, images: Tensor
) -> None:
    module = as_robustbench(purifier.wrap(model, name))
    labels = module(images).argmax(1)
    assert not module.training and torch.equal(module(images), purifier.wrap(model, name)(images))
    assert torch.equal(ATTACK(module, images, labels), ours(name, model, images, labels))


def test_a_model_of_normalised_images_takes_images_in_the_unit_range(images: Tensor) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    inner = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 40, 5)).eval()
    wrapped = purifier.wrap(inner, "gs", mean=mean, std=std)
    normalised = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(as_robustbench(wrapped)(images), wrapped(normalised))


@pytest.mark.parametrize("adapt", [as_robustbench, as_maite_model])
def test_adapters_call_a_model_in_eval_mode_and_leave_its_own_mode_as_it_is(adapt: Any, images: Tensor) -> None:
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3).eval(), nn.Flatten(), nn.Linear(3 * 40 * 40, 5))
    modes = [part.training for part in net.modules()]
    adapted = adapt(purifier.wrap(net, "gs"))
    assert [part.training for part in net.modules()] == modes
    first, second = (torch.stack([torch.as_tensor(row) for row in adapted(images)]) for _ in range(2))
    assert torch.equal(first, second), "dropout was on"
    assert [part.training for part in net.modules()] == modes == [True, True, False, True, True]


@pytest.mark.parametrize("name", ["gs", "jpeg"])
def test_foolbox_attacks_as_ours_does(name: str, model: nn.Module, images: Tensor) -> None:
    foolbox: Any = pytest.importorskip("foolbox", reason="needs foolbox")
    defended = as_foolbox(purifier.wrap(model, name), device="cpu")
    labels = purifier.wrap(model, name)(images).argmax(1)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=STEPS, random_start=False)
    found, _, _ = attack(defended, images, labels, epsilons=EPS)
    # Elements whose gradient is rounding noise may step the other way.
    assert ((found - ours(name, model, images, labels)).abs() < 1e-6).float().mean() > 0.999


@pytest.mark.parametrize("name", ["gs", "jpeg"])
def test_art_attacks_as_ours_does(name: str, model: nn.Module, images: Tensor) -> None:
    pytest.importorskip("art", reason="needs adversarial-robustness-toolbox")
    from art.attacks.evasion import ProjectedGradientDescentNumpy
    from art.estimators.classification import PyTorchClassifier

    preprocessor = as_art(Purifier.from_pretrained(name))
    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(reduction="sum"), (3, 40, 40), 24, clip_values=(0, 1), device_type="cpu",
        preprocessing_defences=[preprocessor],
    )  # fmt: skip
    defended = purifier.wrap(model, name)
    np.testing.assert_allclose(classifier.predict(images.numpy()), defended(images).detach().numpy(), atol=1e-5)
    labels = defended(images).argmax(1)
    attack = ProjectedGradientDescentNumpy(
        classifier, eps=EPS, eps_step=ALPHA, max_iter=STEPS, num_random_init=0, verbose=False
    )
    found = torch.from_numpy(attack.generate(images.numpy(), nn.functional.one_hot(labels, 24).numpy()))
    assert ((found - ours(name, model, images, labels)).abs() < 1e-6).float().mean() > 0.999


def test_maite_models_and_augmentations_keep_the_protocols(model: nn.Module, images: Tensor) -> None:
    defended = purifier.wrap(model, "gs")
    adapted = as_maite_model(defended, name="demo", classes=["a", "b"])
    batch = [images[0].numpy(), images[1, :, :32].numpy(), images[2]]
    rows = adapted(batch)
    with torch.inference_mode():
        for image, row in zip(batch, rows, strict=True):
            torch.testing.assert_close(torch.from_numpy(row), defended(torch.as_tensor(image)[None]).softmax(1)[0])
    assert adapted.metadata == {"id": "demo", "index2label": {0: "a", 1: "b"}}
    augmentation = as_maite_augmentation(Purifier.from_pretrained("gs"))
    found, targets, metadata = augmentation((batch, [0, 1, 2], [{}, {}, {}]))
    assert (targets, metadata, augmentation.metadata) == ([0, 1, 2], [{}, {}, {}], {"id": "gs"})
    assert [one.shape for one in found] == [(3, 40, 40), (3, 32, 40), (3, 40, 40)]
    assert torch.equal(torch.from_numpy(found[1]), Purifier.from_pretrained("gs")(torch.as_tensor(batch[1])))


def test_maite_takes_them_for_its_own(model: nn.Module) -> None:
    protocols: Any = pytest.importorskip("maite.protocols.image_classification", reason="needs maite")
    assert isinstance(as_maite_model(purifier.wrap(model, "gs")), protocols.Model)
    assert isinstance(as_maite_augmentation(Purifier.from_pretrained("gs")), protocols.Augmentation)


def test_what_has_no_purifier_is_refused(model: nn.Module) -> None:
    for adapt in (as_robustbench, as_maite_model):
        with pytest.raises(OptionError, match=r"expected a model behind a purifier, got .*; call purifier\.wrap first"):
            adapt(model)
    for adapt in (as_art, as_maite_augmentation):
        with pytest.raises(OptionError, match="expected a Purifier, got str"):
            adapt("gs")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected images"):
        as_maite_augmentation(Purifier.from_pretrained("gs"))((["a"], [0], [{}]))


def test_a_missing_library_is_named(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purifier.adapters.models.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install foolbox"):
        as_foolbox(purifier.wrap(model, "gs"))
    with pytest.raises(InputError, match="pip install adversarial-robustness-toolbox"):
        as_art(Purifier.from_pretrained("gs"))
