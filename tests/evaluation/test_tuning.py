"""Tuning: trials equal the purifier and the model called by hand, the paper's choice is made, and runs resume."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from purifier import InputError, OptionError, Purifier
from purifier.attacks import PGD
from purifier.data.finding import labelled_images
from purifier.evaluation import LabelledImages, tuning
from purifier.evaluation.tuning import Trial, Tuning, choose, clearly_lower, tune, write_purifier
from purifier.evaluation.tuning_figure import draw_tuning
from purifier.methods.ncis import FBINet
from purifier.models.loading import LoadedModel
from tests.builders import pictures, small_method, small_purifier, unchanged

SIZE, COUNT = 16, 10
# Without a random start it needs no seed.
ATTACK = PGD(eps=16 / 255, steps=3, random_start=False)


@pytest.fixture
def model() -> LoadedModel:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 7 * 7, 3)).eval()
    return LoadedModel("tiny", net, None, {"name": "tiny"})


@pytest.fixture
def folder(tmp_path: Path, model: LoadedModel) -> Path:
    """Pictures in folders named by the class that the model gives most of them."""
    images = (pictures(COUNT, 3, SIZE, SIZE) * 255).round().byte()
    labels = model.call(images.float() / 255).argmax(1).tolist()
    labels[0] = (labels[0] + 1) % 3
    for number in range(3):
        (tmp_path / "data" / str(number)).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        picture.save(tmp_path / "data" / str(label) / f"{index}.png")
    return tmp_path / "data"


@pytest.fixture
def data(folder: Path) -> LabelledImages:
    return labelled_images(folder, SIZE)


@pytest.fixture
def ncis(tmp_path: Path) -> Path:
    """A small NCIS in a folder of its own."""
    small_purifier("ncis").save_pretrained(tmp_path / "ncis")
    return tmp_path / "ncis"


def run(model: LoadedModel, data: LabelledImages, purifier: str | Path, out: Path, **options: Any) -> Tuning:
    return tune(model, data, purifier, **{"attack": ATTACK, "out": out, "batch_size": 4, **options})


@pytest.mark.parametrize("name", ["gs", "ncis"])
def test_each_trial_is_what_purifier_and_model_give(
    model: LoadedModel, data: LabelledImages, ncis: Path, tmp_path: Path, name: str
) -> None:
    source = ncis if name == "ncis" else "gs"
    found = run(model, data, source, tmp_path / "out", iterations=[1, 2, 4])
    for trial in found.trials:
        purifier = Purifier.from_pretrained(source, **trial.options)
        clean, blind = [], []
        for batch in data.batches(4):
            images, labels = data.load(batch)
            hostile = ATTACK(model.call, images, labels)
            clean += (model.call(purifier(images)).argmax(1) == labels).tolist()
            blind += (model.call(purifier(hostile)).argmax(1) == labels).tolist()
        assert (trial.standard, trial.blind) == (tuple(clean), tuple(blind))
    assert [dict(trial.options) for trial in found.trials] == [{"iterations": i} for i in (1, 2, 4)]
    assert sum(found.undefended.standard) == COUNT - 1


def test_ncis_continues_from_the_setting_before(
    model: LoadedModel, data: LabelledImages, ncis: Path, tmp_path: Path
) -> None:
    calls = []
    hook = nn.modules.module.register_module_forward_hook(
        # Loading tries the network on a single small image.
        lambda module, inputs, _: calls.append(module) if isinstance(module, FBINet) and len(inputs[0]) > 1 else None
    )
    with hook:
        run(model, data, ncis, tmp_path / "out", iterations=[1, 3, 8])
    # Three batches, each clean and attacked: 8 applications of the network, not 1 + 3 + 8.
    assert len(calls) == 3 * 2 * 8


def test_images_are_attacked_once_for_all_settings(
    model: LoadedModel, data: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    attack = PGD.__call__
    monkeypatch.setattr(PGD, "__call__", lambda self, m, x, y: calls.append(len(x)) or attack(self, m, x, y))
    found = run(model, data, "gs", tmp_path / "out", iterations=[1, 2], kernel_sizes=[3, 5])
    assert calls == [4, 4, 2]
    assert [trial.name for trial in found.trials] == [
        "iterations=1,kernel_size=3",
        "iterations=2,kernel_size=3",
        "iterations=1,kernel_size=5",
        "iterations=2,kernel_size=5",
    ]


def test_a_stopped_run_resumes_with_the_same_result(
    model: LoadedModel, data: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"iterations": [1, 2], "aware_images": 5, "attack": PGD(eps=16 / 255, steps=3)}
    whole = run(model, data, "gs", tmp_path / "whole", **options)
    calls = []
    attack = PGD.__call__

    def failing(self: PGD, m: Any, x: Tensor, y: Tensor) -> Tensor:
        calls.append(len(x))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return attack(self, m, x, y)

    monkeypatch.setattr(PGD, "__call__", failing)
    with pytest.raises(KeyboardInterrupt):
        run(model, data, "gs", tmp_path / "out", **options)
    torch.manual_seed(99)
    again = run(model, data, "gs", tmp_path / "out", **options)
    assert calls == [4, 4, 4, 2, 4, 1]
    assert again.trials == whole.trials and again.aware.robust == whole.aware.robust
    run(model, data, "gs", tmp_path / "out", **options)
    assert len(calls) == 6


def test_results_of_other_settings_are_not_mixed(model: LoadedModel, data: LabelledImages, tmp_path: Path) -> None:
    run(model, data, "gs", tmp_path / "out", iterations=[1])
    with pytest.raises(OptionError, match=r"seed: 0 there, 1 here.*choose another --out"):
        run(model, data, "gs", tmp_path / "out", iterations=[1], seed=1)
    with pytest.raises(OptionError, match=r"purifiers\.iterations=2"):
        run(model, data, "gs", tmp_path / "out", iterations=[1, 2])


def test_the_aware_figure_is_that_of_an_attack_through_the_whole(
    model: LoadedModel, data: LabelledImages, tmp_path: Path
) -> None:
    with unchanged(model.call):
        found = run(model, data, "gs", tmp_path / "out", iterations=[2], aware_images=4)
    defended = Purifier.from_pretrained("gs", iterations=2).wrap(model.call)
    images, labels = data.pick([0, 2, 5, 7]).load(range(4))
    hostile = ATTACK(defended, images, labels)
    assert found.aware is not None and found.aware.images == 4
    assert found.aware.robust == int((defended(hostile).argmax(1) == labels).sum())
    assert run(model, data, "gs", tmp_path / "other", iterations=[2]).aware is None


def trial(iterations: int, standard: int, blind: int, count: int = 100, **options: int) -> Trial:
    def first(right: int) -> tuple[bool, ...]:
        return tuple(index < right for index in range(count))

    return Trial(options={"iterations": iterations, **options}, standard=first(standard), blind=first(blind))


def test_the_highest_mean_is_chosen() -> None:
    trials = [trial(1, 80, 10), trial(3, 75, 40), trial(5, 60, 50)]
    assert choose(trials) is trials[1]
    assert trials[1].mean == pytest.approx(0.575)


def test_of_equals_the_cheapest_is_chosen() -> None:
    trials = [trial(5, 70, 40, kernel_size=3), trial(2, 75, 35, kernel_size=7), trial(2, 70, 40, kernel_size=5)]
    assert choose(trials) is trials[2]


def test_settings_that_chance_may_tell_apart_are_named() -> None:
    best = trial(2, 75, 40)
    near, far = trial(3, 75, 39), trial(4, 60, 30)
    assert not clearly_lower(near, best) and clearly_lower(far, best)
    found = tuning.Tuning(trials=(best, near, far), undefended=trial(0, 90, 0), chosen=best, aware=None, settings={})
    assert found.level == [near]
    assert found.worthwhile
    assert not dataclasses.replace(found, undefended=trial(0, 90, 40)).worthwhile


@pytest.mark.parametrize(
    ("lost", "both", "told"), [(1, 1, False), (2, 2, False), (5, 0, False), (6, 0, True), (6, 3, True)]
)
def test_few_images_do_not_distinguish_settings(lost: int, both: int, told: bool) -> None:
    """`lost` clean images, and `both` of them attacked as well."""
    best = Trial(options={"iterations": 1}, standard=(True,) * 8, blind=(True,) * 8)
    standard, blind = ((False,) * n + (True,) * (8 - n) for n in (lost, both))
    assert clearly_lower(dataclasses.replace(best, standard=standard, blind=blind), best) == told


def test_the_probability_of_differences_by_chance_is_exact() -> None:
    ones, twos = 5, 3
    sums = [sum(signs[:ones]) + 2 * sum(signs[ones:]) for signs in itertools.product((-1, 1), repeat=ones + twos)]
    for total in range(-12, 13):
        assert tuning._by_chance(ones, twos, total) == pytest.approx(
            sum(s >= total for s in sums) / len(sums), abs=1e-12
        )


def test_the_method_behind_a_gate_is_tuned(
    model: LoadedModel, data: LabelledImages, ncis: Path, tmp_path: Path
) -> None:
    alloy = Purifier(small_method("alloy", gate=3))
    gated = Purifier.from_pretrained(ncis).gated(alloy)
    gated.save_pretrained(tmp_path / "gated")
    found = run(model, data, tmp_path / "gated", tmp_path / "out", iterations=[1, 3])
    write_purifier(found, tmp_path / "chosen", tmp_path / "gated")
    gated.iterations = found.chosen.options["iterations"]
    images = pictures(2, 3, SIZE, SIZE)
    assert torch.equal(Purifier.from_pretrained(tmp_path / "chosen")(images), gated(images))


def test_the_chosen_purifier_is_written_with_its_figures(
    model: LoadedModel, data: LabelledImages, ncis: Path, tmp_path: Path
) -> None:
    found = run(model, data, ncis, tmp_path / "out", iterations=[1, 3], aware_images=2)
    write_purifier(found, tmp_path / "chosen", ncis)
    loaded = Purifier.from_pretrained(tmp_path / "chosen")
    assert loaded.iterations == found.chosen.options["iterations"]
    images = pictures(2, 3, SIZE, SIZE)
    assert torch.equal(loaded(images), Purifier.from_pretrained(ncis, **found.chosen.options)(images))
    card = (tmp_path / "chosen" / "README.md").read_text()
    assert f"`purifier tune` chose `{found.chosen.name}` for tiny" in card
    assert "purifier-blind PGD" in card and "of 2 images" in card


def test_everything_is_ready_for_json(model: LoadedModel, data: LabelledImages, tmp_path: Path) -> None:
    found = run(model, data, "gs", tmp_path / "out", iterations=[1, 2], aware_images=2)
    record = json.loads(json.dumps(found.to_dict()))
    assert record["threat"] == "blind" and record["chosen"] == dict(found.chosen.options)
    assert record["trials"][0]["blind_interval"][0] <= record["trials"][0]["blind_accuracy"]
    assert record["aware"]["images"] == 2 and record["settings"]["attack"]["steps"] == 3


@pytest.mark.parametrize("kernels", [(), (3, 5)])
def test_the_figure_is_drawn(model: LoadedModel, data: LabelledImages, tmp_path: Path, kernels: Sequence[int]) -> None:
    found = run(model, data, "gs", tmp_path / "out", iterations=[1, 2], kernel_sizes=kernels)
    draw_tuning(found, tmp_path / "figure.png", title="a", subtitle="b", note="c")
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.format == "PNG" and figure.width > 900
        assert len(figure.convert("RGB").getcolors(1 << 24)) > 20
    assert not list(tmp_path.glob(".*part"))


@pytest.mark.parametrize(
    ("purifier", "options", "text"),
    [
        ("jpeg", {}, "expected a purifier with iterations to tune, such as gs or ncis, got 'jpeg'"),
        ("ncis", {"kernel_sizes": [3]}, "'kernel_size', which is fixed by the trained weights"),
        ("gs", {"kernel_sizes": [4]}, "expected kernel_size to be an odd integer"),
        ("gs", {"iterations": []}, "expected numbers of iterations from 1"),
        ("gs", {"iterations": [0, 1]}, "expected numbers of iterations from 1"),
    ],
)
def test_options_that_cannot_be_tuned_are_refused(
    model: LoadedModel, data: LabelledImages, tmp_path: Path, purifier: str, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(OptionError, match=text):
        run(model, data, purifier, tmp_path / "out", **options)


def test_models_and_labels_that_do_not_fit_are_refused(
    model: LoadedModel, data: LabelledImages, tmp_path: Path
) -> None:
    wrong = dataclasses.replace(data, labels=(7,) * COUNT)
    with pytest.raises(InputError, match=r"expected labels within 0..2, as the model has 3 classes, got 7"):
        run(model, wrong, "gs", tmp_path / "out")
    dense = LoadedModel("dense", nn.Conv2d(3, 3, 1), None, {"name": "dense"})
    with pytest.raises(InputError, match=r"expected logits \(N, classes\) from a classifier, got a tensor of"):
        run(dense, data, "gs", tmp_path / "other")
    with pytest.raises(InputError, match="expected at least one image to evaluate on, got none"):
        run(model, data.pick([]), "gs", tmp_path / "third")
