"""benchmarks/accuracy/honest_tables.py: the attackers with a purifier of their own; what is measured alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from purifier import Purifier
from tests.builders import pictures


def test_an_attackers_own_purifier_stands_in_front_of_either_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.accuracy import honest_tables

    torch.manual_seed(0)
    networks = {
        name: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(5)).eval() for name in honest_tables.OTHER
    }
    monkeypatch.setattr(honest_tables, "model", lambda name, device: networks[name])
    images, labels = pictures(2, 3, 32, 32), torch.tensor([1, 2])
    with torch.no_grad():
        purified = Purifier.from_pretrained("alloy-s")(images)
        expected = {name: network(purified) for name, network in networks.items()}
    threats = honest_tables.surrogates("resnet50", "cpu")
    assert list(threats) == ["through alloy-s and resnet50", "through alloy-s and mobilenet_v2"]
    for threat, name in zip(threats.values(), ("resnet50", "mobilenet_v2"), strict=True):

        def attack(model: nn.Module, images: Tensor, targets: Tensor, name: str = name) -> Tensor:
            images = images.clone().requires_grad_()
            logits = model(images)
            torch.testing.assert_close(logits, expected[name])
            (gradient,) = torch.autograd.grad(logits.sum(), images)
            return gradient

        assert bool(threat(attack, None, images, labels).abs().sum() > 0)
        assert threat.settings()["surrogates"] == [f"alloy-s + {name}"]


def test_what_is_measured_alone_takes_images_and_batches_of_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.accuracy import honest_tables

    monkeypatch.setattr(honest_tables, "RESULTS", tmp_path)
    assert honest_tables.measured_with("resnet50", "aware") == {}
    settings = {"images": 5, "batch_size": 1, "seed": 0}
    (tmp_path / "honest_resnet50_aware.json").write_text(json.dumps({"settings": settings}))
    assert honest_tables.measured_with("resnet50", "aware") == {"images": 5, "batch_size": 1}
