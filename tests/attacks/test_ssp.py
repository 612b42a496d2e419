"""SSP: features move away, labels and model take no part, the ball holds."""

import importlib.util
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn

from purifier import InputError, OptionError, WeightsError
from purifier.attacks import PGD, SSP, features_at
from tests.builders import pictures, unchanged


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 64, 5)
    return nn.Sequential(*parts).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return pictures(4, 3, 12, 12)


@pytest.mark.parametrize("distance", ["mae", "squared"])
def test_the_feature_distance_grows_with_the_steps(network: nn.Module, images: torch.Tensor, distance: str) -> None:
    features = features_at(network, "2")

    def moved(steps: int) -> Tensor:
        attack = SSP(features, eps=0.1, steps=steps, distance=distance).seeded(0)
        return (features(attack(None, images, None)) - features(images)).abs().flatten(1).mean(1)

    none, one, many = moved(0), moved(1), moved(20)
    assert bool((none < one).all()) and bool((one < many).all())


def test_the_result_depends_on_neither_model_nor_labels(network: nn.Module, images: torch.Tensor) -> None:
    features = features_at(network, "2")
    results = [
        SSP(features, steps=3).seeded(0)(model, images, targets)
        for model, targets in [(None, None), (network, torch.tensor([0, 1, 2, 3])), (lambda x: 1 / 0, "anything")]
    ]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_lists_of_pictures_of_different_sizes_come_back_as_lists() -> None:
    features = nn.Conv2d(3, 4, 3)
    pair = [pictures(1, 3, 12, 16)[0], pictures(1, 3, 9, 7)[0]]
    attacked = SSP(features, eps=0.1, steps=2).seeded(0)(None, pair, None)
    first = SSP(features, eps=0.1, steps=2).seeded(0)(None, pair[0][None], None)
    assert [image.shape for image in attacked] == [image.shape for image in pair]
    assert torch.equal(attacked[0], first[0])


@pytest.mark.parametrize("seed", range(6))
def test_it_stays_in_the_ball_and_the_image_range(network: nn.Module, images: torch.Tensor, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    eps, alpha = (torch.rand(2, generator=random) * 0.3).tolist()
    attacked = SSP(network, eps=eps, alpha=alpha, steps=4, generator=random)(None, images, None)
    assert (attacked - images).abs().max() <= eps + 1e-6
    assert attacked.min() >= 0 and attacked.max() <= 1 and not attacked.requires_grad


def test_on_linear_features_it_ends_in_a_corner_of_the_ball() -> None:
    features = nn.Flatten()
    images = torch.full((1, 3, 4, 4), 0.5)
    attacked = SSP(features, eps=0.1, alpha=0.05, steps=6).seeded(0)(None, images, None)
    assert torch.allclose((attacked - images).abs(), torch.full_like(images, 0.1), atol=1e-6)


def test_the_start_is_noise_of_the_size_asked_for(network: nn.Module, images: torch.Tensor) -> None:
    attacked = SSP(network, eps=0.1, noise=0.5, steps=0).seeded(0)(None, images, None)
    assert 0.045 < (attacked - images).abs().max() <= 0.05 + 1e-6


def test_equal_seeds_give_equal_images_and_other_radii_scale_the_step(network: nn.Module, images: torch.Tensor) -> None:
    attack = SSP(network, eps=0.1, steps=2)
    assert torch.equal(attack.seeded(1)(None, images, None), attack.seeded(1)(None, images, None))
    assert attack.with_eps(0.05).alpha == pytest.approx(attack.alpha / 2)
    assert attack.settings()["features"] == "Sequential" and attack.settings()["distance"] == "mae"


def test_features_are_those_of_the_layer_and_the_network_does_not_change(
    network: nn.Module, images: torch.Tensor
) -> None:
    with unchanged(network):
        features = features_at(network, "0")
        # The ReLU behind works in place; the features are those before it.
        assert torch.equal(features(images), network[0](images)) and features(images).min() < 0
        SSP(features, steps=2)(None, images, None)
    assert SSP(features_at(network, "2")).settings()["features"] == "Sequential.2"


def test_the_feature_network_must_be_in_eval_mode(images: torch.Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(InputError, match="expected a model in eval mode"):
        SSP(features_at(network, "1"))(None, images, None)


def test_a_layer_that_does_not_exist_or_is_not_used_is_refused(network: nn.Module, images: torch.Tensor) -> None:
    with pytest.raises(OptionError, match=r"expected the name of a layer of Sequential, got '22'; did you mean"):
        features_at(network, "22")
    network.register_module("spare", nn.Identity())
    network.forward = lambda x: network[0](x)
    with pytest.raises(InputError, match="expected layer '2' to be used in a call"):
        features_at(network, "2")(images)


def test_features_that_are_not_a_batch_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"expected features as one tensor \(4, ...\), got list"):
        SSP(lambda x: [x])(None, images, None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"eps": 16}, "write 16/255, not 16"),
        ({"distance": "l2"}, "expected distance to be 'mae' or 'squared', got 'l2'"),
        ({"steps": -1}, "expected steps to be an integer of at least 0, got -1"),
        ({"steps": 1.5}, "expected steps to be an integer of at least 0, got 1.5"),
        ({"noise": 0}, r"noise in \(0, 1\]"),
        ({"features": "vgg16"}, "expected features as a function of images, got str"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        SSP(**options)


def test_missing_vgg_weights_are_an_error_that_says_what_to_pass(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: Any, **kwargs: Any) -> NoReturn:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    with pytest.raises(WeightsError, match=r"expected the VGG16 weights .* got no network; .* or pass features="):
        SSP()(None, images, None)


def test_the_default_features_are_those_of_vgg16_behind_its_normalisation(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import vgg16

    from purifier.attacks import ssp

    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in vgg16().features[:16].state_dict().items()}
    state = {f"features.{k}": torch.randn(shape) * 0.05 for k, shape in shapes.items()}
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *args, **kwargs: state)
    ssp.vgg16_features.cache_clear()
    try:
        extract = ssp.vgg16_features(torch.device("cpu"))
        features = extract(images)
        attacked = SSP(steps=2)(None, images, None)
        assert SSP(steps=2)(None, images.double(), None).dtype == torch.float64
    finally:
        ssp.vgg16_features.cache_clear()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    first = nn.functional.conv2d((images - mean) / std, state["features.0.weight"], state["features.0.bias"], padding=1)
    assert torch.allclose(extract.net[0]((images - mean) / std), first, atol=1e-6)
    assert features.shape == (4, 256, 3, 3) and features.min() == 0
    assert (extract(attacked) - features).abs().mean() > 0


