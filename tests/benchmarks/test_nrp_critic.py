"""nrp_critic.py: a critic that learns alone, and a run on a few small pictures that resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from benchmarks.recipes import nrp_critic
from benchmarks.recipes.nrp_critic import Crops, Variant
from purifier.training import critic

TINY = {
    "network": "nrp-resg", "features": "benchmarks.recipes.extractors:feature_extractor", "attack_steps": 1,
    "precision": "no", "device": "cpu", "adversarial_weight": 0.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def narrow_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critic, "_WIDTHS", (4, 4, 4, 8, 8))


@pytest.mark.parametrize(
    "variant", [Variant(rate=1e-2), Variant(rate=1e-2, norm=False), Variant(rate=1e-2, joined=True)]
)
def test_a_critic_learns_to_tell_noise(variant: Variant) -> None:
    torch.manual_seed(0)
    clean = torch.rand(96, 3, 1, 1).expand(-1, -1, 64, 64).clone()
    other = (clean + 0.2 * torch.randn_like(clean)).clamp(0, 1)
    found = nrp_critic.learn(variant, Crops(clean[:64], other[:64], clean[64:], other[64:]), 40)
    first, *_, last = found["curve"]
    assert last["loss"] < min(0.4, first["loss"]) and last["training"] >= 30


def test_without_batch_norm_no_layer_has_statistics() -> None:
    kinds = [
        {type(layer) for layer in nrp_critic.critic_of(Variant(norm=norm)).modules()} >= {nn.BatchNorm2d}
        for norm in (True, False)
    ]
    assert kinds == [True, False]


def test_judging_leaves_the_critic_as_it_was() -> None:
    held = torch.rand(8, 3, 64, 64)
    one = nrp_critic.critic_of(Variant())
    before = {name: value.clone() for name, value in one.state_dict().items()}
    found = nrp_critic.judged(one, Variant(), Crops(held, held, held, held + 0.1))
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert set(found) == {"training", "eval"} and all(0 <= count <= 8 for count in found.values())


@pytest.mark.slow
def test_a_run_writes_its_table_and_resumes(
    small_kit: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(TINY))
    monkeypatch.setattr(nrp_critic, "BASE", tmp_path / "base.yaml")
    monkeypatch.setattr(nrp_critic, "TRAINING", 8)
    monkeypatch.setattr(nrp_critic, "HELD_OUT", 8)
    few = {name: Variant(**{**nrp_critic.VARIANTS[name].__dict__, "side": 32, "batch": 4})
           for name in ("as in the training", "attacked crops, not purified")}  # fmt: skip
    monkeypatch.setattr(nrp_critic, "VARIANTS", few)
    arguments = ["--steps", "4", "--work", str(tmp_path / "work")]
    nrp_critic.main(arguments)
    found = json.loads((results / "nrp_critic.json").read_text())
    assert list(found["rows"]) == list(few)
    assert [point["step"] for point in found["rows"]["as in the training"]["curve"]] == [1, 2, 3, 4]
    assert nrp_critic.markdown(found).count("\n") == 5
    monkeypatch.setattr(nrp_critic, "learn", None)
    nrp_critic.main(arguments)
