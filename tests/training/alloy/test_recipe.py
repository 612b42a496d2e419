"""The Alloy training: losses by hand, resuming, settings, and a folder that loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from purifier import InputError, OptionError, Purifier, UnknownNameError
from purifier.cli import command
from purifier.training.alloy import AlloyRecipe, AlloyTraining, train
from purifier.training.alloy.recipe import pixel_loss, relative_distance
from purifier.training.checkpoints import load_checkpoint
from purifier.training.loop import fit
from tests.builders import small_purifier
from tests.training.alloy.builders import TINY, configuration
from tests.training.processes import broken_off
from tests.training.states import gradients, same, weights

Settings = Callable[..., AlloyTraining]


@pytest.fixture
def settings(photos: Path) -> Settings:
    return lambda **changes: configuration(photos, **changes)


def fit_to(config: AlloyTraining, out: Path) -> AlloyRecipe:
    recipe = AlloyRecipe(config)
    fit(recipe, config, out)
    return recipe


def test_a_run_that_breaks_off_ends_with_the_same_bits_as_an_unbroken_one(tmp_path: Path, settings: Settings) -> None:
    config = settings(steps=10, validate_every=4)
    train(config, tmp_path / "unbroken")
    halfway = broken_off(lambda: train(config, tmp_path / "broken"), AlloyRecipe, tmp_path / "broken")
    train(config, tmp_path / "broken")
    files = [(tmp_path / name / "alloy" / "model.safetensors").read_bytes() for name in ("unbroken", "broken")]
    assert files[0] == files[1]
    for kind in ("model", "average"):
        assert same(weights(tmp_path / "unbroken", kind), weights(tmp_path / "broken", kind))
    assert not same(halfway["model"], weights(tmp_path / "broken"))
    histories = [load_checkpoint(tmp_path / name / "checkpoint.pt")["history"] for name in ("unbroken", "broken")]
    assert histories[0] == histories[1] and [row["step"] for row in histories[0]] == [4, 8, 10]


def test_training_writes_a_purifier_with_a_card(tmp_path: Path, settings: Settings) -> None:
    config = settings(
        name="alloy-s",
        steps=24,
        validate_every=12,
        patch=1,
        blur=1,
        iterations=3,
        gate=4,
        gate_blocks=1,
        gate_bias=0.5,
        gate_floor=0.1,
        ema_decay=0.5,
    )
    folder = train(config, tmp_path)
    assert folder == tmp_path / "alloy-s"
    purifier = Purifier.from_pretrained(folder)
    assert purifier.name == "alloy-s" and purifier.iterations == 3
    size = {"patch": 1, "filters": 12, "blocks": 2, "levels": 1}
    gate = {"gate": 4, "gate_blocks": 1, "gate_bias": 0.5, "gate_floor": 0.1, "gate_threshold": 0.0}
    assert purifier.method.options == {"iterations": 3, **size, "clamp": True, "blur": 1, **gate}
    images = torch.rand(1, 3, 17, 23)
    assert purifier(images).shape == images.shape
    card = (folder / "README.md").read_text()
    assert "24 of 24 steps" in card and "validated at 3 iterations" in card
    for setting in ("learning_rate: 0.001", "patch: 1", "pixel_weight: 4.0", f"sources: {TINY['sources']}"):
        assert f"- {setting}\n" in card
    assert str(config.data[0]) not in card
    history = load_checkpoint(tmp_path / "checkpoint.pt")["history"]
    assert [row["step"] for row in history] == [12, 24]
    assert {"psnr", "psr_clean", "psr_pgd", "psr_ssp"} <= history[-1].keys()
    assert f"| 24 | {history[-1]['loss']:.4g} | {history[-1]['psnr']:.4g} |" in card


def test_training_lowers_the_loss(tmp_path: Path, settings: Settings) -> None:
    config = settings(learning_rate=5e-3, steps=60, batch_size=8, ema_decay=0.0, sources=("sign:1",), eps_low=18 / 255)
    recipe = AlloyRecipe(config)
    batch = torch.stack([recipe.crops[number] for number in range(12)])

    def loss(model: torch.nn.Module) -> float:
        torch.manual_seed(5)
        with torch.no_grad():
            return recipe.losses(model, batch, 0).total.item()

    before = loss(recipe.model)
    assert loss(fit(recipe, config, tmp_path).model) < 0.95 * before


def test_the_loss_is_the_weighted_sum_of_its_parts(settings: Settings) -> None:
    recipe = AlloyRecipe(settings(sources=("none:1",)))
    batch = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        losses = recipe.losses(recipe.model, batch, 0)
        output = recipe.model(batch)
        expected = {"pixel": (output - batch).abs().mean()}
        for extractor in recipe.extractors:
            pairs = zip(extractor.features(output.clamp(0, 1)), extractor.features(batch), strict=True)
            found = [(one - two).abs().mean() / two.abs().mean() for one, two in pairs]
            expected[extractor.name] = sum(found) / len(found)
    assert losses.parts.keys() == expected.keys() == {"pixel", "tiny", "classifier"}
    for name, value in expected.items():
        assert losses.parts[name].item() == pytest.approx(value.item(), rel=1e-5)
    total = 4 * expected["pixel"] + 0.5 * expected["tiny"] + 0.25 * expected["classifier"]
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-5)


def test_the_prediction_loss_is_the_divergence_of_each_network_that_classifies(settings: Settings) -> None:
    twice = (*TINY["extractors"], "again=tests.training.features:classifier:0")
    recipe = AlloyRecipe(settings(extractors=twice, sources=("none:1",), prediction_weight=0.7))
    assert [one.name for one in recipe.classifiers] == ["classifier"]
    classifier, batch = recipe.classifiers[0].network, torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        losses = recipe.losses(recipe.model, batch, 0)
        clean = classifier(batch).softmax(1)
        purified = classifier(recipe.model(batch).clamp(0, 1)).softmax(1)
        expected = (clean * (clean / purified).log()).sum(1).mean()
    assert losses.parts["predictions"].item() == pytest.approx(expected.item(), rel=1e-4)
    others = 4 * losses.parts["pixel"] + 0.5 * losses.parts["tiny"] + 0.25 * losses.parts["classifier"]
    assert losses.total.item() == pytest.approx((others + 0.7 * expected).item(), rel=1e-4)
    assert expected > 1e-3


def test_extractors_see_clean_and_purified_crops_at_one_random_size(settings: Settings) -> None:
    recipe = AlloyRecipe(settings(sources=("none:1",), views=0.5, crop_size=32))
    seen: list[torch.Size] = []
    for extractor in recipe.extractors:
        extractor.network.register_forward_pre_hook(lambda _, images: seen.append(images[0].shape[-2:]))
    sizes = set()
    for _ in range(40):
        seen.clear()
        recipe.losses(recipe.model, torch.rand(2, 3, 32, 48), 0)
        assert len(set(seen)) == 1
        sizes.add(tuple(seen[0]))
    assert {height for height, _ in sizes} == {16, 32, 48} and all(width % 16 == 0 for _, width in sizes)


def test_the_teachers_output_for_the_same_perturbed_images_is_a_target(settings: Settings, tmp_path: Path) -> None:
    small_purifier("nrp-resg").save_pretrained(tmp_path / "taught")
    changes = {"teacher": str(tmp_path / "taught"), "teacher_weight": 3.0, "prediction_weight": 1.0}
    recipe = AlloyRecipe(settings(**changes, sources=("sign:1",)))
    batch, seen = torch.rand(2, 3, 16, 16), []

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return recipe.model(images)

    losses = recipe.losses(watched, batch, 0)
    (perturbed,) = seen
    assert not torch.equal(perturbed, batch)
    with torch.no_grad():
        taught = Purifier.from_pretrained(tmp_path / "taught")(perturbed)
        expected = (recipe.model(perturbed) - taught).abs().mean()
    assert losses.parts["teacher"].item() == pytest.approx(expected.item(), rel=1e-5)
    others = 4 * losses.parts["pixel"] + 0.5 * losses.parts["tiny"] + 0.25 * losses.parts["classifier"]
    others = others + losses.parts["predictions"]
    assert losses.total.item() == pytest.approx((others + 3 * expected).item(), rel=1e-5)
    before = [weight.clone() for weight in recipe.teacher.parameters()]
    losses.total.backward()
    assert all(weight.grad is None for weight in recipe.teacher.parameters())
    assert all(weight.grad is not None for weight in recipe.model.parameters())
    recipe.to(torch.device("meta"))
    assert before and all(weight.is_meta for weight in recipe.teacher.parameters())


def test_a_teacher_is_the_only_loss_unless_its_weight_is_zero(settings: Settings) -> None:
    changes = {"teacher": "gs", "pixel_weight": 0.0, "extractors": (), "sources": ("sign:1",)}
    recipe = AlloyRecipe(settings(**changes, prediction_weight=1.0))
    assert set(recipe.losses(recipe.model, torch.rand(2, 3, 16, 16), 0).parts) == {"teacher"}
    with pytest.raises(OptionError, match="one of them above"):
        AlloyRecipe(settings(**changes, teacher_weight=0.0))
    with pytest.raises(UnknownNameError, match=r"expected one of .*'sg'"):
        AlloyRecipe(settings(teacher="sg"))


def test_a_gradient_longer_than_the_limit_is_scaled_down(tmp_path: Path, settings: Settings) -> None:
    def last(name: str, **changes: float) -> torch.Tensor:
        config = settings(steps=1, **changes)
        return torch.cat([one.flatten() for one in gradients(fit_to(config, tmp_path / name).model).values()])

    free = last("free")
    assert torch.equal(last("wide", gradient_norm=2 * free.norm().item()), free)
    short = last("short", gradient_norm=free.norm().item() / 4)
    torch.testing.assert_close(short, free / 4, rtol=1e-4, atol=0)
    with pytest.raises(OptionError, match="expected gradient_norm of at least 0"):
        last("wrong", gradient_norm=-1.0)


VARIANTS = {
    "whole": ({}, {"pixel", "tiny", "classifier"}),
    "no pixels": ({"pixel_weight": 0.0}, {"tiny", "classifier"}),
    "pixels alone": ({"extractors": (), "sources": ("sign:1",)}, {"pixel"}),
    "attacked only": (
        {"extractors": ("classifier=tests.training.features:classifier:0",), "sources": ("kl:*:1:1",)},
        {"pixel"},
    ),
    "reference": (
        {"extractors": ("demo=reference:demo@stages:1",), "sources": ("ssp:*:1:1", "kl:*:1:1"), "crop_size": 32},
        {"pixel", "demo"},
    ),
    "no clamp": ({"clamp": False}, {"pixel", "tiny", "classifier"}),
    "scales": ({"levels": 3}, {"pixel", "tiny", "classifier"}),
    "wide patches": ({"patch": 4, "filters": 5}, {"pixel", "tiny", "classifier"}),
    "predictions": ({"prediction_weight": 1.0}, {"pixel", "tiny", "classifier", "predictions"}),
    "gated": ({"gate": 4, "steps": 8}, {"pixel", "tiny", "classifier", "gate"}),
    "varied": ({"vary": 1.0}, {"pixel", "tiny", "classifier"}),
    "shrunk": ({"shrink": 0.5}, {"pixel", "tiny", "classifier"}),
    "views": (
        {"views": 0.5, "crop_size": 32, "prediction_weight": 1.0},
        {"pixel", "tiny", "classifier", "predictions"},
    ),
    "taught": ({"teacher": "ncis"}, {"pixel", "teacher", "tiny", "classifier"}),
    "taught in half precision": (
        {"teacher": "ncis", "teacher_weight": 1.0, "pixel_weight": 0.0, "precision": "bf16"},
        {"teacher", "tiny", "classifier"},
    ),
}


@pytest.mark.parametrize(("changes", "parts"), VARIANTS.values(), ids=VARIANTS)
def test_every_variant_trains_all_weights(
    tmp_path: Path, settings: Settings, changes: dict[str, Any], parts: set[str]
) -> None:
    config = settings(**changes)
    recipe = AlloyRecipe(config)
    batch = torch.rand(2, 3, config.crop_size, config.crop_size)
    assert set(recipe.losses(recipe.model, batch, 0).parts) == parts
    before = {name: weight.clone() for name, weight in recipe.model.named_parameters()}
    fitted = fit(recipe, config, tmp_path)
    assert all(bool(weight.isfinite().all()) for weight in fitted.model.parameters())
    assert not [name for name, weight in recipe.model.named_parameters() if torch.equal(weight, before[name])]


@pytest.mark.parametrize("source", ["sign", "none"])
def test_the_loss_of_the_gate_is_its_cross_entropy_on_clean_and_perturbed_images(
    settings: Settings, source: str
) -> None:
    recipe = AlloyRecipe(settings(gate=4, gate_weight=0.7, sources=(f"{source}:1",), eps_low=18 / 255))
    batch, gate, seen = torch.rand(2, 3, 16, 16), recipe.model.method.gate, []

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return recipe.model(images)

    with torch.no_grad():
        losses = recipe.losses(watched, batch, 0)
        attacked, clean = (gate.logits(images).sigmoid() for images in (seen[0], batch))
        perturbed = attacked if source == "sign" else 1 - attacked
        expected = -(perturbed.log().mean() + (1 - clean).log().mean()) / 2
    assert losses.parts["gate"].item() == pytest.approx(expected.item(), rel=1e-5)
    others = 4 * losses.parts["pixel"] + 0.5 * losses.parts["tiny"] + 0.25 * losses.parts["classifier"]
    assert losses.total.item() == pytest.approx((others + 0.7 * expected).item(), rel=1e-5)
    assert torch.equal(seen[0], batch) == (source == "none")


def test_with_only_gate_the_gate_alone_has_losses_and_gradients(settings: Settings, tmp_path: Path) -> None:
    trained = train(settings(name="free"), tmp_path / "free")
    recipe = AlloyRecipe(settings(gate=4, only_gate=True, sources=("sign:1",), init=str(trained), gate_weight=0.7))
    losses = recipe.losses(recipe.model, torch.rand(2, 3, 16, 16), 0)
    assert losses.parts.keys() == {"gate"}
    assert losses.total.item() == pytest.approx(0.7 * losses.parts["gate"].item())
    losses.total.backward()
    assert all(weight.grad is not None for weight in recipe.model.method.gate.parameters())
    assert all(weight.grad is None for weight in recipe.model.method.network.parameters())


def test_the_gate_alone_learns_to_tell_perturbed_images_from_clean_ones(tmp_path: Path, settings: Settings) -> None:
    trained = train(settings(name="free"), tmp_path / "free")
    changes = {"steps": 150, "learning_rate": 5e-3, "batch_size": 8, "sources": ("sign:1",), "eps_low": 18 / 255}
    gate = {"gate": 8, "gate_blocks": 1, "only_gate": True, "init": str(trained)}
    config = settings(**changes, **gate, extractors=(), crop_size=32)
    folder = train(config, tmp_path / "gated")
    free, gated = Purifier.from_pretrained(trained).method, Purifier.from_pretrained(folder).method
    assert same(gated.network.state_dict(), free.network.state_dict())
    crops = torch.stack([AlloyRecipe(config).crops[number] for number in range(8)])
    perturbed = (crops + 18 / 255 * (2 * torch.randint_like(crops, 2) - 1)).clamp(0, 1)
    with torch.no_grad():
        assert gated.gate(crops).mean() < 0.3 and gated.gate(perturbed).mean() > 0.7
        assert (gated(crops) - crops).abs().mean() < 0.5 * (free(crops) - crops).abs().mean()


def test_extractors_are_not_trained(tmp_path: Path, settings: Settings) -> None:
    config = settings()
    recipe = AlloyRecipe(config)
    before = [{key: value.clone() for key, value in one.state_dict().items()} for one in recipe.extractors]
    fit(recipe, config, tmp_path)
    for extractor, old in zip(recipe.extractors, before, strict=True):
        assert same(extractor.state_dict(), old)
        assert all(weight.grad is None for weight in extractor.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_weight": 0.0, "extractors": ()}, "expected loss weights >= 0, one of them above"),
        ({"pixel_weight": -1.0}, "expected loss weights >= 0, one of them above"),
        ({"teacher": "gs", "teacher_weight": -1.0}, "expected loss weights >= 0, one of them above"),
        ({"prediction_weight": -1.0}, "expected loss weights >= 0, one of them above"),
        (
            {"pixel_weight": 0.0, "prediction_weight": 1.0, "extractors": (), "sources": ("sign:1",)},
            "expected a loss beside prediction_weight",
        ),
        ({"eps_low": 0.1, "eps": 0.05}, "expected 0 <= eps_low <= eps <= 1"),
        ({"eps": 16.0}, "in units of the"),
        ({"attack_alpha": 0.0}, "expected attack_alpha in"),
        ({"only_gate": True, "gate": 4}, "a gate, .* and an init .* got gate=4, .* and init=''"),
        ({"only_gate": True, "init": "alloy"}, "a gate, .* and an init .* got gate=0, .* and init='alloy'"),
        ({"only_gate": True, "init": "alloy", "gate": 4, "gate_weight": 0.0}, "its weight, .* gate_weight=0.0"),
        ({"gate": 4, "gate_weight": -1.0}, "expected loss weights >= 0, one of them above"),
        ({"views": 1.0}, r"expected views in \[0, 1\), a share of the sides of crops, got 1\.0"),
        ({"name": "a/b"}, "expected name to be a folder name.*got 'a/b'"),
        ({"name": ".."}, "expected name to be a folder name.*got '..'"),
        ({"extractors": ("vgg16",)}, "expected an extractor as NAME=MODEL"),
        ({"sources": ("fgsm:classifier:1:1",)}, "expected a source as ATTACK:EXTRACTOR:SHARE:STEPS"),
        (
            {"sources": ("ssp:vgg:1:1",)},
            r"expected a source on one of the extractors \(tiny, classifier\), got ssp:vgg",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    settings: Settings, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        AlloyRecipe(settings(**changes))


def test_training_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected images"):
        AlloyRecipe(configuration(tmp_path))


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path, settings: Settings) -> None:
    train(settings(), tmp_path)
    with pytest.raises(OptionError, match=r"got others: pixel_weight .* for .*, sources"):
        train(settings(pixel_weight=0.5, sources=("none:1",)), tmp_path)


def test_settings_newer_than_the_checkpoint_have_their_default(tmp_path: Path, settings: Settings) -> None:
    train(settings(), tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["settings"]["views"]
    torch.save(state, tmp_path / "checkpoint.pt")
    train(settings(), tmp_path)
    with pytest.raises(OptionError, match=r"got others: views 0\.5 for 0\.0"):
        train(settings(views=0.5), tmp_path)


def test_a_training_stopped_early_resumes_to_the_same_bits(tmp_path: Path, settings: Settings) -> None:
    config = settings(steps=3)
    train(config, tmp_path / "unbroken")
    for step in (1, 2):
        folder = train(config, tmp_path / "cut", minutes=0)
        assert f"{step} of 3 steps" in (folder / "README.md").read_text()
    train(config, tmp_path / "cut")
    assert same(weights(tmp_path / "unbroken"), weights(tmp_path / "cut"))


def test_a_trained_purifier_can_be_trained_further(tmp_path: Path, settings: Settings) -> None:
    first = train(settings(), tmp_path / "first")
    second = train(settings(init=str(first), learning_rate=1e-9, iterations=2), tmp_path / "second")
    images = torch.rand(1, 3, 16, 16)
    assert torch.allclose(Purifier.from_pretrained(first)(images), Purifier.from_pretrained(second)(images), atol=1e-5)


def test_sample_pictures_start_with_the_clean_ones(settings: Settings) -> None:
    recipe = AlloyRecipe(settings())
    clean, purified, attacked, undone = recipe.samples(recipe.model)
    assert clean.shape == (2, 3, 128, 128)
    assert torch.equal(purified, recipe.model.method(clean).clamp(0, 1))
    assert torch.equal(undone, recipe.model.method(attacked).clamp(0, 1))
    assert 1 / 255 < (attacked - clean).abs().max() <= 16 / 255 + 1e-6


def test_the_command_trains_on_the_users_network_and_keeps_its_settings(photos: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    tuples = ("extractors", "sources")
    plain = {key: list(value) if key in tuples else value for key, value in TINY.items()}
    config.write_text(yaml.safe_dump({**plain, "data": [str(photos)]}))
    mine, sources = "mine=tests.training.features:classifier:0.25", ("ssp:*:0.8:1", "none:0.2")
    call = ["train", "alloy", "--config", config, "--out", tmp_path / "first", "--extractors", mine]
    result = CliRunner().invoke(command, [*map(str, call), "--sources", sources[0], "--sources", sources[1]])
    assert result.exit_code == 0, result.output
    kept = tmp_path / "first" / "alloy" / "training.yaml"
    values = yaml.safe_load(kept.read_text())
    assert values["extractors"] == [mine] and values["sources"] == list(sources)
    again = CliRunner().invoke(command, ["train", "alloy", "--config", str(kept), "--out", str(tmp_path / "second")])
    assert again.exit_code == 0, again.output
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"))


def test_the_command_has_the_defaults_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import purifier.training.alloy as package

    got = []
    monkeypatch.setattr(package, "train", lambda config, out, *, minutes: got.append(config) or out)
    result = CliRunner().invoke(command, ["train", "alloy", "--data", "photographs", "--out", "run"])
    assert result.exit_code == 0, result.output
    assert got == [AlloyTraining(data=("photographs",))]


def test_labelled_pictures_give_accuracies(photos: Path, tmp_path: Path, settings: Settings) -> None:
    folder = tmp_path / "labelled" / "cat"
    folder.mkdir(parents=True)
    Image.open(photos / "0.png").save(folder / "0.png")
    recipe = AlloyRecipe(settings(labelled=str(tmp_path / "labelled")))
    found = recipe.validate(recipe.model)
    assert {"standard", "robust_pgd", "robust_ssp"} <= found.keys()


def test_the_pixel_loss_is_the_mean_absolute_difference() -> None:
    clean = torch.tensor([[0.2, 0.5], [1.0, 0.0]])
    purified = torch.tensor([[0.3, 0.1], [1.0, 0.5]])
    assert pixel_loss(purified, clean).item() == pytest.approx((0.1 + 0.4 + 0 + 0.5) / 4)


def test_the_relative_distance_is_in_units_of_the_clean_features() -> None:
    clean, other = torch.tensor([[1.0, -3.0], [0.0, 2.0]]), torch.tensor([[2.0, -3.0], [0.0, -1.0]])
    assert relative_distance([other], [clean]).item() == pytest.approx((1 + 3) / (1 + 3 + 2))
    assert relative_distance([10 * other], [10 * clean]).item() == pytest.approx(4 / 6)


def test_layers_count_equally_at_any_size_and_scale() -> None:
    clean = [torch.ones(1, 2), torch.full((1, 8), 50.0)]
    other = [torch.tensor([[1.0, 2.0]]), torch.full((1, 8), 60.0)]
    assert relative_distance(other, clean).item() == pytest.approx((0.5 + 0.2) / 2)


def test_equal_features_have_distance_zero_and_zero_features_a_finite_one() -> None:
    assert relative_distance([torch.ones(1, 3)], [torch.ones(1, 3)]) == 0
    assert relative_distance([torch.ones(1, 3)], [torch.zeros(1, 3)]).isfinite()


def test_features_in_half_precision_are_summed_in_single_precision() -> None:
    # 4,096 differences of 1 would stop at 2,048 in half precision.
    clean, other = torch.ones(1, 4096).half(), torch.zeros(1, 4096).half()
    found = relative_distance([other], [clean])
    assert found.dtype == torch.float32 and found == 1


def test_gradients_flow_to_the_features_only() -> None:
    clean, other = torch.rand(2, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(relative_distance([other], [clean.detach()]), other)
    unit = 1 / clean.detach().abs().sum()
    assert torch.allclose(gradient, unit * (other - clean).detach().sign())
