"""Attacked images in a cache: shards that are written whole, so that making them resumes after a kill.

Images are attacked one at a time, in float32, and the attack of image k has the seed k: they do not depend on a batch
size, on the order of work or on interruptions. They are stored in 16 bits: clean 8-bit images are exact
(65535 = 257 * 255), and others are off by at most half a step, 0.002/255.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from purifier._files import replacing, write_text
from purifier._identity import model_identity
from purifier._records import differences
from purifier.attacks import Attack
from purifier.attacks.identity import attack_settings

SHARD = 10  # images in a file


@dataclass(frozen=True)
class Pictures:
    """Clean images (N, 3, H, W) in [0, 1], their labels (N,), and the classes (N,) that targeted attacks aim at."""

    images: Tensor
    labels: Tensor
    targets: Tensor

    @property
    def sha256(self) -> str:
        """Hash of the images."""
        return hashlib.sha256(self.images.numpy().tobytes()).hexdigest()


class AttackedImages:
    """The images of one attack on one classifier: a folder of shards, each written whole or not at all.

    Args:
        folder: Made if it does not exist. A folder with other settings is refused.
        attack: The attack; None for clean images, which are not stored.
        network: The classifier; None for attacks that do not depend on it.
        pictures: The clean images.
        source: Name of the classifier.
    """

    def __init__(
        self, folder: Path, attack: Attack | None, network: nn.Module | None, pictures: Pictures, source: str
    ) -> None:
        self.folder, self.attack, self.pictures = folder, attack, pictures
        # SSP takes None for the classifier.
        self.network: Any = network
        self.settings: dict[str, Any] = {}
        self._last: tuple[int, Tensor] = (-1, pictures.images[:0])
        if attack is None:
            return
        on = {"source": source, **(model_identity(network) if network else {})}
        self.settings = {"attack": attack_settings(attack), "on": on, "seed": "index of the image", "stored": "uint16"}
        stated = folder / "settings.json"
        held = {**self.settings, "images": pictures.sha256, "shard": SHARD}
        if not stated.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(stated, json.dumps(held, indent=1))
        check_same(json.loads(stated.read_text()), held, stated)

    def make(self, count: int) -> None:
        """Attacks the first `count` images, as far as their shards are missing."""
        if self.attack is None:
            return
        for number in range(-(-count // SHARD)):
            if not self._path(number).exists():
                end = min((number + 1) * SHARD, len(self.pictures.images))
                moved = torch.cat([self._attacked(index) for index in range(number * SHARD, end)])
                with replacing(self._path(number)) as temporary:
                    temporary.write_bytes(save({"images": (moved * 65535).round().to(torch.uint16)}))

    def __getitem__(self, index: int) -> Tensor:
        """One attacked image (1, 3, H, W) in [0, 1], float32, that `make` has made."""
        if self.attack is None:
            return self.pictures.images[index : index + 1]
        number, place = divmod(index, SHARD)
        if self._last[0] != number:
            self._last = (number, load_file(self._path(number))["images"])
        return self._last[1][place : place + 1].float() / 65535

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def _attacked(self, index: int) -> Tensor:
        assert self.attack is not None
        goals = self.pictures.targets if getattr(self.attack, "targeted", False) else self.pictures.labels
        image, goal = self.pictures.images[index : index + 1], goals[index : index + 1]
        return self.attack.seeded(index)(self.network, image, goal)


def check_same(there: Any, here: dict[str, Any], path: Path) -> None:
    """Refuses a file that was made with other settings."""
    if found := differences(json.loads(json.dumps(there)), here):
        raise SystemExit(f"expected {path} to have this run's settings, got others ({found}); choose another folder")