@pytest.mark.slow
def test_it_fools_a_network_other_than_its_own(kit: Path) -> None:
    from purifier._images import take_apart

    spec = importlib.util.spec_from_file_location("kit_models_ssp", kit / "kit_models.py")
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    files = sorted((kit / "imagenet_nips400" / "images").iterdir())[:8]
    images = torch.stack([take_apart(file).rgb for file in files])
    images = nn.functional.interpolate(images, (160, 160), mode="bilinear", antialias=True).clamp(0, 1)
    network = models.mobilenet_v2().requires_grad_(False)
    truth = network(images).argmax(1)
    attack = SSP(models.vgg19_features(16).requires_grad_(False), eps=16 / 255, alpha=4 / 255, steps=5).seeded(0)
    attacked = attack(None, images, None)
    assert (network(attacked).argmax(1) == truth).sum() <= 5
    noise = (attacked - images).abs().mean() * torch.randn_like(images).sign()
    assert (network((images + noise).clamp(0, 1)).argmax(1) == truth).sum() > (
        network(attacked).argmax(1) == truth
    ).sum()


def test_it_differs_from_a_gradient_attack_on_the_model(network: nn.Module, images: torch.Tensor) -> None:
    # SSP must not turn into PGD on a model that it is given.
    features = features_at(network, "0")
    given = SSP(features, eps=0.1, steps=5).seeded(0)(network, images, torch.zeros(4, dtype=torch.long))
    assert not torch.equal(given, PGD(eps=0.1, steps=5).seeded(0)(network, images, torch.zeros(4, dtype=torch.long)))


@pytest.mark.parametrize(("network", "layer"), [(3, "0"), (nn.Identity(), 3), (None, None)])
def test_a_layer_is_named_inside_a_module(network: object, layer: object) -> None:
    with pytest.raises(OptionError, match=r"expected an nn\.Module and the name of a layer"):
        features_at(network, layer)  # type: ignore[arg-type]
