"""Why NCIS fails when it is iterated: what one application and several do to each frequency.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.iteration_gain --eq7 FOLDER

FOLDER holds an ncis that was trained by eq. 7 of the paper alone, one application on clean crops. About 20 minutes on
one CPU core:

    purifier train ncis --data <kit>/photos --out runs/ncis_eq7 --validation-every 8 --steps 1500 --shrink 0.5 \
        --compile --validate-every 1500 --validation-images 16

That is the first step of the training of the shipped weights, with 1,500 steps for 2,000. FOLDER is runs/ncis_eq7/ncis.

The images are the first of the NIPS-2017 evaluation images; nothing is chosen on them. Parts:

    gain         one application: the response to sinusoids of 2/255, by frequency, direction and colour
    fine         the same for waves whose horizontal and vertical frequencies are both high, in grey
    repeated     the gain after several applications, with and without the clamp
    drift        how far several applications move clean images, by band, with and without the clamp
    growth       the perturbation that grows the most in repeated applications, near clean images
    windows      the drift of images that are cut to several sizes first, at their own resolution: in their middle, in
                 all, and in the same place if the images are purified first and cut afterwards
    photographs  spectra of the training crops, of the evaluation images and of resized ones, and the drift on each

Results: benchmarks/results/iteration_gain.json. `--parts` measures some parts again and keeps the others.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import center_crop

from benchmarks.accuracy import frequency
from benchmarks.accuracy.iteration_results import TABLES
from benchmarks.kit import OPEN_GATE, environment, imagenet, kit, read_result, weights_of, write_result
from purifier import Purifier
from purifier.data.crops import RandomCrops
from purifier.training.settings import PhotographTraining

EQ7 = "ncis, eq. 7 alone"
FREQUENCIES = {"1/64": 1 / 64, "1/32": 1 / 32, "1/16": 1 / 16, "1/8": 1 / 8, "1/4": 1 / 4, "3/8": 3 / 8, "1/2": 1 / 2}
FEW_FREQUENCIES = ("1/32", "1/8", "1/4", "1/2")
# Waves at high frequencies: horizontal and vertical frequency, and the phase. With a phase of -1/8 turn, the wave of
# 1/4 has the same value in both columns, or rows, of a patch of 2 x 2 pixels.
FINE = {
    "1/4, 1/2": (1 / 4, 1 / 2, -math.pi / 4),
    "1/2, 1/4": (1 / 2, 1 / 4, -math.pi / 4),
    "1/4, 1/2, between patches": (1 / 4, 1 / 2, math.pi / 4),
    "1/4, 1/4": (1 / 4, 1 / 4, 0.0),
    "3/8, 1/2": (3 / 8, 1 / 2, 0.0),
    "1/2, 1/2": (1 / 2, 1 / 2, 0.0),
}
COUNTS = (1, 3, 5, 7)
SIDE = 224
# Rounds of the power iteration, and the width of the border in which its result is counted.
ROUNDS, BORDER = 16, 16
# Sides of the windows, at the images' own resolution, and of the middle in which the drift is measured.
OWN, WINDOWS, MIDDLE = 299, (96, 160, 224, 288), 48
CROP, SHRINK = 96, 0.5
# Purifiers that take seconds for an image are measured on fewer.
SLOW = {"nrp-resg": 2}


@dataclass
class Setup:
    """What the parts share: the folder of the weights of eq. 7, and numbers of images."""

    eq7: str
    images: int
    few: int
    crops: int

    def clean(self, count: int) -> Tensor:
        return imagenet(count, SIDE)[0]

    def ncis(self, clamp: bool = True) -> dict[str, Purifier]:
        """Returns both NCIS, each for one application."""
        names = {"ncis": "ncis", EQ7: self.eq7}
        return {name: Purifier.from_pretrained(source, iterations=1, clamp=clamp) for name, source in names.items()}

    def purifiers(self) -> dict[str, Purifier]:
        """Returns all purifiers, each for one application; alloy-s purifies everything."""
        return {
            "gs": Purifier.from_pretrained("gs", iterations=1),
            "gs, K=11": Purifier.from_pretrained("gs", kernel_size=11, iterations=1),
            **self.ncis(),
            "nrp-resg": Purifier.from_pretrained("nrp-resg"),
            "alloy-s": Purifier.from_pretrained("alloy-s", iterations=1, **OPEN_GATE),
        }

    def iterated(self) -> list[tuple[str, bool, frequency.Apply]]:
        """Returns name, whether the output is clamped, and the map, of what is iterated."""
        return [(name, clamp, one.method) for clamp in (True, False) for name, one in self.ncis(clamp).items()]


def gain(setup: Setup) -> list[dict[str, Any]]:
    """Returns the gain of one application by purifier, direction and colour."""
    kinds: list[tuple[str, str, tuple[int, ...]]] = [(direction, "grey", (0, 1, 2)) for direction in frequency.ANGLES]
    kinds.append(("horizontal", "green", (1,)))
    rows = []
    for name, purifier in setup.purifiers().items():
        images = setup.clean(SLOW.get(name, setup.images))
        for direction, colour, channels in kinds:
            waves = {key: frequency.sinusoid(SIDE, f, direction, channels) for key, f in FREQUENCIES.items()}
            found = {key: one["1"] for key, one in frequency.gains(purifier.purify, images, waves).items()}
            row = {"purifier": name, "direction": direction, "colour": colour, "images": len(images)}
            rows.append({**row, "gain": found})
    return rows


def fine(setup: Setup) -> list[dict[str, Any]]:
    """Returns the gain of one application at high frequencies in both directions."""
    images = setup.clean(setup.images)
    waves = {name: frequency.plane_wave(SIDE, *given) for name, given in FINE.items()}
    rows = []
    for name, clamp, apply in _with_gs(setup):
        if clamp:
            found = {key: one["1"] for key, one in frequency.gains(apply, images, waves).items()}
            rows.append({"purifier": name, "gain": found})
    return rows


def repeated(setup: Setup) -> list[dict[str, Any]]:
    """Returns the gain of several applications, horizontally and in grey."""
    waves = {key: frequency.sinusoid(SIDE, FREQUENCIES[key], "horizontal") for key in FEW_FREQUENCIES}
    images = setup.clean(setup.few)
    return [
        {"purifier": name, "clamp": clamp, "gain": frequency.gains(apply, images, waves, COUNTS)}
        for name, clamp, apply in _with_gs(setup)
    ]


def drift(setup: Setup) -> list[dict[str, Any]]:
    """Returns how far several applications move clean images."""
    images = setup.clean(setup.images)
    return [
        {"purifier": name, "clamp": clamp, "by i": frequency.drift(apply, images, max(COUNTS))}
        for name, clamp, apply in _with_gs(setup)
    ]


def _with_gs(setup: Setup) -> list[tuple[str, bool, frequency.Apply]]:
    """Adds gs, whose output needs no clamp."""
    return [("gs", True, Purifier.from_pretrained("gs", iterations=1).method), *setup.iterated()]


def growth(setup: Setup) -> list[dict[str, Any]]:
    """Returns the perturbations that grow the most."""
    images = setup.clean(setup.few)
    return [
        {"purifier": name, "clamp": clamp, **frequency.growth(apply, images, ROUNDS, BORDER)}
        for name, clamp, apply in setup.iterated()
    ]


def windows(setup: Setup) -> list[dict[str, Any]]:
    """Returns the drift in windows of images, in their middle and in all, alone and as part of the largest window."""
    images, rows = imagenet(setup.few, OWN)[0], []
    for name, purifier in setup.ncis().items():
        largest = frequency.iterates(purifier.method, _middle(images, max(WINDOWS)), max(COUNTS))
        for side in WINDOWS:
            alone = frequency.iterates(purifier.method, _middle(images, side), max(COUNTS))
            found = {"middle": _moved(alone, MIDDLE), "alone": _moved(alone, side), "part": _moved(largest, side)}
            rows.append({"purifier": name, "side": side, **found})
    return rows


def _moved(made: Sequence[Tensor], side: int) -> dict[str, float]:
    """Returns the drift in the middle square of that side, by number of applications."""
    return {str(i): frequency.size(_middle(made[i] - made[0], side)) for i in COUNTS}


def _middle(images: Tensor, side: int) -> Tensor:
    return center_crop(images, [side, side])


def photographs(setup: Setup) -> list[dict[str, Any]]:
    """Returns the spectrum of crops from several sources, and the drift on each."""
    networks, rows = setup.ncis(), []
    for name, crops in sources(setup.crops).items():
        row: dict[str, Any] = {"source": name, "slope": frequency.slope(crops)}
        row["content"] = frequency.by_band(crops - crops.mean((2, 3), keepdim=True))
        row["change"] = {}
        for network, purifier in networks.items():
            found = frequency.drift(purifier.method, crops, max(COUNTS))
            row["change"][network] = {str(i): found[i - 1]["change"] for i in COUNTS}
        rows.append(row)
    return rows


def sources(count: int) -> dict[str, Tensor]:
    """Returns crops (N, 3, 96, 96) of each source. The photographs are those that the training holds out."""
    _, held_out = PhotographTraining(data=(str(kit() / "photos"),), validation_every=8).crops_and_validation()
    found = {}
    for name, shrink in (("training crops, shrunk at random", SHRINK), ("training photographs, not shrunk", 1.0)):
        crops = RandomCrops(held_out, crop_size=CROP, length=count, seed=0, shrink=shrink)
        found[name] = torch.stack([crops[index] for index in range(count)])
    small = imagenet(count, 168)[0]
    others = {
        f"evaluation images, {SIDE} px": imagenet(count, SIDE)[0],
        f"evaluation images, {OWN} px (their own)": imagenet(count, OWN)[0],
        "evaluation images, 168 px": small,
        f"evaluation images, 168 px enlarged to {SIDE}": F.interpolate(small, (SIDE, SIDE), mode="bilinear"),
    }
    return found | {name: _middle(images, CROP) for name, images in others.items()}


PARTS: dict[str, Callable[[Setup], list[dict[str, Any]]]] = {
    "gain": gain,
    "fine": fine,
    "repeated": repeated,
    "drift": drift,
    "growth": growth,
    "windows": windows,
    "photographs": photographs,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eq7", required=True, metavar="FOLDER", help="ncis that was trained by eq. 7 alone")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--images", type=int, default=16, help="images of gain and drift")
    parser.add_argument("--few", type=int, default=6, help="images of repeated, growth and windows")
    parser.add_argument("--crops", type=int, default=24, help="crops of each source of photographs")
    parser.add_argument("--name", default="iteration_gain", help="name of the result file")
    args = parser.parse_args(arguments)
    setup = Setup(str(Path(args.eq7)), args.images, args.few, args.crops)
    result = read_result(args.name, {})
    weights = weights_of({name: one for name, one in setup.purifiers().items() if name != "gs, K=11"})
    counts = {"images": args.images, "few": args.few, "crops": args.crops}
    settings = {**counts, "amplitude": frequency.AMPLITUDE, "border": BORDER, "rounds": ROUNDS, "middle": MIDDLE}
    for name in args.parts:
        with torch.inference_mode():
            result[name] = PARTS[name](setup)
        made = environment()
        commits = {**result.get("commits", {}), name: made["commit"]}
        result |= {"settings": settings, "weights": weights, "commits": commits, "environment": made}
        write_result(args.name, result)
        print(name, TABLES[name](result), sep="\n\n", end="\n\n", flush=True)


if __name__ == "__main__":
    main()
