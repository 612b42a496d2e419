"""What NRP is held to: SSP, PGD L2 and transferred attacks, beside the classical baselines, on two classifiers.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.nrp_acceptance attack  [--images N] [--device cuda]
    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.nrp_acceptance measure [--images N] [--purifiers ...]

`attack` makes the attacked images, none of which knows a purifier, and keeps them in --work; `measure` purifies them,
prints the table and the targets, and writes benchmarks/results/nrp_acceptance.json. Both go on where they were stopped,
and with more images from where they ended.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.kit import environment, feature_extractor, imagenet, interval, model, write_result
from benchmarks.tables import nrp_accuracy, nrp_targets
from purifier import Purifier
from purifier._files import replacing, write_text
from purifier._hub import bundled_config, is_trained
from purifier.attacks import DIFGSM, MIFGSM, PGD, SSP, Attack

CLASSIFIERS = ("resnet50", "mobilenet_v2")
BASELINES = ("jpeg", "median", "bit-depth", "tvm")
CHUNK = 10
EPS, ALPHA = 16 / 255, 1.6 / 255

WHITE_BOX: dict[str, Callable[[torch.Generator], Attack]] = {
    "PGD L2 5": lambda g: PGD(norm="L2", eps=5.0, alpha=1.0, steps=10, generator=g),
    # The step of the NCIS paper's Table 1, with which ten steps go a fifth of the way.
    "PGD L2 5, steps of 0.1": lambda g: PGD(norm="L2", eps=5.0, alpha=0.1, steps=10, generator=g),
    "PGD Linf 16/255": lambda g: PGD(eps=EPS, alpha=ALPHA, steps=10, generator=g),
    "MI-FGSM 16/255": lambda g: MIFGSM(eps=EPS, alpha=ALPHA, steps=10),
    "DIM 16/255": lambda g: DIFGSM(eps=EPS, alpha=ALPHA, steps=10, generator=g),
}
L2 = tuple(name for name in WHITE_BOX if " L2 " in name)
TRANSFERRED = ("MI-FGSM 16/255", "DIM 16/255")
# Least accuracy under SSP, and largest loss of standard accuracy, in points.
TARGETS = {"resnet50": {"nrp-resg": 60, "nrp": 65, "drop": 6}, "mobilenet_v2": {"nrp-resg": 45, "nrp": 50, "drop": 12}}


def sets() -> list[tuple[str, str]]:
    """(name, classifier that it was made on or "") of each set of images."""
    return [("clean", ""), ("SSP 16/255", "")] + [(name, on) for on in CLASSIFIERS for name in WHITE_BOX]


def chunk_file(work: Path, name: str, on: str, number: int) -> Path:
    plain = "".join(c if c.isalnum() else "-" for c in f"{name}-{on or 'any'}")
    return work / f"{plain}-{number:03d}.safetensors"


def attack(work: Path, count: int, device: torch.device) -> None:
    """Makes every attacked image that `work` lacks, in chunks of ten images with seeds of their own."""
    images, labels = imagenet(count)
    networks: dict[str, nn.Module] = {name: model(name).to(device) for name in CLASSIFIERS}
    work.mkdir(parents=True, exist_ok=True)
    features = feature_extractor().to(device)
    todo = [(name, on, k) for k in range(count // CHUNK) for name, on in sets() if name != "clean"]
    for name, on, number in tqdm(todo, unit="chunk", desc="attacks"):
        path = chunk_file(work, name, on, number)
        if path.exists():
            continue
        chunk = slice(number * CHUNK, (number + 1) * CHUNK)
        x, y = images[chunk].to(device), labels[chunk].to(device)
        generator = torch.Generator(device).manual_seed(number)
        if name.startswith("SSP"):
            ssp = SSP(features, eps=EPS, alpha=2 / 255, steps=30, distance="squared", generator=generator)
            moved = ssp(features, x, None)
        else:
            moved = WHITE_BOX[name](generator)(networks[on], x, y)
        with replacing(path) as temporary:
            save_file({"images": moved.cpu().contiguous()}, temporary)


def chunk_of(work: Path, name: str, on: str, number: int, images: Tensor) -> Tensor:
    """Returns ten images of a set."""
    if name == "clean":
        return images[number * CHUNK : (number + 1) * CHUNK]
    path = chunk_file(work, name, on, number)
    if not path.exists():
        raise SystemExit(f"expected {path.name} in {work}, got none; run the command `attack` first")
    return load_file(path)["images"]


def purifiers(names: list[str], device: torch.device) -> dict[str, Purifier | None]:
    found: dict[str, Purifier | None] = {"none": None}
    for name in names:
        options = {"iterations": 5} if name in ("gs", "ncis") else {}
        label = f"{name} i=5" if options else name
        found[label] = Purifier.from_pretrained(name, device=device, **options)
    return found


def measure(work: Path, count: int, names: list[str], device: torch.device) -> dict[str, Any]:
    """Returns, for each purifier, set and classifier, the number of images that are classified right.

    What is known of a chunk is kept in `work`, so that a measurement of more images goes on from one of fewer.
    """
    images, labels = imagenet(count)
    networks = {name: model(name).to(device) for name in CLASSIFIERS}
    table: dict[str, Any] = {}
    for label, purifier in purifiers(names, device).items():
        weights = bundled_config(label.split(" ")[0]).get("files", {}) if purifier is not None else {}
        for name, on in tqdm(sets(), unit="set", desc=label):
            key = f"{name} on {on}" if on else name
            cache = work / "measured" / f"{label}-{key}.json".replace("/", "_")
            known = json.loads(cache.read_text()) if cache.exists() else {}
            right = known["right"] if known.get("weights") == weights else []
            for number in range(len(right), count // CHUNK):
                y = labels[number * CHUNK : (number + 1) * CHUNK]
                with torch.inference_mode():
                    x = chunk_of(work, name, on, number, images).to(device)
                    x = x if purifier is None else purifier(x)
                    right.append({c: int((network(x).argmax(1).cpu() == y).sum()) for c, network in networks.items()})
                cache.parent.mkdir(exist_ok=True)
                write_text(cache, json.dumps({"weights": weights, "right": right}))
            done = right[: count // CHUNK]
            table.setdefault(label, {})[key] = {c: sum(chunk[c] for chunk in done) for c in CLASSIFIERS}
    return table


def columns(classifier: str) -> dict[str, str]:
    """Heading and set of each column of a classifier's table."""
    other = next(name for name in CLASSIFIERS if name != classifier)
    own = {name: f"{name} on {classifier}" for name in WHITE_BOX}
    transferred = {f"{name} from {other}": f"{name} on {other}" for name in TRANSFERRED}
    return {"standard": "clean", "SSP 16/255": "SSP 16/255", **own, **transferred}


