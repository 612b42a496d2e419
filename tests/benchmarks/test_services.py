"""benchmarks/accuracy/services.py: local services, asked over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.accuracy import services


class Sharp(nn.Module):
    """A linear classifier with many classes, whose whole answer an attack changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(12, 400, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images - 0.4, 2).flatten(1) @ self.get_buffer("weight") * 100


@pytest.mark.slow
def test_the_table_has_a_row_for_each_purifier(small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "SERVICES", {"one": lambda: Sharp().eval(), "other": lambda: Sharp().eval()})
    monkeypatch.setattr(services, "ITERATIONS", (1, 2))
    threads = torch.get_num_threads()
    few = ["--pairs", "2", "--validation-pairs", "1", "--purifiers", "gs", "jpeg", "--work", str(results / "work")]
    services.main(["one", *few])
    torch.set_num_threads(threads)
    found: dict[str, Any] = json.loads((results / "services_one.json").read_text())
    assert [row["purifier"] for row in found["rows"]] == ["none", "gs", "jpeg"]
    assert found["pairs"] == 2 and found["settings"]["k"] == 5 and set(found["weights"]) == {"gs", "jpeg"}
    lines = services.markdown("one", found).splitlines()
    assert lines[0].startswith("one: 2 pairs") and lines[4].startswith("| none | 100.0 (34-100) |")


def test_a_service_answers_with_the_likeliest_labels() -> None:
    model = Sharp().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with services.serving(model) as address:
        labels = services.client(address, Image.fromarray(pixels))
    assert labels == [f"{index}" for index in model(image)[0].topk(5).indices.tolist()]
