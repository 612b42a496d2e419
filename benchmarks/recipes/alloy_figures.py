"""The judges of an alloy: held-out photographs, and networks with their own attacks on them.

An alloy is judged with several numbers of iterations k by

    psnr           of purified clean images to the clean ones, in dB
    standard NAME  share of clean images that a classifier classifies as without a purifier, of the half that it is
                   surest of: what it makes of the others changes with every pixel
    robust NAME    the same of images under its own blind PGD, Linf 16/255, 10 steps of 1.6/255
    left NAME      distance of its features to the clean ones' under SSP, Linf 16/255, 10 steps of 4/255, purified over
                   not purified: 0 where everything is undone, 1 where nothing is
    mean           of all standard and robust

The photographs are the middles (160 x 160) of those in the validation part of `photos` and `objects/train` that are
large enough. The networks are the extractors of the presets, and one that no training has seen, the kit's DeepLab.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import center_crop

from purifier import Purifier
from purifier._images import read_size
from purifier.attacks import PGD, SSP
from purifier.data.crops import evenly
from purifier.data.images import read_pixels, to_tensor
from purifier.training.alloy.config import read_extractors
from purifier.training.alloy.extractors import Extractor, load_extractors
from purifier.training.alloy.recipe import relative_distance
from purifier.training.settings import PhotographTraining
from purifier.training.validation import psnr

EPS = 16 / 255
SIDE = 160
JUDGES = (
    "vgg=benchmarks.kit:feature_extractor:0",
    "mobilenet=benchmarks.kit:mobilenet@net.features:0",
    "demo=reference:demo@stages:0",
    "deeplab=benchmarks.kit:deeplab:0",
)

# A purifier's figures.
Row = dict[str, float]


class Judge:
    """An extractor, the held-out images, and its own attacks on them.

    Args:
        extractor: What judges, and is attacked.
        images: Clean images (N, 3, H, W).
    """

    def __init__(self, extractor: Extractor, images: Tensor) -> None:
        self.extractor, self.images = extractor, images
        random = torch.Generator().manual_seed(0)
        ssp = SSP(lambda x: extractor.features(x)[0], eps=EPS, alpha=4 / 255, steps=10, generator=random)
        self.moved = _in_batches(lambda x: ssp(extractor, x, None), images)
        self.damage = self._distance(self.moved)
        self.fooled: Tensor | None = None
        if extractor.classifies(images[:1]):
            sureness = _in_batches(lambda x: extractor(x).softmax(1).amax(1), images)
            self.sure = sureness.topk(-(-len(images) // 2)).indices
            self.classes = self._classes(images[self.sure])
            pgd = PGD(eps=EPS, alpha=1.6 / 255, steps=10, generator=random)
            self.fooled = _in_batches(lambda x: pgd(extractor, x, self._classes(x)), images[self.sure])

    def figures(self, purify: Callable[[Tensor], Tensor], clean: Tensor) -> Row:
        """Figures of a purifier, of which purified clean images are at hand."""
        name = self.extractor.name
        found = {f"left {name}": self._distance(_in_batches(purify, self.moved)) / self.damage}
        if self.fooled is not None:
            found[f"standard {name}"] = self._share(clean[self.sure])
            found[f"robust {name}"] = self._share(_in_batches(purify, self.fooled))
        return found

    @torch.no_grad()
    def _distance(self, images: Tensor) -> float:
        pairs = zip(images.split(16), self.images.split(16), strict=True)
        found = [
            len(one) * relative_distance(self.extractor.features(one), self.extractor.features(two)).item()
            for one, two in pairs
        ]
        return sum(found) / len(images)

    @torch.no_grad()
    def _classes(self, images: Tensor) -> Tensor:
        return torch.cat([self.extractor(batch).argmax(1) for batch in images.split(16)])

    def _share(self, images: Tensor) -> float:
        return (self._classes(images) == self.classes).float().mean().item()


def _in_batches(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([function(batch) for batch in images.split(16)])


def held_out(base: PhotographTraining, count: int) -> Tensor:
    """Middles (N, 3, 160, 160) of images of the validation part, which no training sees."""
    _, paths = base.crops_and_validation()
    large = [path for path in paths if min(read_size(path)) >= SIDE]
    return torch.stack([center_crop(to_tensor(read_pixels(path)), [SIDE, SIDE]) for path in evenly(large, count)])


def judges_of(base: PhotographTraining, count: int) -> list[Judge]:
    """The judges, by `count` held-out images; minutes, as each attacks all of them."""
    images = held_out(base, count)
    return [Judge(extractor, images) for extractor in load_extractors(read_extractors(JUDGES))]


def judged(folder: str | Path, judges: list[Judge], iterations: Sequence[int]) -> dict[str, Row]:
    """Figures of a trained purifier at several numbers of iterations."""
    purifier = Purifier.from_pretrained(folder, dtype="auto")
    rows: dict[str, Row] = {}
    for k in iterations:
        purifier.iterations = k
        rows[f"k={k}"] = judge(purifier, judges)
    return rows


def judge(purify: Callable[[Tensor], Tensor], judges: list[Judge]) -> Row:
    """Figures of one map of images."""
    images = judges[0].images
    clean = _in_batches(purify, images)
    row = {"psnr": psnr(clean, images)}
    for one in judges:
        row |= one.figures(purify, clean)
    rates = [value for key, value in row.items() if key.startswith(("standard", "robust"))]
    return {**row, "mean": sum(rates) / len(rates)}


def unpurified(judges: list[Judge]) -> Row:
    """Figures without a purifier, which leaves out the PSNR."""
    return {key: value for key, value in judge(lambda x: x, judges).items() if key != "psnr"}


def table(head: str, rows: list[tuple[str, str, Row]]) -> str:
    """Rows of a name, which `head` heads, its "k=..." and its figures, as Markdown; the mean comes first."""
    figures = list(dict.fromkeys(["mean", *(figure for _, _, row in rows for figure in row)]))
    lines = [f"| {head} | k | " + " | ".join(figures) + " |", "|" + "---|" * (len(figures) + 2)]
    for name, k, row in rows:
        cells = [_cell(figure, row[figure]) if figure in row else "" for figure in figures]
        lines.append(f"| {name} | {k[2:]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figure: str, value: float) -> str:
    if figure == "seconds":
        return f"{value:.0f}"
    return f"{value:.2f}" if figure.startswith(("psnr", "left")) else f"{100 * value:.1f}"
