"""The classifier that the three services serve. Put yours into `build`.

Each service takes the bytes of a picture at POST /predict and answers with the likeliest class, its probability and the
attack score. PURIFIER names the purifier, `alloy-s` by default; PURIFIER=none serves the bare classifier.
"""

from __future__ import annotations

import os
import threading
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

import purifier

# Larger requests are refused. Mark images above the threshold of `purifier detect --calibrate` for your own pictures.
MOST_BYTES, MOST_PIXELS = 10 << 20, 4_000_000
THRESHOLD = float(os.environ.get("THRESHOLD", "0.5"))


def build() -> nn.Module:
    """Your classifier of images in [0, 1]. If yours takes normalised images, give `wrap` its mean and std."""
    return purifier.reference_model("demo").eval()


class Classifier:
    """A classifier behind a purifier. Several threads can call it."""

    def __init__(self) -> None:
        name = os.environ.get("PURIFIER", "alloy-s")
        self.classes = build().classes
        self.model = build() if name == "none" else purifier.wrap(build(), name)
        self.seen = threading.local()
        if name != "none":
            self.model.on_score(self._keep)

    def _keep(self, scores: Tensor) -> None:
        self.seen.scores = scores

    @torch.inference_mode()
    def __call__(self, images: list[Tensor]) -> list[dict[str, Any]]:
        """Classifies images (3, H, W) of any sizes; those of one size go through the model together."""
        answers: list[dict[str, Any]] = [{} for _ in images]
        sizes: dict[Any, list[int]] = {}
        for index, image in enumerate(images):
            sizes.setdefault(image.shape, []).append(index)
        for indices in sizes.values():
            self.seen.scores = [None] * len(indices)
            probabilities = self.model(torch.stack([images[index] for index in indices])).softmax(1)
            for index, row, score in zip(indices, probabilities, self.seen.scores, strict=True):
                best = int(row.argmax())
                answers[index] = {
                    "class": self.classes[best],
                    "probability": float(row[best]),
                    "attack_score": None if score is None else float(score),
                }
        return answers


def read(content: bytes) -> Tensor:
    """Returns a picture as a tensor (3, H, W) in [0, 1]; raises ValueError if it is none, or too large."""
    try:
        with Image.open(BytesIO(content), formats=["PNG", "JPEG", "WEBP"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"expected at most {MOST_PIXELS} pixels, got {image.width} x {image.height}")
            return F.to_dtype(F.pil_to_tensor(image.convert("RGB")), torch.float32, scale=True)
    except Image.DecompressionBombError as error:
        raise ValueError(f"expected at most {MOST_PIXELS} pixels") from error
    except (OSError, SyntaxError) as error:
        raise ValueError("expected a PNG, JPEG or WebP picture") from error


def is_attacked(answer: dict[str, Any]) -> bool:
    """Whether the score of an answer is above the threshold."""
    return answer["attack_score"] is not None and answer["attack_score"] > THRESHOLD
