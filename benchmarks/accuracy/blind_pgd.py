"""Standard and robust accuracy under a purifier-blind attack, with the purifier-aware figure beside it.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.blind_pgd

Attack: untargeted PGD on the bare model, Linf, eps 16/255, alpha 1.6/255, 10 steps, random start, cross entropy.
Rows: no defence, the classical baselines, and iterated purifiers at each number of iterations; networks are compiled,
which changes their output by rounding only. The attacked images are kept in --work, every finished row in the result
file, so a run that was killed goes on where it stopped. Rows of options or weights that are others by now are
measured again. The purifier-aware rows are the same attack through purifier and model, exact gradients, on
--aware-images images.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.kit import RESULTS, begun_result, correct, environment, imagenet, interval, model, sources, write_result
from benchmarks.tables import best_of
from purifier import Purifier, list_purifiers
from purifier._files import replacing
from purifier.attacks import PGD
from purifier.methods import build, describe

EPS, ALPHA, STEPS = 16 / 255, 1.6 / 255, 10
Purify = Callable[[Tensor], Tensor]
BASELINES = ("jpeg", "bit-depth", "median", "tvm", "resize-pad")
# Iterated purifiers, with the largest number of iterations that is measured.
ITERATED = {"gs": 8, "ncis": 8, "alloy": 1, "alloy-s": 1}


def attack(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch: int, name: str) -> Tensor:
    pgd = PGD(eps=EPS, alpha=ALPHA, steps=STEPS, generator=torch.Generator().manual_seed(0))
    pairs = list(zip(images.split(batch), labels.split(batch), strict=True))
    return torch.cat([pgd(network, x, y) for x, y in tqdm(pairs, desc=name)]).contiguous()


def attacked(name: str, images: Tensor, labels: Tensor, work: Path) -> Tensor:
    path = work / f"{name}-{len(images)}.safetensors"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        moved = attack(model(name), images, labels, 20, f"attack {name}")
        with replacing(path) as temporary:
            save_file({"images": moved}, temporary)
    return load_file(path)["images"]


def purified(purifier: Purify, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([purifier(batch) for batch in images.split(20)])


def measure_baselines(name: str, args: argparse.Namespace, table: dict[str, Any], save: Callable[[], None]) -> None:
    baselines: dict[str, Purify] = {"none": lambda x: x}
    baselines |= {row: Purifier.from_pretrained(row) for row in BASELINES}
    if baselines.keys() <= table.keys():
        return
    images, labels = imagenet(args.images)
    hostile, network = attacked(name, images, labels, args.work), model(name)
    for row, purifier in tqdm(baselines.items(), desc=name):
        if row not in table:
            right = [correct(network, purified(purifier, x), labels) for x in (images, hostile)]
            table[row] = figures(right[0], right[1], len(labels))
            save()


def measure_iterated(
    name: str, kind: str, source: str, args: argparse.Namespace, table: dict[str, Any], save: Callable[[], None]
) -> None:
    """Applies a purifier once more for each row."""
    names = [f"{kind} i={i}" for i in range(1, ITERATED[kind] + 1)]
    if all(row in table for row in names):
        return
    once: Purify = Purifier.from_pretrained(source, iterations=1, dtype=args.dtype)
    if kind != "gs":
        once = torch.compile(once)
    images, labels = imagenet(args.images)
    network = model(name)
    now = [images, attacked(name, images, labels, args.work)]
    for row in tqdm(names, desc=f"{name} {kind}"):
        now = [purified(once, x) for x in now]
        right = [correct(network, x, labels) for x in now]
        table[row] = figures(right[0], right[1], len(labels))
        save()


def figures(standard: int, robust: int, count: int) -> dict[str, Any]:
    return {
        "images": count,
        "standard": standard / count,
        "robust": robust / count,
        "mean": (standard + robust) / (2 * count),
        "standard_interval": interval(standard, count),
        "robust_interval": interval(robust, count),
    }


def measure_aware(name: str, args: argparse.Namespace, table: dict[str, Any], save: Callable[[], None]) -> None:
    images, labels = imagenet(args.aware_images)
    network = model(name)
    for kind, source in args.purifiers.items():
        best = best_of(table, kind)
        if "aware" in table[best]:
            continue
        purifier = torch.compile(Purifier.from_pretrained(source, iterations=int(best.split("=")[1])))

        def defended(x: Tensor, purifier: Purify = purifier) -> Tensor:
            return network(purifier(x))

        hostile = attack(defended, images, labels, 10, f"aware {name} {best}")
        right = correct(network, purified(purifier, hostile), labels)
        table[best]["aware"] = {
            "images": len(labels),
            "robust": right / len(labels),
            "robust_interval": interval(right, len(labels)),
        }
        save()


def print_table(name: str, table: dict[str, Any]) -> None:
    print(f"\n### {name}: PGD Linf 16/255, 10 steps, {table['none']['images']} images\n")
    print("| purifier | standard | robust, purifier-blind | mean | robust, purifier-aware |")
    print("|---|---|---|---|---|")
    for row, r in table.items():
        aware = r.get("aware")
        shown = f"{aware['robust']:.3f} (n={aware['images']})" if aware else ""
        print(f"| {row} | {r['standard']:.3f} | {r['robust']:.3f} | {r['mean']:.3f} | {shown} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenet_v2"])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--aware-images", type=int, default=30)
    parser.add_argument("--purifiers", nargs="+", metavar="NAME[=FOLDER]", help="of " + ", ".join(ITERATED))
    parser.add_argument("--dtype", default="float32", help="what the iterated purifiers compute in")
    parser.add_argument("--work", type=Path, default=Path("runs/blind_pgd"), help="folder for attacked images")
    parser.add_argument("--name", default="blind_pgd", help="name of the result file")
    args = parser.parse_args()
    args.purifiers = iterated(args.purifiers or [kind for kind in ITERATED if kind in list_purifiers()])
    for name in args.models:
        run(name, args)


def iterated(given: list[str]) -> dict[str, str]:
    """Reads NAME[=FOLDER] of iterated purifiers into names and what to load."""
    found = sources(given)
    if not found.keys() <= ITERATED.keys():
        raise SystemExit(f"expected --purifiers of {', '.join(ITERATED)}, got {', '.join(found)}")
    return found


def run(name: str, args: argparse.Namespace) -> None:
    """Measures one classifier into its own result file, on from what that file has."""
    settings = {"eps": EPS, "alpha": ALPHA, "steps": STEPS, "norm": "Linf", "dtype": args.dtype}
    path = RESULTS / f"{args.name}_{name}.json"
    result = begun_result(path, settings, {})
    table = result["rows"]
    for kind, source in args.purifiers.items():
        if renewed(result, kind, Purifier.from_pretrained(source, iterations=1), path):
            for row in [row for row in table if row.startswith(f"{kind} i=")]:
                del table[row]

    def save() -> None:
        write_result(path.stem, {**result, "environment": environment()})

    measure_baselines(name, args, table, save)
    for kind, source in args.purifiers.items():
        measure_iterated(name, kind, source, args, table, save)
    if args.aware_images:
        measure_aware(name, args, table, save)
    print_table(name, table)


def renewed(result: dict[str, Any], name: str, purifier: Purifier, path: Path) -> bool:
    """Records a purifier's weights and options in a result; returns whether those of its rows were others, and says so.

    Rows without a record are taken to be of these.
    """
    weights, options = digest(purifier), describe(purifier.method)
    known = result.setdefault("options", {}).get(name, options)
    # Built, so that an option that did not exist when the record was made has its default.
    others = result["weights"].get(name, weights) != weights or describe(build(known)) != options
    if others:
        print(f"{name}: other options or weights than those of {path.name}; its rows are measured again")
    result["weights"][name], result["options"][name] = weights, options
    return others


def digest(purifier: Purifier) -> str:
    """SHA-256 of a purifier's weights."""
    values = purifier.method.state_dict().values()
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in values)).hexdigest()


if __name__ == "__main__":
    main()
