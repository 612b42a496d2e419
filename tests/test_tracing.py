"""What code is told of the graph that torch records."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from purifier._tracing import is_exporting, is_tracing


class Told(nn.Module):
    """Adds 1 while an exporter records, and 10 while anything does."""

    def forward(self, images: Tensor) -> Tensor:
        return images + is_exporting() + 10 * is_tracing()


def test_only_an_exporter_exports() -> None:
    images = torch.zeros(2)
    assert Told()(images).tolist() == [0, 0]
    assert torch.compile(Told(), backend="eager", fullgraph=True)(images).tolist() == [10, 10]
    for strict in (False, True):
        program = torch.export.export(Told(), (images,), strict=strict)
        assert program.module()(images).tolist() == [11, 11]
