"""Banks of attacks: what is stored, that a stopped run resumes to the same bits, and what trainings draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from purifier import InputError, OptionError, Purifier
from purifier.cli import command
from purifier.data.crops import RandomCrops
from purifier.training.alloy import AlloyRecipe, train
from purifier.training.bank import Bank, BankPairs, BankSettings, make_bank
from purifier.training.bank.pairs import Pairs
from purifier.training.loop import fit
from tests.training.alloy.builders import configuration

NETWORKS = ("tiny=tests.training.features:tiny:0", "net=tests.training.features:classifier@0+2:0")
SOURCES = ("kl:net:64:2-4", "ssp:tiny:64:2", "l2:net:64:2", "cw:net:64:3", "apgd:net:64:3", "ti:net:64:2")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(84):
        small = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((48, 36), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    return folder


def settings(pictures: Path, **changes: Any) -> BankSettings:
    given = {"networks": NETWORKS, "sources": SOURCES, "size": 32, "validation_every": 4, "device": "cpu"} | changes
    return BankSettings(data=(str(pictures),), **given)


@pytest.fixture(scope="module")
def bank(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(settings(pictures), tmp_path_factory.mktemp("bank"))


def crops(pictures: Path, **changes: Any) -> RandomCrops:
    given: dict[str, Any] = {"crop_size": 16, "length": 200, "seed": 0} | changes
    return RandomCrops(sorted(pictures.glob("*.png")), **given)


def test_a_bank_holds_every_source_and_no_validation_picture(bank: Bank) -> None:
    assert sorted(bank.sources) == [
        "apgd-net-3-3", "cw-net-3-3", "kl-net-2-4", "l2-net-2-2", "ssp-tiny-2-2", "ti-net-2-2",
    ]  # fmt: skip
    # 21 of the 84 pictures are for validation.
    assert [bank.count(name) for name in bank.sources] == [63] * 6


def test_perturbations_stay_within_eps_and_the_image_range(bank: Bank) -> None:
    for source in ("kl-net-2-4", "ssp-tiny-2-2", "apgd-net-3-3", "ti-net-2-2"):
        for index in range(0, 63, 7):
            entry = bank.entry(source, index)
            assert 2 / 255 - 1e-6 <= entry.eps <= 18 / 255 + 1e-6
            assert 0 < entry.perturbation.abs().max() <= entry.eps + 1e-6
            attacked = entry.clean + entry.perturbation
            assert attacked.min() >= -entry.eps / 127
            assert attacked.max() <= 1 + entry.eps / 127


def test_each_batch_of_pictures_draws_its_own_strength_and_steps(bank: Bank) -> None:
    (facts,) = bank.facts("kl-net-2-4")
    assert len(facts["eps"].unique()) == 4
    assert set(facts["steps"].tolist()) <= {2, 3, 4}
    assert sorted(facts["pictures"].tolist()) == list(range(63))


def test_a_stopped_bank_resumes_to_the_same_bytes(bank: Bank, pictures: Path, tmp_path: Path) -> None:
    for _ in range(20):
        again = make_bank(settings(pictures), tmp_path, minutes=1e-9)
        if all(again.count(name) for name in bank.sources):
            break
    files = sorted(path.relative_to(bank.folder) for path in bank.folder.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.safetensors"))
    assert all((bank.folder / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_sources_can_be_added_but_settings_cannot_change(pictures: Path, tmp_path: Path) -> None:
    make_bank(settings(pictures, sources=("kl:net:1:2",)), tmp_path)
    grown = make_bank(settings(pictures, sources=("pgd:net+net:1:2",)), tmp_path)
    assert sorted(grown.sources) == ["kl-net-2-2", "pgd-net+net-2-2"]
    with pytest.raises(OptionError, match="size"):
        make_bank(settings(pictures, size=48), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": ("gaussian:1",)}, "expected attacks as sources of a bank, got gaussian"),
        ({"sources": ("kl:net:0.5:2",)}, "expected a whole number of pictures, got kl:net:0.5"),
        ({"eps_low": 0.0}, "expected eps_low above 0"),
        ({"size": 8}, "expected size to be an integer from 32"),
        ({"precision": "fp8"}, "expected precision as one of no, bf16"),
        ({"sizes": 32}, "got 'sizes'; did you mean 'size'"),
    ],
)
def test_settings_out_of_range_are_refused(pictures: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        settings(pictures, **change)


def test_networks_with_other_classes_make_no_ensemble(pictures: Path, tmp_path: Path) -> None:
    networks = (*NETWORKS, "demo=reference:demo:0")
    with pytest.raises(OptionError, match=r"same classes in kl:net\+demo, got net with \d+, demo with 24"):
        make_bank(settings(pictures, networks=networks, sources=("kl:net+demo:1:2",)), tmp_path)


def test_a_pair_differs_by_at_most_the_perturbation(bank: Bank, pictures: Path) -> None:
    pairs = BankPairs(bank, crops(pictures), sources=("kl-net-2-4",))
    found = [pairs[index] for index in range(120)]
    assert all(one["attacked"] and one["drawn"] for one in found)
    assert all(one["clean"].shape == one["perturbed"].shape == (3, 16, 16) for one in found)
    changes = torch.tensor([(one["perturbed"] - one["clean"]).abs().max() for one in found])
    # Three in four are not degraded afterwards.
    assert (changes <= 18 / 255 + 1e-6).float().mean() > 0.7
    assert (changes > 0).all()


def test_a_share_of_the_samples_are_crops_for_the_training_to_perturb(bank: Bank, pictures: Path) -> None:
    pairs = BankPairs(bank, crops(pictures), share=0.5)
    own = [index for index in range(200) if not pairs[index]["drawn"]]
    assert 70 < len(own) < 130
    assert all(torch.equal(pairs[index]["clean"], crops(pictures)[index]) for index in own[:5])
    assert not any(pairs[index]["attacked"] for index in own)


def test_samples_depend_on_the_seed_and_index_only(bank: Bank, pictures: Path) -> None:
    first, second = BankPairs(bank, crops(pictures)), BankPairs(Bank(bank.folder), crops(pictures))
    assert all(torch.equal(first[k]["perturbed"], second[k]["perturbed"]) for k in (3, 0, 199))
    other = BankPairs(bank, crops(pictures, seed=1))
    assert not torch.equal(first[3]["perturbed"], other[3]["perturbed"])


def test_only_crops_that_do_not_come_from_the_bank_are_perturbed() -> None:
    clean, drawn = torch.rand(4, 3, 8, 8), torch.tensor([True, False, True, False])
    pairs = Pairs(clean, clean + 1, drawn.clone(), drawn).completed(lambda x: x + 2, attacked=False)
    assert torch.equal(pairs.perturbed - clean, (clean + torch.tensor([1.0, 2, 1, 2]).view(4, 1, 1, 1)) - clean)
    assert pairs.attacked.tolist() == [True, False, True, False]


def test_a_bank_without_pictures_or_of_another_kind_is_refused(bank: Bank, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder that `purifier bank make` has made"):
        Bank(tmp_path)
    with pytest.raises(OptionError, match=r"got 'kl-net-2-3'; did you mean 'kl-net-2-4'"):
        BankPairs(bank, crops(pictures), sources=("kl-net-2-3",))
    with pytest.raises(OptionError, match="expected crops of at most 32 pixels"):
        BankPairs(bank, crops(pictures, crop_size=33))
    empty = Bank.create(tmp_path / "empty", {"size": 32})
    with pytest.raises(InputError, match="got none; run `purifier bank make` further"):
        BankPairs(empty, crops(pictures))


def test_a_damaged_shard_is_named(bank: Bank, pictures: Path, tmp_path: Path) -> None:
    broken = make_bank(settings(pictures, sources=("kl:net:1:2",)), tmp_path)
    path = broken.shard("kl-net-2-2", 0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="delete it and run `purifier bank make` again"):
        Bank(tmp_path).count("kl-net-2-2")


def test_alloy_trains_on_a_bank_and_resumes(bank: Bank, pictures: Path, tmp_path: Path) -> None:
    config = configuration(pictures, bank=str(bank.folder), bank_share=0.7, gate=4, gate_worst=0.5, steps=6)
    whole = fit(AlloyRecipe(config), config, tmp_path / "whole").model.state_dict()
    fit(AlloyRecipe(config), config, tmp_path / "halves", minutes=1e-9)
    halves = fit(AlloyRecipe(config), config, tmp_path / "halves").model.state_dict()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    folder = train(config, tmp_path / "trained")
    assert Purifier.from_pretrained(folder)(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16, 16)


def test_the_command_makes_and_shows_a_bank(pictures: Path, tmp_path: Path) -> None:
    given = ["--data", str(pictures), "--network", "x"]
    assert CliRunner().invoke(command, ["bank", "make", *given, "--out", str(tmp_path)]).exit_code == 2
    given = ["--data", str(pictures), "--networks", NETWORKS[1], "--sources", "kl:net:1:2", "--size", "32"]
    made = CliRunner().invoke(command, ["bank", "make", *given, "--out", str(tmp_path / "bank"), "--device", "cpu"])
    assert made.exit_code == 0, made.output
    shown = CliRunner().invoke(command, ["bank", "show", str(tmp_path / "bank")])
    assert "| kl-net-2-2 | 64 | 2-2 |" in shown.output
