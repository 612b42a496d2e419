"""benchmarks/accuracy/headline.py, on a few synthetic pictures in front of the demo classifier."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.accuracy import attacked_images, headline
from benchmarks.accuracy.attacked_images import AttackedImages, Pictures
from purifier import reference_model
from purifier.attacks import PGD, Attack, Ensemble
from tests.builders import pictures

EPS = 8 / 255
TWO = ["FGSM 16/255", "MI-FGSM 16/255"]


def demo() -> nn.Module:
    return reference_model("demo").requires_grad_(False)


@pytest.fixture
def clean() -> Pictures:
    """Four 8-bit pictures, labelled as the classifier sees them, except the last."""
    images = (pictures(4, 3, 48, 48) * 255).round() / 255
    labels = demo()(images).argmax(1)
    labels[3] = (labels[3] + 1) % 24
    return Pictures(images, labels, (labels + 5) % 24)


@pytest.fixture
def run(clean: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the benchmark on two classifiers and returns their result files."""
    monkeypatch.setattr(headline, "nips", lambda: clean)
    monkeypatch.setattr(headline, "CLASSIFIERS", {"one": demo, "two": demo})
    monkeypatch.setattr(headline, "ENSEMBLES", {"one + three": lambda: Ensemble(demo(), demo())})

    def call(*options: str, folder: str = "first", ensembles: tuple[str, ...] = ()) -> dict[str, Any]:
        results = tmp_path / folder
        where = [
            "--cache",
            str(tmp_path / "cache"),
            "--results",
            str(results),
            "--threads",
            str(torch.get_num_threads()),
        ]
        headline.main(["run", *where, "--purifiers", "none", "jpeg", "--ensembles", *ensembles, *options])
        return {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}

    return call


def attacked(folder: Path, clean: Pictures, attack: Attack) -> AttackedImages:
    return AttackedImages(folder, attack, demo(), clean, "demo")


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


class Killed(PGD):
    """PGD that is killed at the third image."""

    def seeded(self, seed: int) -> PGD:
        if seed == 2:
            raise KeyboardInterrupt
        return super().seeded(seed)

    @property
    def name(self) -> str:
        return "PGD"


def test_a_cache_that_was_killed_resumes_to_the_same_bytes(
    tmp_path: Path, clean: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacked_images, "SHARD", 2)
    attacked(tmp_path / "whole", clean, PGD(eps=EPS, steps=2)).make(4)
    with pytest.raises(KeyboardInterrupt):
        attacked(tmp_path / "killed", clean, Killed(eps=EPS, steps=2)).make(4)
    half_written = tmp_path / "killed" / ".00001.safetensors.1.part"
    half_written.write_bytes(b"half a shard")
    assert list(shards(tmp_path / "killed")) == ["00000.safetensors"]
    attacked(tmp_path / "killed", clean, PGD(eps=EPS, steps=2)).make(4)
    assert shards(tmp_path / "killed") == shards(tmp_path / "whole")


