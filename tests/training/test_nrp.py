"""The NRP training: settings, every ablation, resuming, and a folder that loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from purifier import InputError, OptionError, Purifier
from purifier.models.reference import reference_model
from purifier.training import critic
from purifier.training.checkpoints import load_checkpoint
from purifier.training.loop import fit
from purifier.training.nrp import NRPRecipe, NRPTraining, train
from tests.training.nrp import TINY, Settings
from tests.training.processes import killed
from tests.training.states import close, gradients, same, weights

NARROW = (4, 4, 4, 8, 8)
CRITIC = {**TINY, "crop_size": 32, "adversarial_weight": 5e-3}
# Moves all scores alike, which the relativistic losses do not see.
SHIFT = {"head.3.bias"}
SCRIPT = """
import sys, time, torch
torch.set_num_threads(1)
from purifier.training import critic
from purifier.training.nrp import NRPTraining, NRPRecipe, train
critic._WIDTHS = %r
losses = NRPRecipe.losses
def slow(self, model, batch, step):
    time.sleep(float(sys.argv[3]))
    return losses(self, model, batch, step)
NRPRecipe.losses = slow
train(NRPTraining(data=(sys.argv[1],), **%r), sys.argv[2])
"""


@pytest.fixture(autouse=True)
def narrow_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critic, "_WIDTHS", NARROW)


def fit_to(config: NRPTraining, out: Path, minutes: float | None = None) -> NRPRecipe:
    recipe = NRPRecipe(config)
    fit(recipe, config, out, minutes=minutes)
    return recipe


@pytest.mark.slow
def test_a_killed_run_with_a_critic_ends_with_the_same_bits_as_an_unbroken_one(
    photos: Path, tmp_path: Path, settings: Settings
) -> None:
    changes = {"steps": 10, "validate_every": 4, "critic_from": 1, "clean_share": 0.5, "batch_size": 4}
    halfway = killed(SCRIPT % (NARROW, {**CRITIC, **changes}), photos, tmp_path / "killed")
    assert 0 < halfway["step"] < changes["steps"]
    for name in ("unbroken", "killed"):
        train(settings(CRITIC, **changes), tmp_path / name)
    files = [(tmp_path / name / "nrp-resg" / "model.safetensors").read_bytes() for name in ("unbroken", "killed")]
    assert files[0] == files[1]
    for network in ("model", "average", "critic"):
        assert same(weights(tmp_path / "unbroken", network), weights(tmp_path / "killed", network))
    assert not same(halfway["critic"], weights(tmp_path / "killed", "critic"))
    histories = [load_checkpoint(tmp_path / name / "checkpoint.pt")["history"] for name in ("unbroken", "killed")]
    assert histories[0] == histories[1] and [row["step"] for row in histories[0]] == [4, 8, 10]


def test_training_writes_a_purifier_with_a_card(tmp_path: Path, settings: Settings) -> None:
    config = settings(CRITIC, steps=24, validate_every=12, network="nrp", blocks=1, ema_decay=0.5)
    folder = train(config, tmp_path)
    assert folder == tmp_path / "nrp"
    purifier = Purifier.from_pretrained(folder)
    assert purifier.name == "nrp"
    assert purifier.method.options == {"filters": 4, "blocks": 1, "growth": 2}
    images = torch.rand(1, 3, 17, 23)
    assert purifier(images).shape == images.shape
    card = (folder / "README.md").read_text()
    assert "24 of 24 steps" in card
    for setting in ("learning_rate: 0.001", "network: nrp", "adversarial_weight: 0.005", "attack: ssp"):
        assert f"- {setting}\n" in card
    assert str(config.data[0]) not in card
    history = load_checkpoint(tmp_path / "checkpoint.pt")["history"]
    assert [row["step"] for row in history] == [12, 24]
    assert {"psnr", "psr_clean", "psr_pgd", "psr_ssp"} <= history[-1].keys()
    assert f"| 24 | {history[-1]['loss']:.4g} | {history[-1]['psnr']:.4g} |" in card


def test_training_from_the_identity_lowers_the_loss(tmp_path: Path, settings: Settings) -> None:
    config = settings(TINY, steps=30, learning_rate=1e-2, start="identity", ema_decay=0.0, eps_low=16 / 255)
    recipe = NRPRecipe(config)
    batch = torch.stack([recipe.crops[number] for number in range(12)])

    def loss(model: torch.nn.Module) -> float:
        torch.manual_seed(5)
        with torch.no_grad():
            return recipe.losses(model, batch, 0).total.item()

    before = loss(recipe.model)
    assert loss(fit(recipe, config, tmp_path).model) < before


def test_parts_of_a_batch_add_up_to_the_whole(tmp_path: Path, settings: Settings) -> None:
    whole, parts = (
        fit_to(settings(TINY, batch_size=4, clean_share=1.0, accumulate=count), tmp_path / str(count)).model
        for count in (1, 2)
    )
    assert close(whole.state_dict(), parts.state_dict())
    assert close(gradients(whole), gradients(parts))


def test_a_batch_that_cannot_be_split_evenly_is_refused(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(OptionError, match="share in 3 parts each, got 2"):
        fit_to(settings(TINY, accumulate=3), tmp_path)


@pytest.mark.parametrize(
    ("base", "changes", "parts"),
    [
        (CRITIC, {}, {"pixel", "feature", "adversarial"}),
        (TINY, {"pixel_weight": 0.0}, {"feature"}),
        (TINY, {"feature_weight": 0.0}, {"pixel"}),
        (CRITIC, {"pixel_weight": 0.0, "feature_weight": 0.0}, {"adversarial"}),
        (CRITIC, {"relativistic": False}, {"pixel", "feature", "adversarial"}),
        (TINY, {"attack": "gaussian"}, {"pixel", "feature"}),
        (TINY, {"attack": "fgsm", "crop_size": 32}, {"pixel", "feature"}),
        (TINY, {"network": "nrp", "blocks": 1}, {"pixel", "feature"}),
        (TINY, {"start": "identity"}, {"pixel", "feature"}),
        (TINY, {"shrink": 0.5}, {"pixel", "feature"}),
    ],
    ids=[
        "whole",
        "no-pixel",
        "no-feature",
        "critic-alone",
        "vanilla",
        "gaussian",
        "fgsm",
        "dense",
        "identity",
        "shrink",
    ],
)
def test_every_variant_trains_all_weights(
    tmp_path: Path, settings: Settings, base: dict[str, Any], changes: dict[str, Any], parts: set[str]
) -> None:
    config = settings(base, **changes)
    recipe = NRPRecipe(config)
    assert set(recipe.losses(recipe.model, torch.rand(2, 3, config.crop_size, config.crop_size), 0).parts) == parts
    networks = [recipe.model] if recipe.critic is None else [recipe.model, recipe.critic]
    before = [{name: weight.clone() for name, weight in network.named_parameters()} for network in networks]
    fitted = fit(recipe, config, tmp_path)
    assert all(bool(weight.isfinite().all()) for weight in fitted.model.parameters())
    for network, old in zip(networks, before, strict=True):
        still = {name for name, weight in network.named_parameters() if torch.equal(weight, old[name])}
        assert still <= (SHIFT if config.relativistic else set())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_weight": 0.0, "feature_weight": 0.0}, "expected loss weights >= 0, one of them above"),
        ({"pixel_weight": -1.0}, "expected loss weights >= 0, one of them above"),
        ({"eps_low": 0.1, "eps": 0.05}, "expected 0 <= eps_low <= eps <= 1"),
        ({"eps": 16.0}, "in units of the"),
        ({"attack_alpha": 0.1}, "expected 0 < attack_alpha_low <= attack_alpha, shares of eps"),
        ({"attack_alpha_low": 0.0}, "expected 0 < attack_alpha_low <= attack_alpha, shares of eps"),
        ({"clean_share": 1.5}, "expected clean_share to be a number from 0 to 1"),
        ({"network": "resg"}, "expected network as one of nrp, nrp-resg, got 'resg'"),
        ({"attack": "pgd"}, "expected attack as one of ssp, gaussian, fgsm, got 'pgd'"),
        ({"start": "zero"}, "expected start as one of random, identity, got 'zero'"),
        ({"start": "identity", "filters": 2}, "expected filters >= 3"),
        (
            {"pixel_weight": 0.0, "feature_weight": 0.0, "adversarial_weight": 1.0, "critic_from": 2},
            "expected a loss before the critic is used",
        ),
        ({"adversarial_weight": 1.0, "crop_size": 48}, "multiple of 32 with a critic, got 48"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    settings: Settings, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        NRPRecipe(settings(TINY, **changes))


def test_the_critic_does_not_change_before_its_step(tmp_path: Path, settings: Settings) -> None:
    config = settings(CRITIC, critic_from=3)
    before = NRPRecipe(config).critic.state_dict()
    recipe = fit_to(settings(CRITIC, critic_from=3, steps=3), tmp_path / "before")
    assert same(recipe.critic.state_dict(), before)
    assert not any(weight.grad is not None for weight in recipe.critic.parameters())
    recipe = fit_to(config, tmp_path / "after")
    still = {name for name, weight in recipe.critic.named_parameters() if torch.equal(weight, before[name])}
    assert still <= SHIFT
    assert recipe.losses(recipe.model, torch.rand(2, 3, 32, 32), 2).critic is None
    assert recipe.losses(recipe.model, torch.rand(2, 3, 32, 32), 3).critic is not None


def test_the_critics_loss_gives_the_purifier_no_gradient(settings: Settings) -> None:
    recipe = NRPRecipe(settings(CRITIC))
    losses = recipe.losses(recipe.model, torch.rand(2, 3, 32, 32), 0)
    losses.critic().backward()
    assert all(weight.grad is None for weight in recipe.model.parameters())
    assert all(weight.grad is not None for weight in recipe.critic.parameters())


def test_a_training_by_the_clock_is_done_when_its_time_is_up(tmp_path: Path, settings: Settings) -> None:
    config = settings(TINY, cosine_minutes=1e-9)
    folder = train(config, tmp_path)
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
    assert checkpoint["step"] == 1 and len(checkpoint["history"]) == 1
    assert "1 of 4 steps" in (folder / "README.md").read_text()
    train(config, tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 1
    with pytest.raises(OptionError, match="expected cosine_minutes of at least 0"):
        train(settings(TINY, cosine_minutes=-1.0), tmp_path / "wrong")


def test_a_training_stopped_early_resumes_to_the_same_bits(tmp_path: Path, settings: Settings) -> None:
    config = settings(CRITIC, clean_share=0.5)
    train(config, tmp_path / "unbroken")
    for step in range(1, config.steps):
        folder = train(config, tmp_path / "cut", minutes=0)
        assert load_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == step
        assert f"{step} of 4 steps" in (folder / "README.md").read_text()
    folder = train(config, tmp_path / "cut")
    assert "4 of 4 steps" in (folder / "README.md").read_text()
    for network in ("model", "average", "critic"):
        assert same(weights(tmp_path / "cut", network), weights(tmp_path / "unbroken", network))
    # A purifier that is saved again may have a weights file of another name.
    files = [
        path.read_bytes() for name in ("unbroken", "cut") for path in (tmp_path / name).glob("nrp-resg/*.safetensors")
    ]
    assert len(files) == 2 and files[0] == files[1]


def test_a_finished_training_is_not_trained_further(tmp_path: Path, settings: Settings) -> None:
    folder = train(settings(TINY), tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    assert (train(settings(TINY), tmp_path) / "model.safetensors").read_bytes() == before
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 4


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path, settings: Settings) -> None:
    train(settings(TINY), tmp_path)
    with pytest.raises(OptionError, match=r"got others: eps_low .* for .*, pixel_weight"):
        train(settings(TINY, pixel_weight=0.5, eps_low=0.0), tmp_path)


def test_events_and_sample_pictures_are_written(tmp_path: Path, settings: Settings) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit_to(settings(CRITIC, tensorboard=True, sample_every=2), tmp_path)
    samples = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in samples] == ["step-000002.png", "step-000004.png"]
    with Image.open(samples[0]) as picture:
        assert picture.mode == "RGB" and picture.size == (2 * 128, 4 * 128)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {f"train/{name}" for name in ("loss", "pixel", "feature", "adversarial", "critic")} <= scalars
    assert {f"validation/{name}" for name in ("psnr", "psr_clean", "psr_pgd", "psr_ssp")} <= scalars
    assert [event.step for event in events.Scalars("validation/psnr")] == [4]


def test_by_default_the_loop_writes_only_the_checkpoint(tmp_path: Path, settings: Settings) -> None:
    fit_to(settings(TINY), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_sample_pictures_start_with_the_clean_ones(settings: Settings) -> None:
    recipe = NRPRecipe(settings(TINY, start="identity"))
    clean, purified, attacked, undone = recipe.samples(recipe.model)
    assert clean.shape == (2, 3, 128, 128)
    assert torch.allclose(clean, purified, atol=1e-5) and torch.allclose(attacked, undone, atol=1e-5)
    assert 1 / 255 < (attacked - clean).abs().max() <= 16 / 255 + 1e-6


@pytest.fixture
def labelled(photos: Path, tmp_path: Path) -> Path:
    for number, name in enumerate(reference_model("demo").classes[:2]):
        folder = tmp_path / "labelled" / name
        folder.mkdir(parents=True)
        (folder / "picture.png").write_bytes((photos / f"{number}.png").read_bytes())
    return tmp_path / "labelled"


def test_labelled_pictures_give_accuracies(tmp_path: Path, settings: Settings, labelled: Path) -> None:
    fit_to(settings(TINY, labelled=str(labelled)), tmp_path / "out")
    (found,) = load_checkpoint(tmp_path / "out" / "checkpoint.pt")["history"]
    for name in ("standard", "robust_pgd", "robust_ssp"):
        assert found[name] in (0, 0.5, 1)


def test_accuracies_are_those_of_the_demo_classifier_for_the_identity(settings: Settings, labelled: Path) -> None:
    recipe = NRPRecipe(settings(TINY, labelled=str(labelled), start="identity"))
    found = recipe.validate(recipe.model)
    assert found["psr_clean"] == 1 and found["psnr"] > 90
    classifier = reference_model("demo")
    guessed = classifier(recipe._validation._labelled[0]).argmax(1)
    assert found["standard"] == (guessed == torch.arange(2)).float().mean().item()
    assert found["robust_pgd"] == 0


def test_labelled_pictures_of_other_classes_are_refused(settings: Settings, labelled: Path, photos: Path) -> None:
    (labelled / "unheard of").mkdir()
    (labelled / "unheard of" / "picture.png").write_bytes((photos / "0.png").read_bytes())
    with pytest.raises(InputError, match=r"in folders called .*, got unheard of; leave other folders out"):
        NRPRecipe(settings(TINY, labelled=str(labelled), validation_images=3))


def test_a_trained_purifier_is_grown(tmp_path: Path, settings: Settings) -> None:
    first = train(settings(TINY), tmp_path / "first")
    second = train(settings(TINY, init=str(first), blocks=5, learning_rate=1e-9), tmp_path / "second")
    images = torch.rand(1, 3, 16, 16)
    assert torch.allclose(Purifier.from_pretrained(first)(images), Purifier.from_pretrained(second)(images), atol=1e-5)


def test_a_small_network_becomes_a_full_one(tmp_path: Path, settings: Settings) -> None:
    size = {"network": "nrp-resg", "filters": 4, "blocks": 1, "start": "random"}
    first = train(settings(TINY, **size), tmp_path / "first")
    full = NRPRecipe(settings(TINY, init=str(first), network="nrp", filters=4, blocks=2, growth=2))
    images = torch.rand(1, 3, 16, 16)
    expected, grown = Purifier.from_pretrained(first).method(images), full.model(images)
    # The first block sees its input a 64th off.
    assert (grown - expected).abs().max() < expected.std() / 20


def test_a_purifier_of_another_kind_is_refused_as_a_start(settings: Settings) -> None:
    with pytest.raises(OptionError, match="expected init of the network's kind and width"):
        NRPRecipe(settings(TINY, init="median"))


def test_precision_can_change_between_trainings_in_one_process(tmp_path: Path, settings: Settings) -> None:
    single = train(settings(CRITIC), tmp_path / "no")
    half = train(settings(CRITIC, precision="bf16"), tmp_path / "bf16")
    again = train(settings(CRITIC), tmp_path / "again")
    one, two, three = (dict(Purifier.from_pretrained(folder).named_parameters()) for folder in (single, half, again))
    assert same(one, three) and not same(one, two)
    assert all(weight.dtype == torch.float32 and bool(weight.isfinite().all()) for weight in two.values())
