"""Small picture files, and what the one-machine command makes of them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from purifier import Purifier
from purifier.commands.purify import run
from purifier.data.outputs import plan


def encoded(seed: int, kind: str = "PNG", size: tuple[int, int] = (16, 12), mode: str = "RGB") -> bytes:
    """Returns a picture as bytes."""
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 4), dtype=np.uint8)
    image, file = Image.fromarray(values).convert(mode), BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "JPEG" else 1
    image.save(file, kind, exif=exif)
    return file.getvalue()


def folder(root: Path, count: int) -> Path:
    """Fills a folder with pictures of two sizes and three kinds, and one that is damaged."""
    for number in range(count):
        kind, mode = (("PNG", "RGB"), ("JPEG", "RGB"), ("PNG", "RGBA"))[number % 3]
        size = (16, 12) if number % 4 else (20, 14)
        path = root / f"d{number % 2}" / f"{number:04d}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number, kind, size, mode))
    (root / "damaged.png").write_bytes(b"no picture")
    return root


def made_here(source: Path, target: Path, purifier: Purifier, batch_size: int) -> dict[str, bytes]:
    """Returns the files that the one-machine command makes, by name."""
    run(plan(source, target), purifier, batch_size=batch_size)
    return contents(target)


def contents(root: Path) -> dict[str, bytes]:
    """Returns the files below a folder, by name, without hidden ones."""
    names = [path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(name): (root / name).read_bytes() for name in names if not any(p.startswith(".") for p in name.parts)}
