"""What gad_measure.py measures, and how it joins the stages of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.recipes import gad_linf
from benchmarks.recipes.gad_measure import curve, parts_of
from purifier import Purifier
from tests.attacks.victims import examples, sizes, trained


def test_stages_of_a_training_are_joined(tmp_path: Path) -> None:
    stages: list[dict[str, Any]] = [
        {"steps": 4, "history": [{"step": 2, "clean": 0.1}, {"step": 4, "clean": 0.2}], "seconds": 5},
        {"steps": 3, "history": [{"step": 3, "clean": 0.3}], "seconds": 2},
    ]
    for number, stage in enumerate(stages):
        settings = {"steps": stage["steps"], "data": "/somewhere"}
        (tmp_path / str(number)).mkdir()
        torch.save({**stage, "settings": settings}, tmp_path / str(number) / "checkpoint.pt")
    assert curve([tmp_path / "0", tmp_path / "1"]) == {
        "settings": [{"steps": 4}, {"steps": 3}],
        "history": [{"step": 2, "clean": 0.1}, {"step": 4, "clean": 0.2}, {"step": 7, "clean": 0.3}],
        "seconds": 7,
    }
    assert curve([tmp_path / "0"])["settings"] == {"steps": 4}


def test_only_the_chain_with_jpeg_is_measured_by_bpda() -> None:
    gad, gs = Purifier.from_pretrained("gad-cifar10-resnet20"), Purifier.from_pretrained("gs")
    parts = parts_of({"gad": gad}, {"gs": gs}, 8, 2)
    found = {part: (list(purifiers), threat.name, count) for part, (purifiers, threat, count) in parts.items()}
    assert found == {
        "blind": (["gs", "gad", "gad, jpeg"], "blind", 8),
        "aware": (["gad"], "aware", 2),
        "bpda": (["gad, jpeg"], "bpda", 2),
    }
    assert not parts["bpda"][0]["gad, jpeg"].differentiable


def test_the_attacks_of_the_papers_table_stay_in_its_ball() -> None:
    victim, (images, labels) = trained(), examples(8, seed=3)
    for name, attack in gad_linf.attacks().items():
        found = attack(victim, images, labels)
        assert 0.02 < sizes(found, images, "Linf").max() <= 0.031 + 1e-6, name
