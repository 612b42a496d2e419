"""CIFAR-10 as the kit has it: JPEG files of 32 x 32 pixels in two archives.

PURIFIER_KIT=<folder> python -m benchmarks.recipes.cifar10    # unpacks both into runs/cifar10
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.kit import kit

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_part(part: str) -> tuple[Tensor, Tensor]:
    """Returns "train" or "test" as uint8 images (N, 3, 32, 32) and labels (N,), in the order of the file names."""
    found: list[tuple[str, np.ndarray]] = []
    with tarfile.open(kit() / f"cifar10_{part}.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if file is not None:
                with Image.open(io.BytesIO(file.read())) as image:
                    found.append((member.name, np.asarray(image.convert("RGB"))))
    found.sort(key=lambda entry: entry[0])
    labels = torch.tensor([CLASSES.index(Path(name).parent.name) for name, _ in found])
    return torch.from_numpy(np.stack([pixels for _, pixels in found])).permute(0, 3, 1, 2).contiguous(), labels


def extract_part(part: str, folder: Path) -> Path:
    """Unpacks "train" or "test" into `folder` if it is not there yet; returns its folder of class folders."""
    if not (folder / part).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{part}"
        with tarfile.open(kit() / f"cifar10_{part}.tar.gz") as archive:
            archive.extractall(partial, filter="data")
        (partial / part).replace(folder / part)
        partial.rmdir()
    return folder / part


if __name__ == "__main__":
    for part in ("train", "test"):
        print(extract_part(part, Path("runs/cifar10")))
