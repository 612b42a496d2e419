"""What matters in the training of alloy: short trainings that each change one thing, judged on held-out photographs.

    PURIFIER_KIT=<folder> python benchmarks/alloy_ablation.py [NAME ...] [--preset alloy-s-cpu] [--steps 300]

Without names every ablation is run. The photographs are the middles (160 x 160) of those in the validation part of
`photos` and `objects/train` that are large enough. Each purifier is judged with k = 1, 2 and 3 iterations by

    psnr           of purified clean images to the clean ones, in dB
    standard NAME  share of clean images that a classifier classifies as without a purifier, of the half that it is
                   surest of: what it makes of the others changes with every pixel
    robust NAME    the same of images under its own blind PGD, Linf 16/255, 10 steps of 1.6/255
    left NAME      distance of its features to the clean ones' under SSP, Linf 16/255, 10 steps of 4/255, purified over
                   not purified: 0 where everything is undone, 1 where nothing is
    mean           of all standard and robust

by the extractors of the presets, also where an ablation leaves them out and the rest must generalise to them, and by
the features of a network that no training has seen, the kit's DeepLab.
A run that is done is not done again; one that was killed goes on. Results: benchmarks/results/alloy_ablation.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from _kit import environment, write_result
from torch import Tensor
from torchvision.transforms.functional import center_crop
from tqdm import tqdm
from train_alloy import PRESETS, settings

from purifier import Purifier
from purifier._files import write_text
from purifier._images import read_size
from purifier.attacks import PGD, SSP
from purifier.training._checkpoint import load_checkpoint
from purifier.training._data import evenly, read_rgb, to_tensor
from purifier.training._photographs import crops_and_validation
from purifier.training._validation import psnr
from purifier.training.alloy import AlloyTraining, train
from purifier.training.alloy._extractors import Extractor, load_extractors
from purifier.training.alloy._lines import read_extractors, read_sources
from purifier.training.alloy._losses import relative_distance

ITERATIONS = (1, 2, 3)
EPS = 16 / 255
SIDE = 160
JUDGES = (
    "vgg=_kit:feature_extractor:0",
    "mobilenet=_kit:mobilenet@net.features:0",
    "demo=reference:demo@stages:0",
    "deeplab=_kit:deeplab:0",
)
# Presets with networks, as these are the judges.
_JUDGED = [preset for preset in PRESETS if PRESETS[preset].get("extractors") != ()]

# The extractors that are one network.
_VGG = ("vgg", "centre")

Changes = dict[str, Any]


def drop_sources(base: AlloyTraining, *kinds: str, extractor: str = "") -> tuple[str, ...]:
    """The sources without those of some kinds, all kinds where none is named, on an extractor, any where "" is."""
    lines = zip(base.sources, read_sources(base.sources), strict=True)
    return tuple(
        text
        for text, line in lines
        if not ((not kinds or line.kind in kinds) and (not extractor or line.extractor == extractor))
    )


def keep_extractors(base: AlloyTraining, *names: str) -> Changes:
    """Some of the extractors, and no attack on the others."""
    lines = zip(base.extractors, read_extractors(base.extractors), strict=True)
    kept = [text for text, line in lines if line.name in names]
    sources = zip(base.sources, read_sources(base.sources), strict=True)
    return {
        "extractors": tuple(kept),
        "sources": tuple(text for text, line in sources if line.extractor in ("", "*", *names)),
    }


def leave_out(base: AlloyTraining, *names: str) -> Changes:
    others = [line.name for line in read_extractors(base.extractors) if line.name not in names]
    return keep_extractors(base, *others)


def replace_extractor(base: AlloyTraining, name: str, line: str) -> Changes:
    known = zip(base.extractors, read_extractors(base.extractors), strict=True)
    return {"extractors": tuple(line if one.name == name else text for text, one in known)}


def weightless(base: AlloyTraining) -> Changes:
    """Extractors that are attacked, but not asked about the result."""
    return {"extractors": tuple(f"{text.rpartition(':')[0]}:0" for text in base.extractors), "belief_weight": 0.0}


def noise(base: AlloyTraining, share: float) -> Changes:
    rest = drop_sources(base, "gaussian", "sign")
    total = sum(line.share for line in read_sources(rest))
    each = total * share / (1 - share) / 2
    return {"sources": (*rest, f"gaussian:{each:.4g}", f"sign:{each:.4g}")}


ABLATIONS: dict[str, Callable[[AlloyTraining], Changes]] = {
    "base": lambda base: {},
    # Attack sources.
    "no-ssp-vgg": lambda base: {"sources": drop_sources(base, "ssp", extractor="vgg")},
    "no-ssp-mobilenet": lambda base: {"sources": drop_sources(base, "ssp", extractor="mobilenet")},
    "no-ssp": lambda base: {"sources": drop_sources(base, "ssp")},
    "no-demo-attacks": lambda base: {"sources": drop_sources(base, extractor="demo")},
    "no-kl": lambda base: {"sources": drop_sources(base, "kl")},
    "no-noise": lambda base: {"sources": drop_sources(base, "gaussian", "sign")},
    "noise-0.4": lambda base: noise(base, 0.4),
    "noise-only": lambda base: {"sources": ("gaussian:0.45", "sign:0.45", "none:0.1")},
    "no-clean": lambda base: {"sources": drop_sources(base, "none")},
    "aware-0.25": lambda base: {"aware_share": 0.25},
    # Strength.
    "eps-to-8": lambda base: {"eps": 8 / 255},
    "eps-from-12": lambda base: {"eps_low": 12 / 255},
    "half-steps": lambda base: {"attack_alpha": base.attack_alpha / 2},
    # Extractors: each left out of attacks and losses, and each alone.
    "without-vgg": lambda base: leave_out(base, *_VGG),
    "without-vgg-loss": lambda base: leave_out(base, "centre"),
    "without-mobilenet": lambda base: leave_out(base, "mobilenet"),
    "without-demo": lambda base: leave_out(base, "demo"),
    "only-vgg": lambda base: keep_extractors(base, *_VGG),
    "only-mobilenet": lambda base: keep_extractors(base, "mobilenet"),
    "only-demo": lambda base: keep_extractors(base, "demo"),
    # How deep the features are.
    "last-layer": lambda base: replace_extractor(base, "mobilenet", "mobilenet=_kit:mobilenet@net.features:1.0"),
    # Pixels against features, and against beliefs.
    "pixels-only": weightless,
    "features-only": lambda base: {"pixel_weight": 0.0},
    "pixels-less": lambda base: {"pixel_weight": base.pixel_weight / 4},
    "pixels-more": lambda base: {"pixel_weight": base.pixel_weight * 4},
    "no-beliefs": lambda base: {"belief_weight": 0.0},
    "beliefs-more": lambda base: {"belief_weight": base.belief_weight * 4},
    # Repeated application.
    "unroll-2": lambda base: {"unroll": 2},
    "unroll-3": lambda base: {"unroll": 3},
    "no-head-start": lambda base: {"head_start": 0},
    "no-clamp": lambda base: {"clamp": False},
    "no-blur": lambda base: {"blur": 0},
    "blur-3": lambda base: {"blur": 3},
    # The network; those of one scale at the arithmetic of alloy-s.
    "half-depth": lambda base: {"blocks": max(1, base.blocks // 2)},
    "narrower": lambda base: {"filters": base.filters * 3 // 4},
    "wider": lambda base: {"filters": base.filters * 3 // 2},
    "fewer-scales": lambda base: {"levels": base.levels - 1},
    "more-scales": lambda base: {"levels": base.levels + 1},
    "one-scale-patch-2": lambda base: {"patch": 2, "filters": 32, "blocks": 8, "levels": 1},
    "one-scale-patch-3": lambda base: {"patch": 3, "filters": 48, "blocks": 8, "levels": 1},
    "one-scale-patch-4": lambda base: {"patch": 4, "filters": 64, "blocks": 8, "levels": 1},
    # How it learns.
    "identity-start": lambda base: {"start": "identity"},
    "rate-half": lambda base: {"learning_rate": base.learning_rate / 2},
    "rate-double": lambda base: {"learning_rate": base.learning_rate * 2},
    "batch-half": lambda base: {"batch_size": max(1, base.batch_size // 2), "steps": base.steps * 2},
    # Crops.
    "crop-64": lambda base: {"crop_size": 64},
    "crop-96": lambda base: {"crop_size": 96},
    "shrink-0.6": lambda base: {"shrink": 0.6},
}


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

    def figures(self, purify: Callable[[Tensor], Tensor], clean: Tensor) -> dict[str, float]:
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


def held_out(base: AlloyTraining, count: int) -> Tensor:
    """Middles (N, 3, 160, 160) of images of the validation part, which no ablation changes."""
    _, paths = crops_and_validation(base)
    large = [path for path in paths if min(read_size(path)) >= SIDE]
    return torch.stack([center_crop(to_tensor(read_rgb(path)), [SIDE, SIDE]) for path in evenly(large, count)])


def judged(folder: Path, judges: list[Judge]) -> dict[str, dict[str, float]]:
    """Figures of a trained purifier at every number of iterations."""
    purifier, images = Purifier.from_pretrained(folder), judges[0].images
    rows: dict[str, dict[str, float]] = {}
    for k in ITERATIONS:
        purifier.iterations = k
        clean = _in_batches(purifier, images)
        row = {"psnr": psnr(clean, images)}
        for judge in judges:
            row |= judge.figures(purifier, clean)
        rates = [value for key, value in row.items() if key.startswith(("standard", "robust"))]
        rows[f"k={k}"] = {**row, "mean": sum(rates) / len(rates)}
    return rows


def identity(judges: list[Judge]) -> dict[str, Any]:
    """The row without a purifier."""
    row: dict[str, float] = {}
    for judge in judges:
        row |= judge.figures(lambda x: x, judge.images)
    rates = [value for key, value in row.items() if key.startswith(("standard", "robust"))]
    return {"changes": {}, "seconds": 0.0, "rows": {"k=0": {**row, "mean": sum(rates) / len(rates)}}}


def ablate(name: str, base: AlloyTraining, count: int, work: Path, judges: Callable[[], list[Judge]]) -> dict[str, Any]:
    """Trains and judges one ablation, by `count` images, or returns what is known of it."""
    changes = ABLATIONS[name](base)
    config = replace(base, **changes)
    stated = json.loads(json.dumps({**asdict(config), "judged_on": count}))
    done = work / name / "judged.json"
    known = json.loads(done.read_text()) if done.exists() else {}
    if known.get("settings") != stated:
        folder = train(config, work / name)
        seconds = (load_checkpoint(work / name / "checkpoint.pt") or {})["seconds"]
        known = {"settings": stated, "changes": changes, "seconds": seconds, "rows": judged(folder, judges())}
        write_text(done, json.dumps(known))
    return {key: known[key] for key in ("changes", "seconds", "rows")}


def table(runs: dict[str, dict[str, Any]]) -> str:
    """One row for each ablation, at its best k."""
    best = {name: max(run["rows"], key=lambda k: run["rows"][k]["mean"]) for name, run in runs.items()}
    heads = list(dict.fromkeys(head for run in runs.values() for row in run["rows"].values() for head in row))
    # The mean, by which k is chosen, comes first.
    heads = ["mean", *(head for head in heads if head != "mean")]
    lines = ["| ablation | best k | " + " | ".join(heads) + " | seconds |", "|" + "---|" * (len(heads) + 3)]
    for name, run in runs.items():
        row = run["rows"][best[name]]
        cells = [_cell(head, row.get(head)) for head in heads]
        lines.append(f"| {name} | {best[name][2:]} | " + " | ".join(cells) + f" | {run['seconds']:.0f} |")
    return "\n".join(lines)


def _cell(head: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if head.startswith(("psnr", "left")) else f"{100 * value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"out of {', '.join(ABLATIONS)}; all where none")
    parser.add_argument("--preset", choices=_JUDGED, default="alloy-s-cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--images", type=int, default=96, help="held-out images")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of all runs")
    parser.add_argument("--work", type=Path, default=Path("runs/alloy_ablation"))
    parser.add_argument("--name", default="alloy_ablation", help="name of the result file")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in ABLATIONS]
    if unknown:
        raise SystemExit(f"expected names out of {', '.join(ABLATIONS)}, got {', '.join(unknown)}")
    sys.path.insert(0, str(Path(__file__).parent))
    # The training's own validation would only cost time here.
    fixed = [f"steps={args.steps}", f"validate_every={args.steps}", "validation_images=1"]
    base = settings(args.preset, [*fixed, *args.set])
    made: list[Judge] = []

    def judges() -> list[Judge]:
        if not made:
            images = held_out(base, args.images)
            made.extend(Judge(one, images) for one in load_extractors(read_extractors(JUDGES)))
        return made

    runs: dict[str, dict[str, Any]] = {}
    for name in tqdm(args.names or ABLATIONS, unit="run"):
        runs[name] = ablate(name, base, args.images, args.work, judges)
        stated = {key: value for key, value in asdict(base).items() if key != "data"}
        result = {"settings": stated, "images": args.images, "runs": runs, "environment": environment()}
        write_result(args.name, result)
    print(table({"no purifier": identity(judges()), **runs}))


if __name__ == "__main__":
    main()
