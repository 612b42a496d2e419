"""Compares trained alloys on held-out photographs, by networks that the evaluation does not use.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.alloy_judge NAME[=FOLDER] ... [--images 96]

The figures of a purifier that is applied k times are

    psnr           PSNR of purified clean images, in dB
    standard NAME  share of clean images whose class is the one without a purifier; of the half that the classifier is
                   surest of, because its class of the others changes with every pixel
    robust NAME    the same share of images under the classifier's own blind PGD, Linf 16/255, 10 steps of 1.6/255
    left NAME      distance of purified images' features from the clean ones' under SSP, Linf 16/255, 10 steps of 4/255,
                   relative to the distance without a purifier: 0 if the attack is undone, 1 if nothing changes
    mean           mean of all standard and robust figures

The photographs are the middles (160 x 160) of the large ones in the validation part of `photos` and `objects/train`.
The networks are the extractors of the trainings, and the kit's DeepLab, which no training uses. Results:
benchmarks/results/alloy_judge.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torchvision.transforms.functional import center_crop
from tqdm import tqdm

from benchmarks.accuracy.evaluations import ALPHA, EPS
from benchmarks.kit import environment, load_sources, photographs, weights_of, write_result
from benchmarks.markdown import percent, table
from purifier import Purifier
from purifier._images import read_size
from purifier.attacks import PGD, SSP
from purifier.data.crops import evenly
from purifier.data.images import read_rgb
from purifier.training.alloy.recipe import relative_distance
from purifier.training.extractors import Extractor, load_extractors, read_extractors
from purifier.training.settings import PhotographTraining
from purifier.training.validation import psnr

SIDE = 160
ITERATIONS = (1, 2, 3)
JUDGES = (
    "vgg=benchmarks.recipes.extractors:feature_extractor:0",
    "mobilenet=benchmarks.recipes.extractors:mobilenet@net.features:0",
    "demo=reference:demo@stages:0",
    "deeplab=benchmarks.recipes.extractors:deeplab:0",
)

# The figures of a purifier.
Row = dict[str, float]


class Judge:
    """An extractor, held-out images (N, 3, H, W), and the extractor's own attacks on them."""

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
            pgd = PGD(eps=EPS, alpha=ALPHA, steps=10, generator=random)
            self.fooled = _in_batches(lambda x: pgd(extractor, x, self._classes(x)), images[self.sure])

    def figures(self, purify: Callable[[Tensor], Tensor], clean: Tensor) -> Row:
        """Returns the figures of a purifier, given its output for the clean images."""
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

    def _classes(self, images: Tensor) -> Tensor:
        return _in_batches(lambda x: self.extractor(x).argmax(1), images)

    def _share(self, images: Tensor) -> float:
        return (self._classes(images) == self.classes).float().mean().item()


def _in_batches(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([function(batch) for batch in images.split(16)])


def held_out(base: PhotographTraining, count: int) -> Tensor:
    """Returns the middles (N, 3, 160, 160) of photographs of the validation part, which no training uses."""
    _, paths = base.crops_and_validation()
    large = [path for path in paths if min(read_size(path)) >= SIDE]
    return torch.stack([center_crop(read_rgb(path), [SIDE, SIDE]) for path in evenly(large, count)])


def judges_of(base: PhotographTraining, count: int) -> list[Judge]:
    """Returns the judges with `count` held-out images. Takes minutes, as each judge attacks all of them."""
    images = held_out(base, count)
    return [Judge(extractor, images) for extractor in load_extractors(read_extractors(JUDGES))]


def rows_of(purifier: Purifier, judges: list[Judge], iterations: Sequence[int]) -> dict[str, Row]:
    """Returns the figures of a purifier at several numbers of iterations, by "k=..."."""
    rows: dict[str, Row] = {}
    for k in iterations:
        purifier.iterations = k
        rows[f"k={k}"] = row_of(purifier, judges)
    return rows


def row_of(purify: Callable[[Tensor], Tensor], judges: list[Judge]) -> Row:
    """Returns the figures of a map from images to images."""
    images = judges[0].images
    clean = _in_batches(purify, images)
    row = {"psnr": psnr(clean, images)}
    for one in judges:
        row |= one.figures(purify, clean)
    rates = [value for key, value in row.items() if key.startswith(("standard", "robust"))]
    return {**row, "mean": sum(rates) / len(rates)}


def unpurified(judges: list[Judge]) -> Row:
    """Returns the figures without a purifier; there is no PSNR."""
    return {key: value for key, value in row_of(lambda x: x, judges).items() if key != "psnr"}


def judged_table(head: str, rows: Iterable[tuple[str, str, Row]]) -> str:
    """Returns a table of (name, "k=...", figures), the mean first; `head` is the heading of the names."""
    given = list(rows)
    figures = list(dict.fromkeys(["mean", *(figure for _, _, row in given for figure in row)]))
    return table(
        [head, "k", *figures],
        [[name, k[2:], *(_cell(key, row[key]) if key in row else "" for key in figures)] for name, k, row in given],
    )


def _cell(figure: str, value: float) -> str:
    if figure == "seconds":
        return f"{value:.0f}"
    return f"{value:.2f}" if figure.startswith(("psnr", "left")) else percent(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("purifiers", nargs="+", metavar="NAME[=FOLDER]")
    parser.add_argument("--images", type=int, default=96, help="number of held-out images")
    parser.add_argument("--name", default="alloy_judge", help="name of the result file")
    args = parser.parse_args()
    purifiers = load_sources(args.purifiers)
    result = {"settings": {"images": args.images}, "weights": weights_of(purifiers)}
    judges = judges_of(PhotographTraining(data=photographs()), args.images)
    rows = {"no purifier": {"k=0": unpurified(judges)}}
    for name, purifier in tqdm(purifiers.items(), unit="purifier"):
        rows[name] = rows_of(purifier, judges, ITERATIONS)
        write_result(args.name, {**result, "rows": rows, "environment": environment()})
    print(judged_table("purifier", [(name, k, row) for name, found in rows.items() for k, row in found.items()]))


if __name__ == "__main__":
    main()
