"""The mean of trained alloys."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.recipes.average_alloy import averaged
from purifier import Purifier
from purifier.methods.alloy import Alloy


def _saved(folder: Path, seed: int, **options: int) -> str:
    torch.manual_seed(seed)
    Purifier(Alloy(filters=8, blocks=1, **options)).save_pretrained(folder)
    return str(folder)


def test_the_mean_weighs_networks_and_has_the_gate_of_the_one_asked_for(tmp_path: Path) -> None:
    names = [_saved(tmp_path / str(seed), seed, gate=8 * seed) for seed in (0, 1, 2)]
    found = averaged({names[0]: 0.25, names[1]: 0.75}, gate=names[2]).state_dict()
    states = [Purifier.from_pretrained(name).method.state_dict() for name in names]
    for key, weight in found.items():
        wanted = states[2][key] if key.startswith("gate.") else 0.25 * states[0][key] + 0.75 * states[1][key]
        torch.testing.assert_close(weight, wanted)
    assert any(key.startswith("gate.") for key in found)
    assert not any(key.startswith("gate.") for key in averaged({names[1]: 1.0}).state_dict())


def test_a_gate_is_sharpened_and_options_are_changed(tmp_path: Path) -> None:
    free, gated = _saved(tmp_path / "free", 0), _saved(tmp_path / "gated", 1, gate=8, gate_blocks=1)
    found = averaged({free: 1.0}, gate=gated, sharpen=3.0, gate_bias=0.5, blur=2)
    given, images = Purifier.from_pretrained(gated).method, torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(found.gate.logits(images), 3 * given.gate.logits(images))
    assert found.options == {**given.options, "gate_bias": 0.5, "blur": 2}


def test_shares_that_do_not_add_up_and_networks_of_two_sizes_are_refused(tmp_path: Path) -> None:
    one, other = _saved(tmp_path / "one", 0), _saved(tmp_path / "other", 0, levels=2)
    with pytest.raises(SystemExit, match="add up to 1"):
        averaged({one: 0.5})
    with pytest.raises(SystemExit, match=r"expected options of alloy \(.*\), got wdith"):
        averaged({one: 1.0}, wdith=3)
    with pytest.raises(SystemExit, match="networks of one size"):
        averaged({one: 0.5, other: 0.5})