def rows_of(table: dict[str, Any], classifier: str, count: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Accuracy and its interval, by purifier and heading."""
    return {
        label: {
            head: {"accuracy": row[key][classifier] / count, "interval": interval(row[key][classifier], count)}
            for head, key in columns(classifier).items()
        }
        for label, row in table.items()
    }


def targets(rows: dict[str, dict[str, dict[str, Any]]], classifier: str) -> list[dict[str, Any]]:
    """Each target of each NRP network on a classifier: what was wanted, what was measured, whether it holds."""
    points = {label: {head: 100 * cell["accuracy"] for head, cell in row.items()} for label, row in rows.items()}
    none, baselines = points["none"], [points[label] for label in BASELINES if label in points]
    found = []
    for name in ("nrp-resg", "nrp"):
        if name not in points:
            continue
        ours, wanted = points[name], TARGETS[classifier]
        drop = none["standard"] - ours["standard"]
        checks = {
            "standard accuracy lost, at most": (wanted["drop"], drop, drop <= wanted["drop"]),
            "SSP, at least": (wanted[name], ours["SSP 16/255"], ours["SSP 16/255"] >= wanted[name]),
        }
        for head in L2:
            gain = ours[head] - none[head]
            checks[f"{head}, gained over no defence, at least"] = (25, gain, gain >= 25)
        for head in (*L2, *(head for head in none if " from " in head)) if baselines else ():
            best = max(row[head] for row in baselines)
            checks[f"{head}, above the best classical baseline"] = (best, ours[head], ours[head] > best)
        found += [
            {"purifier": name, "classifier": classifier, "target": key, "wanted": w, "measured": m, "holds": holds}
            for key, (w, m, holds) in checks.items()
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("attack", "measure"))
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--work", type=Path, default=Path("runs/nrp_acceptance"))
    ours = [name for name in ("nrp-resg", "nrp") if is_trained(name)]
    parser.add_argument("--purifiers", nargs="+", default=[*BASELINES, "gs", "ncis", *ours])
    args = parser.parse_args()
    if args.images < CHUNK or args.images % CHUNK:
        parser.error(f"expected --images as a multiple of {CHUNK}, got {args.images}")
    if args.command == "attack":
        attack(args.work, args.images, args.device)
        return
    table = measure(args.work, args.images, args.purifiers, args.device)
    rows = {classifier: rows_of(table, classifier, args.images) for classifier in CLASSIFIERS}
    held = [row for classifier in CLASSIFIERS for row in targets(rows[classifier], classifier)]
    weights = {name: bundled_config(name).get("files", {}) for name in args.purifiers}
    settings = {"weights": weights, "eps": EPS, "alpha": ALPHA, "device": str(args.device), "images": args.images}
    result = {"settings": settings, "rows": rows, "targets": held, "environment": environment()}
    write_result("nrp_acceptance", result)
    for classifier in CLASSIFIERS:
        print(f"\n{nrp_accuracy(classifier)}")
    print(f"\n{nrp_targets()}")


if __name__ == "__main__":
    main()
