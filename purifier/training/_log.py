"""What a training leaves to look at: TensorBoard events and sample pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from purifier._images import write_image


class Log:
    """Writes scalars and pictures below a folder.

    Args:
        out: The folder.
        tensorboard: Whether to write events; pictures are always files too.
        start: Step that the training goes on from; later events of a run that was killed are hidden.
    """

    def __init__(self, out: Path, tensorboard: bool, start: int) -> None:
        self.out = out
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=start)

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def pictures(self, rows: list[Tensor], step: int) -> None:
        """Writes rows of pictures (N, 3, H, W), one below the other, as samples/step-<step>.png."""
        picture = torch.cat([torch.cat(list(row.detach().cpu().float().clamp(0, 1)), 2) for row in rows], 1)
        pixels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        write_image(Image.fromarray(pixels), self.out / "samples" / f"step-{step:06d}.png")
        if self._writer is not None:
            self._writer.add_image("samples", picture, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
