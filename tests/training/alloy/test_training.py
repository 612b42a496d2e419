"""The Alloy training: losses by hand, the same bits after a real kill, two processes, a folder that loads."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from torch.nn.functional import softplus

from purifier import InputError, OptionError, Purifier, UnknownNameError
from purifier.cli import command
from purifier.methods.alloy import Alloy
from purifier.training._checkpoint import load_checkpoint
from purifier.training._loop import fit
from purifier.training.alloy import AlloyRecipe, AlloyTraining, train
from purifier.training.alloy._extractors import Extractor
from tests.builders import small_purifier
from tests.training.alloy.builders import TINY, configuration
from tests.training.processes import killed_and_resumed, train_in_two
from tests.training.states import close, gradients, same, weights

SCRIPT = """
import os, sys, time, torch
torch.set_num_threads(1)
from purifier.training import _critic
_critic._WIDTHS = (4, 4, 4, 8, 8)
from purifier.training.alloy import AlloyRecipe, AlloyTraining, train
losses, used = AlloyRecipe.losses, []
def slow(self, model, batch, step):
    used[:] = [self]
    time.sleep(float(sys.argv[3]))
    return losses(self, model, batch, step)
AlloyRecipe.losses = slow
train(AlloyTraining(data=(sys.argv[1],), **%r), sys.argv[2])
networks = {"model": used[0].model, "critic": used[0].critic or torch.nn.Identity()}
found = {name: dict(network.named_parameters()) for name, network in networks.items()}
found["gradients"] = {name: weight.grad for name, weight in found["model"].items()}
torch.save(found, sys.argv[2] + "/weights-" + os.environ.get("RANK", "0") + ".pt")
"""


@pytest.fixture
def settings(photos):
    return lambda **changes: configuration(photos, **changes)


def fit_to(config: AlloyTraining, out: Path) -> AlloyRecipe:
    recipe = AlloyRecipe(config)
    fit(recipe, config, out)
    return recipe


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits_as_an_unbroken_one(photos, tmp_path):
    config = {**TINY, "steps": 10, "validate_every": 4, "unroll": 2, "head_start": 1, "aware_share": 0.5}
    halfway = killed_and_resumed(SCRIPT % config, photos, tmp_path)
    assert 0 < halfway["step"] < config["steps"]
    files = [(tmp_path / name / "alloy" / "model.safetensors").read_bytes() for name in ("unbroken", "killed")]
    assert files[0] == files[1]
    for kind in ("model", "average"):
        assert same(weights(tmp_path / "unbroken", kind), weights(tmp_path / "killed", kind))
    assert not same(halfway["model"], weights(tmp_path / "killed"))
    histories = [load_checkpoint(tmp_path / name / "checkpoint.pt")["history"] for name in ("unbroken", "killed")]
    assert histories[0] == histories[1] and [row["step"] for row in histories[0]] == [4, 8, 10]


@pytest.mark.slow
def test_two_processes_train_together_on_attacks_of_their_own(photos, tmp_path):
    critic = {"adversarial_weight": 5e-3, "crop_size": 32}
    config = {**TINY, **critic, "batch_size": 8, "accumulate": 2, "unroll": 2, "aware_share": 0.5}
    train_in_two(SCRIPT % config, photos, tmp_path / "two")
    first, second = (torch.load(tmp_path / "two" / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert same(first["model"], second["model"])
    assert first["critic"] and same(first["critic"], second["critic"])
    purifier = Purifier.from_pretrained(tmp_path / "two" / "alloy")
    assert bool(purifier(torch.rand(1, 3, 20, 20)).isfinite().all())


@pytest.mark.slow
def test_two_processes_give_what_one_gives_where_nothing_is_random(photos, tmp_path, settings):
    # The pixel loss alone, because the unit of the feature loss is that of a process's own part of the batch.
    changes = {"sources": ("none:1",), "extractors": (), "batch_size": 4, "unroll": 2, "start": "random", "gate": 4}
    train_in_two(SCRIPT % {**TINY, **changes}, photos, tmp_path / "two")
    two = torch.load(tmp_path / "two" / "weights-0.pt", weights_only=True)
    model = fit_to(settings(**changes), tmp_path / "one").model
    assert close(dict(model.named_parameters()), two["model"])
    assert close(gradients(model), two["gradients"])


def test_training_writes_a_purifier_with_a_card(tmp_path, settings):
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
        ema_decay=0.5,
    )
    folder = train(config, tmp_path)
    assert folder == tmp_path / "alloy-s"
    purifier = Purifier.from_pretrained(folder)
    assert purifier.name == "alloy-s" and purifier.iterations == 3
    size = {"patch": 1, "filters": 12, "blocks": 2, "levels": 1}
    gate = {"gate": 4, "gate_blocks": 1, "gate_bias": 0.5}
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


def test_training_lowers_the_loss_from_the_identity_on(tmp_path, settings):
    # Room beside the copies of the pixels.
    network = {"filters": 24, "learning_rate": 5e-3, "steps": 60, "batch_size": 8, "ema_decay": 0.0}
    config = settings(**network, start="identity", sources=("sign:1",), eps_low=18 / 255)
    recipe = AlloyRecipe(config)
    batch = torch.stack([recipe.crops[number] for number in range(12)])

    def loss(model: torch.nn.Module) -> float:
        torch.manual_seed(5)
        with torch.no_grad():
            return recipe.losses(model, batch, 0).total.item()

    before = loss(recipe.model)
    assert loss(fit(recipe, config, tmp_path).model) < 0.95 * before


@pytest.mark.parametrize("unroll", [1, 3])
def test_the_loss_is_the_weighted_sum_of_means_over_applications(settings, unroll):
    recipe = AlloyRecipe(settings(sources=("none:1",), start="random", unroll=unroll))
    batch, method = torch.rand(2, 3, 16, 16), recipe.model.method
    with torch.no_grad():
        losses = recipe.losses(recipe.model, batch, 0)
        outputs = [method.reconstruct(batch)]
        while len(outputs) < unroll:
            outputs.append(method.reconstruct(outputs[-1].clamp(0, 1)))
        expected = {"pixel": sum((one - batch).abs().mean() for one in outputs) / unroll}
        for extractor in recipe.extractors:
            clean = extractor.features(batch)
            found = [
                (one - two).abs().mean() / two.abs().mean()
                for output in outputs
                for one, two in zip(extractor.features(output.clamp(0, 1)), clean, strict=True)
            ]
            expected[extractor.name] = sum(found) / len(found)
    assert losses.parts.keys() == expected.keys() == {"pixel", "tiny", "judge"}
    for name, value in expected.items():
        assert losses.parts[name].item() == pytest.approx(value.item(), rel=1e-5)
    total = 4 * expected["pixel"] + 0.5 * expected["tiny"] + 0.25 * expected["judge"]
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.parametrize("unroll", [1, 2])
def test_the_belief_loss_is_the_divergence_of_each_network_that_classifies(settings, unroll):
    twice = (*TINY["extractors"], "again=tests.training.features:judge:0")
    recipe = AlloyRecipe(settings(extractors=twice, sources=("none:1",), unroll=unroll, belief_weight=0.7))
    assert [one.name for one in recipe.classifiers] == ["judge"]
    judge, batch = recipe.classifiers[0].network, torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        losses = recipe.losses(recipe.model, batch, 0)
        clean = judge(batch).softmax(1)
        outputs = [judge(output.clamp(0, 1)).softmax(1) for output in recipe.model(batch)]
        expected = sum((clean * (clean / output).log()).sum(1).mean() for output in outputs) / unroll
    assert losses.parts["beliefs"].item() == pytest.approx(expected.item(), rel=1e-4)
    others = 4 * losses.parts["pixel"] + 0.5 * losses.parts["tiny"] + 0.25 * losses.parts["judge"]
    assert losses.total.item() == pytest.approx((others + 0.7 * expected).item(), rel=1e-4)
    assert expected > 1e-3


def test_extractors_look_at_clean_and_purified_crops_of_one_size_that_is_drawn(settings, monkeypatch):
    recipe = AlloyRecipe(settings(sources=("none:1",), views=0.5, crop_size=32))
    seen, look = [], Extractor.look
    monkeypatch.setattr(Extractor, "look", lambda self, images: seen.append(images.shape[-2:]) or look(self, images))
    sizes = set()
    for _ in range(40):
        seen.clear()
        recipe.losses(recipe.model, torch.rand(2, 3, 32, 48), 0)
        assert len(seen) == 4 and len(set(seen)) == 1
        sizes.add(tuple(seen[0]))
    assert {height for height, _ in sizes} == {16, 32, 48} and all(width % 16 == 0 for _, width in sizes)


def test_the_critic_judges_the_last_application_and_learns_by_a_loss_of_its_own(settings):
    recipe = AlloyRecipe(settings(sources=("none:1",), unroll=2, crop_size=32, adversarial_weight=0.3))
    batch = torch.rand(2, 3, 32, 32)
    # In eval mode, as its batch norm would otherwise see other batches here.
    critic = recipe.critic.eval()
    losses = recipe.losses(recipe.model, batch, 0)
    with torch.no_grad():
        real, fake = critic(batch), critic(recipe.model(batch)[-1])
    expected = softplus(real.mean() - fake).mean()
    assert losses.parts["adversarial"].item() == pytest.approx(expected.item(), rel=1e-5)
    others = 4 * losses.parts["pixel"] + 0.5 * losses.parts["tiny"] + 0.25 * losses.parts["judge"]
    assert losses.total.item() == pytest.approx((others + 0.3 * expected).item(), rel=1e-5)
    judged = (softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()) / 2
    assert losses.critic().item() == pytest.approx(judged.item(), rel=1e-5)
    before = [weight.grad for weight in recipe.model.parameters()]
    losses.critic().backward()
    assert all(weight.grad is not None for weight in critic.parameters())
    assert before == [weight.grad for weight in recipe.model.parameters()] == [None] * len(before)


def test_purifier_and_critic_go_on_to_the_same_bits(tmp_path, settings):
    config = settings(steps=3, crop_size=32, adversarial_weight=0.3)
    start = AlloyRecipe(config).critic.state_dict()
    train(config, tmp_path / "unbroken")
    for _ in range(3):
        train(config, tmp_path / "cut", minutes=0)
    for kind in ("model", "average", "critic"):
        assert same(weights(tmp_path / "unbroken", kind), weights(tmp_path / "cut", kind))
    assert not same(weights(tmp_path / "cut", "critic"), start)


def test_the_network_of_ncis_is_trained_in_the_same_way(tmp_path, settings):
    config = settings(network="ncis", name="blind", filters=4, blocks=3, iterations=2, unroll=2, belief_weight=1.0)
    purifier = Purifier.from_pretrained(train(config, tmp_path / "first"))
    size = {"patch": 2, "filters": 4, "layers": 3, "kernel_size": 11}
    assert purifier.method.options == {"iterations": 2, **size, "clamp": True}
    assert not same(purifier.method.state_dict(), AlloyRecipe(config).model.method.state_dict())
    # Its blind spot stays: no output patch depends on its own input patch, but through the Gaussian pass.
    images = torch.rand(1, 3, 24, 24, requires_grad=True)
    purifier.method.network(images)[0, :, 10:12, 10:12].sum().backward()
    assert not images.grad[0, :, 10:12, 10:12].any() and images.grad.any()
    again = train(replace(config, init=str(tmp_path / "first" / "blind"), learning_rate=1e-9), tmp_path / "second")
    found, known = Purifier.from_pretrained(again)(images.detach()), purifier(images.detach())
    assert torch.allclose(found, known, atol=1e-5)
    assert "The network of NCIS" in (again / "README.md").read_text()


@pytest.mark.parametrize("unroll", [1, 2])
def test_the_teacher_is_what_a_trained_purifier_makes_of_the_same_images(settings, tmp_path, unroll):
    small_purifier("nrp-resg").save_pretrained(tmp_path / "taught")
    changes = {"teacher": str(tmp_path / "taught"), "teacher_weight": 3.0, "belief_weight": 1.0, "unroll": unroll}
    recipe = AlloyRecipe(settings(**changes, sources=("sign:1",), start="random"))
    batch, seen = torch.rand(2, 3, 16, 16), []

    def watched(images: torch.Tensor) -> list[torch.Tensor]:
        seen.append(images)
        return recipe.model(images)

    losses = recipe.losses(watched, batch, 0)
    (spoilt,) = seen
    assert not torch.equal(spoilt, batch)
    with torch.no_grad():
        taught = Purifier.from_pretrained(tmp_path / "taught")(spoilt)
        expected = sum((output - taught).abs().mean() for output in recipe.model(spoilt)) / unroll
    assert losses.parts["teacher"].item() == pytest.approx(expected.item(), rel=1e-5)
    others = 4 * losses.parts["pixel"] + 0.5 * losses.parts["tiny"] + 0.25 * losses.parts["judge"]
    others = others + losses.parts["beliefs"]
    assert losses.total.item() == pytest.approx((others + 3 * expected).item(), rel=1e-5)
    before = [weight.clone() for weight in recipe.teacher.parameters()]
    losses.total.backward()
    assert all(weight.grad is None for weight in recipe.teacher.parameters())
    assert all(weight.grad is not None for weight in recipe.model.parameters())
    recipe.to(torch.device("meta"))
    assert before and all(weight.is_meta for weight in recipe.teacher.parameters())


def test_a_teacher_alone_is_enough_and_one_that_weighs_nothing_is_not(settings):
    changes = {"teacher": "gs", "pixel_weight": 0.0, "extractors": (), "sources": ("sign:1",)}
    recipe = AlloyRecipe(settings(**changes, belief_weight=1.0))
    assert set(recipe.losses(recipe.model, torch.rand(2, 3, 16, 16), 0).parts) == {"teacher"}
    with pytest.raises(OptionError, match="one of them above"):
        AlloyRecipe(settings(**changes, teacher_weight=0.0))
    with pytest.raises(UnknownNameError, match=r"expected one of .*'sg'"):
        AlloyRecipe(settings(teacher="sg"))


def test_without_the_clamp_applications_see_what_came_before_as_it_is(settings):
    recipe = AlloyRecipe(settings(clamp=False, start="random", unroll=2))
    batch, method = torch.rand(2, 3, 16, 16), recipe.model.method
    with torch.no_grad():
        once, twice = recipe.model(batch)
        assert once.min() < 0
        torch.testing.assert_close(twice, method.reconstruct(once))


def test_a_head_start_is_none_or_some_applications_without_a_gradient(settings):
    recipe = AlloyRecipe(settings(sources=("none:1",), start="random", head_start=2))
    batch, method, seen = torch.rand(2, 3, 16, 16), recipe.model.method, []

    def watched(images: torch.Tensor) -> list[torch.Tensor]:
        seen.append(images)
        return recipe.model(images)

    for _ in range(20):
        loss = recipe.losses(watched, batch, 0).total
    assert loss.requires_grad and not any(images.requires_grad for images in seen)
    once = method.step(batch)
    with torch.no_grad():
        starts = [batch, once, method.step(once)]
    counts = [sum(torch.allclose(images, start, atol=1e-6) for images in seen) for start in starts]
    assert sum(counts) == 20 and min(counts) > 0


def test_a_head_start_in_half_precision_leaves_every_weight_its_gradient(settings):
    recipe = AlloyRecipe(settings(sources=("none:1",), start="random", head_start=2))
    for _ in range(10):
        recipe.model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = recipe.losses(recipe.model, torch.rand(2, 3, 16, 16), 0).total
        loss.backward()
        assert all(weight.grad is not None for weight in recipe.model.parameters())


def test_a_gradient_that_is_too_long_is_shortened(tmp_path, settings):
    def last(name: str, **changes: float) -> torch.Tensor:
        config = settings(steps=1, start="random", **changes)
        return torch.cat([one.flatten() for one in gradients(fit_to(config, tmp_path / name).model).values()])

    free = last("free")
    assert torch.equal(last("wide", gradient_norm=2 * free.norm().item()), free)
    short = last("short", gradient_norm=free.norm().item() / 4)
    torch.testing.assert_close(short, free / 4, rtol=1e-4, atol=0)
    with pytest.raises(OptionError, match="expected gradient_norm of at least 0"):
        last("wrong", gradient_norm=-1.0)


VARIANTS = {
    "whole": ({}, {"pixel", "tiny", "judge"}),
    "no pixels": ({"pixel_weight": 0.0}, {"tiny", "judge"}),
    "pixels alone": ({"extractors": (), "sources": ("sign:1",)}, {"pixel"}),
    "attacked only": ({"extractors": ("judge=tests.training.features:judge:0",), "sources": ("kl:*:1:1",)}, {"pixel"}),
    "reference": (
        {"extractors": ("demo=reference:demo@stages:1",), "sources": ("ssp:*:1:1", "kl:*:1:1"), "crop_size": 32},
        {"pixel", "demo"},
    ),
    "unrolled": ({"unroll": 3}, {"pixel", "tiny", "judge"}),
    "aware": ({"aware_share": 1.0}, {"pixel", "tiny", "judge"}),
    "aware in half precision": ({"aware_share": 1.0, "precision": "bf16"}, {"pixel", "tiny", "judge"}),
    "no clamp": ({"clamp": False, "unroll": 2}, {"pixel", "tiny", "judge"}),
    "head start": ({"head_start": 2}, {"pixel", "tiny", "judge"}),
    "scales": ({"levels": 3}, {"pixel", "tiny", "judge"}),
    "wide patches": ({"patch": 4, "filters": 5}, {"pixel", "tiny", "judge"}),
    "identity start": ({"start": "identity"}, {"pixel", "tiny", "judge"}),
    "beliefs": ({"belief_weight": 1.0}, {"pixel", "tiny", "judge", "beliefs"}),
    "gated": ({"gate": 4, "steps": 8}, {"pixel", "tiny", "judge", "gate"}),
    "gated and unrolled": (
        {"gate": 4, "steps": 8, "unroll": 2, "head_start": 1, "aware_share": 1.0, "precision": "bf16"},
        {"pixel", "tiny", "judge", "gate"},
    ),
    "varied": ({"vary": 1.0}, {"pixel", "tiny", "judge"}),
    "shrunk": ({"shrink": 0.5}, {"pixel", "tiny", "judge"}),
    "views": ({"views": 0.5, "crop_size": 32, "belief_weight": 1.0}, {"pixel", "tiny", "judge", "beliefs"}),
    "taught": ({"teacher": "ncis"}, {"pixel", "teacher", "tiny", "judge"}),
    "taught in half precision": (
        {"teacher": "ncis", "teacher_weight": 1.0, "pixel_weight": 0.0, "precision": "bf16"},
        {"teacher", "tiny", "judge"},
    ),
}


@pytest.mark.parametrize(("changes", "parts"), VARIANTS.values(), ids=VARIANTS)
def test_every_variant_trains_all_weights(tmp_path, settings, changes, parts):
    config = settings(**changes)
    recipe = AlloyRecipe(config)
    batch = torch.rand(2, 3, config.crop_size, config.crop_size)
    assert set(recipe.losses(recipe.model, batch, 0).parts) == parts
    before = {name: weight.clone() for name, weight in recipe.model.named_parameters()}
    fitted = fit(recipe, config, tmp_path)
    assert all(bool(weight.isfinite().all()) for weight in fitted.model.parameters())
    assert not [name for name, weight in recipe.model.named_parameters() if torch.equal(weight, before[name])]


@pytest.mark.parametrize("source", ["sign", "none"])
def test_the_loss_of_the_gate_is_its_cross_entropy_on_clean_and_spoilt_images(settings, source):
    recipe = AlloyRecipe(settings(gate=4, gate_weight=0.7, sources=(f"{source}:1",), eps_low=18 / 255))
    batch, gate, seen = torch.rand(2, 3, 16, 16), recipe.model.method.gate, []

    def watched(images: torch.Tensor) -> list[torch.Tensor]:
        seen.append(images)
        return recipe.model(images)

    with torch.no_grad():
        losses = recipe.losses(watched, batch, 0)
        attacked, clean = (gate.logits(images).sigmoid() for images in (seen[0], batch))
        spoilt = attacked if source == "sign" else 1 - attacked
        expected = -(spoilt.log().mean() + (1 - clean).log().mean()) / 2
    assert losses.parts["gate"].item() == pytest.approx(expected.item(), rel=1e-5)
    others = 4 * losses.parts["pixel"] + 0.5 * losses.parts["tiny"] + 0.25 * losses.parts["judge"]
    assert losses.total.item() == pytest.approx((others + 0.7 * expected).item(), rel=1e-5)
    assert torch.equal(seen[0], batch) == (source == "none")


def test_where_the_gate_alone_learns_nothing_else_is_computed(settings, monkeypatch, tmp_path):
    trained = train(settings(name="free"), tmp_path / "free")
    recipe = AlloyRecipe(settings(gate=4, only_gate=True, sources=("sign:1",), init=str(trained), gate_weight=0.7))
    monkeypatch.setattr(Alloy, "reconstruct", None)
    batch, calls = torch.rand(2, 3, 16, 16), []
    losses = recipe.losses(lambda images: calls.append(len(images)) or recipe.model(images), batch, 0)
    assert losses.parts.keys() == {"gate"} and calls == [4]
    assert losses.total.item() == pytest.approx(0.7 * losses.parts["gate"].item())
    losses.total.backward()
    assert all(weight.grad is not None for weight in recipe.model.method.gate.parameters())


def test_the_gate_alone_learns_to_tell_spoilt_images_from_clean_ones(tmp_path, settings):
    trained = train(settings(name="free"), tmp_path / "free")
    changes = {"steps": 150, "learning_rate": 5e-3, "batch_size": 8, "sources": ("sign:1",), "eps_low": 18 / 255}
    gate = {"gate": 8, "gate_blocks": 1, "only_gate": True, "init": str(trained)}
    config = settings(**changes, **gate, extractors=(), crop_size=32)
    folder = train(config, tmp_path / "gated")
    free, gated = Purifier.from_pretrained(trained).method, Purifier.from_pretrained(folder).method
    assert same(gated.network.state_dict(), free.network.state_dict())
    crops = torch.stack([AlloyRecipe(config).crops[number] for number in range(8)])
    spoilt = (crops + 18 / 255 * (2 * torch.randint_like(crops, 2) - 1)).clamp(0, 1)
    with torch.no_grad():
        assert gated.gate(crops).mean() < 0.3 and gated.gate(spoilt).mean() > 0.7
        assert (gated(crops) - crops).abs().mean() < 0.5 * (free(crops) - crops).abs().mean()


def test_extractors_stay_as_they_are(tmp_path, settings):
    config = settings(aware_share=0.5)
    recipe = AlloyRecipe(config)
    before = [{key: value.clone() for key, value in one.state_dict().items()} for one in recipe.extractors]
    fit(recipe, config, tmp_path)
    for extractor, old in zip(recipe.extractors, before, strict=True):
        assert same(extractor.state_dict(), old)
        assert all(weight.grad is None for weight in extractor.parameters())


def test_an_aware_attack_leaves_the_weights_without_gradients(settings):
    recipe = AlloyRecipe(settings(aware_share=1.0, sources=("kl:judge:1:2",)))
    recipe.sources.spoil(torch.rand(2, 3, 16, 16), recipe.sources.draw())
    assert all(weight.grad is None and weight.requires_grad for weight in recipe.model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_weight": 0.0, "extractors": ()}, "expected loss weights >= 0, one of them above"),
        ({"pixel_weight": -1.0}, "expected loss weights >= 0, one of them above"),
        ({"teacher": "gs", "teacher_weight": -1.0}, "expected loss weights >= 0, one of them above"),
        ({"belief_weight": -1.0}, "expected loss weights >= 0, one of them above"),
        (
            {"pixel_weight": 0.0, "belief_weight": 1.0, "extractors": (), "sources": ("sign:1",)},
            "expected a loss beside belief_weight",
        ),
        ({"eps_low": 0.1, "eps": 0.05}, "expected 0 <= eps_low <= eps <= 1"),
        ({"eps": 16.0}, "in units of the"),
        ({"attack_alpha": 0.0}, "expected attack_alpha in"),
        ({"aware_share": 1.5}, "aware_share in"),
        ({"only_gate": True, "gate": 4}, "expected a gate, .* and an init .* got gate=4, .* and init=''"),
        ({"only_gate": True, "init": "alloy"}, "expected a gate, .* and an init .* got gate=0, .* and init='alloy'"),
        ({"only_gate": True, "init": "alloy", "gate": 4, "gate_weight": 0.0}, "its weight, .* gate_weight=0.0"),
        ({"gate": 4, "gate_weight": -1.0}, "expected loss weights >= 0, one of them above"),
        ({"vary": 1.5}, r"expected vary to be a number from 0\.0 to 1\.0, got 1\.5"),
        ({"adversarial_weight": -1.0}, "expected loss weights >= 0, one of them above"),
        ({"adversarial_weight": 1.0}, "expected a crop_size that is a multiple of 32 with a critic, got 16"),
        ({"extractors": ("adversarial=vgg16:1",)}, "got adversarial, a loss; rename it"),
        ({"network": "nrp"}, "expected network as one of alloy, ncis, got 'nrp'"),
        ({"adversarial_weight": float("nan")}, "expected loss weights >= 0, one of them above"),
        (
            {"only_gate": True, "init": "alloy", "gate": 4, "adversarial_weight": 1.0, "crop_size": 32},
            r"expected adversarial_weight=0 with only_gate, .*, got 1\.0",
        ),
        ({"network": "ncis", "gate": 4, "gate_bias": 1.0}, r"with network='ncis', got gate=4, gate_bias=1\.0; change"),
        ({"network": "ncis", "start": "identity", "levels": 2}, "with network='ncis', got levels=2, start='identity'"),
        ({"network": "ncis", "blocks": 1}, "expected layers"),
        ({"network": "ncis", "blocks": 3, "init": "alloy-s"}, "expected init to name a NCIS of the size"),
        ({"start": "zero"}, "expected start as one of random, identity, got 'zero'"),
        ({"filters": 11, "start": "identity"}, "expected filters of at least 12"),
        ({"unroll": 0}, "expected unroll of at least 1"),
        ({"head_start": -1}, "expected head_start of at least 0"),
        ({"views": 1.0}, r"expected views in \[0, 1\), a share of the sides of crops, got 1\.0"),
        ({"name": "a/b"}, "expected name as that of a folder.*got 'a/b'"),
        ({"name": ".."}, "expected name as that of a folder.*got '..'"),
        ({"extractors": ("vgg16",)}, "expected an extractor as NAME=MODEL"),
        ({"sources": ("fgsm:judge:1:1",)}, "expected a source as ATTACK:EXTRACTOR:SHARE:STEPS"),
        ({"sources": ("ssp:vgg:1:1",)}, r"expected a source on one of the extractors \(tiny, judge\), got ssp:vgg"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, changes, message):
    with pytest.raises(OptionError, match=message):
        AlloyRecipe(settings(**changes))


def test_training_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected images"):
        AlloyRecipe(configuration(tmp_path))


def test_other_settings_in_the_same_folder_are_refused(tmp_path, settings):
    train(settings(), tmp_path)
    with pytest.raises(OptionError, match=r"got others: pixel_weight .* for .*, sources"):
        train(settings(pixel_weight=0.5, sources=("none:1",)), tmp_path)


def test_a_run_that_began_before_there_was_a_setting_goes_on_with_its_default(tmp_path, settings):
    train(settings(), tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["settings"]["adversarial_weight"], state["settings"]["network"]
    torch.save(state, tmp_path / "checkpoint.pt")
    train(settings(), tmp_path)
    with pytest.raises(OptionError, match=r"got others: network 'ncis' for 'alloy'"):
        train(settings(network="ncis", levels=1), tmp_path)


def test_a_training_cut_short_goes_on_to_the_same_bits(tmp_path, settings):
    config = settings(steps=3)
    train(config, tmp_path / "unbroken")
    for step in (1, 2):
        folder = train(config, tmp_path / "cut", minutes=0)
        assert f"{step} of 3 steps" in (folder / "README.md").read_text()
    train(config, tmp_path / "cut")
    assert same(weights(tmp_path / "unbroken"), weights(tmp_path / "cut"))


def test_a_trained_purifier_can_be_trained_further(tmp_path, settings):
    first = train(settings(start="random"), tmp_path / "first")
    second = train(settings(init=str(first), learning_rate=1e-9, iterations=2), tmp_path / "second")
    images = torch.rand(1, 3, 16, 16)
    assert torch.allclose(Purifier.from_pretrained(first)(images), Purifier.from_pretrained(second)(images), atol=1e-5)


def test_sample_pictures_start_with_the_clean_ones(settings):
    recipe = AlloyRecipe(settings(start="identity"))
    clean, purified, attacked, undone = recipe.samples(recipe.model)
    assert clean.shape == (2, 3, 128, 128)
    assert torch.allclose(clean, purified, atol=1e-5) and torch.allclose(attacked, undone, atol=1e-5)
    assert 1 / 255 < (attacked - clean).abs().max() <= 16 / 255 + 1e-6


def test_the_command_trains_on_a_network_of_the_users_own_and_keeps_its_settings(photos, tmp_path):
    config = tmp_path / "settings.yaml"
    tuples = ("extractors", "sources")
    plain = {key: list(value) if key in tuples else value for key, value in TINY.items()}
    config.write_text(yaml.safe_dump({**plain, "data": [str(photos)]}))
    mine, spoilt = "mine=tests.training.features:judge:0.25", ("ssp:*:0.8:1", "none:0.2")
    call = ["train", "alloy", "--config", config, "--out", tmp_path / "first", "--extractors", mine]
    result = CliRunner().invoke(command, [*map(str, call), "--sources", spoilt[0], "--sources", spoilt[1]])
    assert result.exit_code == 0, result.output
    kept = tmp_path / "first" / "alloy" / "training.yaml"
    values = yaml.safe_load(kept.read_text())
    assert values["extractors"] == [mine] and values["sources"] == list(spoilt)
    again = CliRunner().invoke(command, ["train", "alloy", "--config", str(kept), "--out", str(tmp_path / "second")])
    assert again.exit_code == 0, again.output
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"))


def test_the_command_has_the_defaults_of_the_settings(monkeypatch):
    import purifier.training.alloy as package

    got = []
    monkeypatch.setattr(package, "train", lambda config, out, *, minutes: got.append(config) or out)
    result = CliRunner().invoke(command, ["train", "alloy", "--data", "photographs", "--out", "run"])
    assert result.exit_code == 0, result.output
    assert got == [AlloyTraining(data=("photographs",))]


def test_labelled_pictures_give_accuracies(photos, tmp_path, settings):
    folder = tmp_path / "labelled" / "cat"
    folder.mkdir(parents=True)
    Image.open(photos / "0.png").save(folder / "0.png")
    recipe = AlloyRecipe(settings(labelled=str(tmp_path / "labelled"), start="identity"))
    found = recipe.validate(recipe.model)
    assert {"standard", "robust_pgd", "robust_ssp"} <= found.keys()
    # Validated at the purifier's own iterations, which start as the identity.
    assert found["psr_clean"] == 1 and found["psnr"] > 90
