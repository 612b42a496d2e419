"""A data set of noise and a step of it, in a module that is quick to import in workers."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from tests.builders import pictures


class Noise(Dataset[tuple[Tensor, int]]):
    """Pictures of a transform's making."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.transform(pictures(1, 3, 16, 16, seed=number)[0]), number


class Processed:
    """What a processor of transformers makes of one picture."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Tensor) -> Tensor:
        values: Tensor = self.processor(image, return_tensors="pt")["pixel_values"][0]
        return values
