"""Standard and robust accuracy under a purifier-blind attack, with the purifier-aware figure beside it.

    PURIFIER_KIT=<folder> python benchmarks/blind_pgd.py

Attack: untargeted PGD on the bare model, Linf, eps 16/255, alpha 1.6/255, 10 steps, random start, cross entropy.
Rows: no defence, the classical baselines, gs and ncis at each number of iterations; ncis is compiled, which changes its
output by rounding only. The attacked images are kept in
--work, every finished row in the result file, so a run that was killed goes on where it stopped.
The purifier-aware rows are the same attack through purifier and model, exact gradients, on --aware-images images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from _kit import RESULTS, correct, environment, imagenet, interval, model, write_result
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from purifier import Purifier
from purifier.attacks import PGD

EPS, ALPHA, STEPS = 16 / 255, 1.6 / 255, 10
Purify = Callable[[Tensor], Tensor]
BASELINES = ("jpeg", "bit-depth", "median", "tvm", "resize-pad")


def attack(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch: int, name: str) -> Tensor:
    pgd = PGD(eps=EPS, alpha=ALPHA, steps=STEPS, generator=torch.Generator().manual_seed(0))
    pairs = list(zip(images.split(batch), labels.split(batch), strict=True))
    return torch.cat([pgd(network, x, y) for x, y in tqdm(pairs, desc=name)]).contiguous()


def attacked(name: str, images: Tensor, labels: Tensor, work: Path) -> Tensor:
    path = work / f"{name}-{len(images)}.safetensors"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        save_file({"images": attack(model(name), images, labels, 20, f"attack {name}")}, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    return load_file(path)["images"]


def purified(purifier: Purify, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([purifier(batch) for batch in images.split(20)])


def rows(ncis: str, dtype: str) -> Iterator[tuple[str, Purify | None, bool]]:
    """Yields (row, purifier, whether it is applied to the row before)."""
    yield "none", None, False
    for name in BASELINES:
        yield name, Purifier.from_pretrained(name), False
    gs = Purifier.from_pretrained("gs", iterations=1, dtype=dtype)
    once = torch.compile(Purifier.from_pretrained(ncis, iterations=1, dtype=dtype))
    for name, purify in (("gs", gs), ("ncis", once)):
        for i in range(1, 9):
            yield f"{name} i={i}", purify, i > 1


def measure(name: str, args: argparse.Namespace, table: dict[str, Any], save: Callable[[], None]) -> None:
    todo = list(rows(args.ncis, args.dtype))
    if all(row in table for row, _, _ in todo):
        return
    images, labels = imagenet(args.images)
    hostile, network = attacked(name, images, labels, args.work), model(name)
    clean_now, hostile_now = images, hostile
    for row, purifier, continues in tqdm(todo, desc=name):
        if row in table and not row.startswith(("gs", "ncis")):
            continue
        if row in table and all(f"{row.split()[0]} i={i}" in table for i in range(1, 9)):
            continue
        if purifier is not None:
            clean_now = purified(purifier, clean_now if continues else images)
            hostile_now = purified(purifier, hostile_now if continues else hostile)
        right = [correct(network, x, labels) for x in (clean_now, hostile_now)]
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
    for kind, source in (("gs", "gs"), ("ncis", args.ncis)):
        best = max((row for row in table if row.startswith(f"{kind} i=")), key=lambda row: table[row]["mean"])
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
    parser.add_argument("--aware-images", type=int, default=50)
    parser.add_argument("--ncis", default="ncis", help="name or folder of the ncis purifier")
    parser.add_argument("--dtype", default="float32", help="what gs and ncis compute in")
    parser.add_argument("--work", type=Path, default=Path("runs/blind_pgd"), help="folder for attacked images")
    parser.add_argument("--name", default="blind_pgd", help="name of the result file")
    args = parser.parse_args()
    for name in args.models:
        run(name, args)


def run(name: str, args: argparse.Namespace) -> None:
    """Measures one classifier into its own result file, on from what that file has."""
    weights = Purifier.from_pretrained(args.ncis).method.state_dict()
    settings = {"eps": EPS, "alpha": ALPHA, "steps": STEPS, "norm": "Linf", "dtype": args.dtype}
    settings["ncis"] = hashlib.sha256(b"".join(v.numpy().tobytes() for v in weights.values())).hexdigest()
    path = RESULTS / f"{args.name}_{name}.json"
    result = json.loads(path.read_text()) if path.exists() else {"settings": settings, "rows": {}}
    if result["settings"] != settings:
        raise SystemExit(f"{path} was made with {result['settings']}, not {settings}; choose another --name")

    def save() -> None:
        write_result(path.stem, {**result, "environment": environment()})

    measure(name, args, result["rows"], save)
    if args.aware_images:
        measure_aware(name, args, result["rows"], save)
    print_table(name, result["rows"])


if __name__ == "__main__":
    main()