def test_an_image_is_attacked_alike_in_shards_of_any_size(
    tmp_path: Path, clean: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(shard: int) -> list[Tensor]:
        monkeypatch.setattr(attacked_images, "SHARD", shard)
        found = attacked(tmp_path / str(shard), clean, PGD(eps=EPS, steps=2))
        found.make(4)
        return [found[k] for k in (3, 0, 2, 1)]

    assert all(torch.equal(a, b) for a, b in zip(made(1), made(3), strict=True))


def test_stored_images_are_those_of_the_seeded_attack_within_half_a_step_of_16_bits(
    tmp_path: Path, clean: Pictures
) -> None:
    found = attacked(tmp_path / "cache", clean, PGD(eps=EPS, steps=2))
    found.make(4)
    exact = PGD(eps=EPS, steps=2).seeded(1)(demo(), clean.images[1:2], clean.labels[1:2])
    torch.testing.assert_close(found[1], exact, rtol=0, atol=0.5001 / 65535)
    assert (found[1] - clean.images[1]).abs().max() > 0.9 * EPS
    assert not torch.equal(found[0] - clean.images[0], found[1] - clean.images[1])


def test_clean_images_are_stored_exactly(tmp_path: Path, clean: Pictures) -> None:
    found = attacked(tmp_path / "cache", clean, PGD(eps=EPS, steps=0, random_start=False))
    found.make(4)
    assert torch.equal(torch.cat([found[k] for k in range(4)]), clean.images)


def test_a_targeted_attack_goes_for_the_targets(tmp_path: Path, clean: Pictures) -> None:
    found = attacked(tmp_path / "cache", clean, PGD(eps=0.2, steps=20, targeted=True))
    found.make(4)
    assert torch.equal(demo()(torch.cat([found[k] for k in range(4)])).argmax(1), clean.targets)


def test_a_cache_of_other_settings_is_refused(tmp_path: Path, clean: Pictures) -> None:
    attacked(tmp_path, clean, PGD(eps=EPS, steps=2))
    with pytest.raises(SystemExit, match=r"this run's settings, got others \(attack.steps: 2 there, 3 here\)"):
        attacked(tmp_path, clean, PGD(eps=EPS, steps=3))


def test_more_images_extend_results_and_leave_earlier_ones_as_they_are(
    run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacked_images, "SHARD", 1)
    options = ["--attacks", "clean", *TWO]
    few = run("--images", "2", *options)
    before = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*.safetensors")}
    many = run("--images", "4", *options)
    at_once = run("--images", "4", *options, folder="second")
    assert before and all(path.read_bytes() == content for path, content in before.items())
    for name, result in many.items():
        assert result["rows"] == at_once[name]["rows"]
        for attack, row in few[name]["rows"].items():
            for purifier, cell in row.items():
                assert (cell["n"], result["rows"][attack][purifier]["n"]) == (2, 4)
                assert result["rows"][attack][purifier]["right"].startswith(cell["right"])


def test_each_classifier_looks_at_its_own_attacks_at_clean_images_and_at_transferred_ones(
    run: Callable[..., dict[str, Any]],
) -> None:
    result = run("--attacks", "clean", *TWO)["headline_two"]
    assert list(result["rows"]) == ["clean", "MI-FGSM 16/255 from one", *TWO]
    assert result["rows"]["clean"]["none"]["right"] == "1110"
    assert result["rows"]["MI-FGSM 16/255"] == result["rows"]["MI-FGSM 16/255 from one"]
    assert result["attacks"]["FGSM 16/255"]["attack"]["eps"] == 16 / 255
    assert result["attacks"]["MI-FGSM 16/255 from one"]["on"]["source"] == "one"
    assert result["purifiers"]["jpeg"]["method"] == "jpeg"
    low, high = result["rows"]["clean"]["none"]["interval"]
    assert low < 0.75 == result["rows"]["clean"]["none"]["accuracy"] < high


def test_classifiers_outside_an_ensemble_look_at_its_transferred_attacks(run: Callable[..., dict[str, Any]]) -> None:
    results = run("--attacks", "clean", *TWO, ensembles=("one + three",))
    assert "MI-FGSM 16/255 from one + three" not in results["headline_one"]["rows"]
    two = results["headline_two"]
    assert list(two["rows"]) == ["clean", "MI-FGSM 16/255 from one", *TWO, "MI-FGSM 16/255 from one + three"]
    # Two equal networks have the mean logits of one.
    assert two["rows"]["MI-FGSM 16/255 from one + three"] == two["rows"]["MI-FGSM 16/255 from one"]


def test_results_of_another_classifier_are_refused(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--attacks", "clean", "--images", "1")

    def other() -> nn.Module:
        model = demo()
        next(model.parameters()).data[0] += 1
        return model

    monkeypatch.setattr(headline, "CLASSIFIERS", {"one": other})
    with pytest.raises(SystemExit, match=r"headline_one.json to have this run's settings, got others \(classifier.sha"):
        run("--classifiers", "one", "--attacks", "clean", "--images", "1")


def test_the_table_has_a_row_an_attack_and_says_which_cells_have_fewer_images(
    run: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--classifiers", "one", "--attacks", TWO[0], "clean", "--images", "2")
    run("--classifiers", "one", "--attacks", "clean", "--images", "4", "--purifiers", "none")
    capsys.readouterr()
    headline.main(["table", "--results", str(tmp_path / "first")])
    head, _, clean, fgsm, _, two = capsys.readouterr().out.splitlines()
    assert head == "| one | n | none | jpeg |"
    assert clean.startswith("| clean | 4 | 75.0 (30-95) | ") and clean.endswith(", n=2 |")
    assert fgsm.startswith("| FGSM 16/255 | 2 | ") and "n=" not in fgsm
    assert two == "two: not measured yet."


def test_a_lite_classifier_has_the_classes_of_imagenet_and_gives_gradients() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    model, images = headline.lite(0), pictures(2, 3, 224, 224).requires_grad_()
    logits = model(images)
    assert logits.shape == (2, 1000) and not model.training
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), images)
    assert gradient.abs().amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize(
    "name", [name for name in headline.ATTACKS if name not in (*headline.COMMON, "AutoAttack 4/255")]
)
def test_every_attack_lowers_the_confidence_in_the_label(name: str, clean: Pictures) -> None:
    attack = headline.ATTACKS[name]()
    assert attack is not None
    goals = clean.targets if getattr(attack, "targeted", False) else clean.labels
    moved = attack.seeded(0)(demo(), clean.images[:1], goals[:1])
    before, after = (demo()(images).softmax(1)[0, clean.labels[0]] for images in (clean.images[:1], moved))
    assert after < before
