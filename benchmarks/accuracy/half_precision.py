"""Compares the accuracy behind purifiers that compute in float32 and in bfloat16, on the same images.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.half_precision [--purifiers NAME[=FOLDER] ...]

Standard accuracy, and robust accuracy under the purifier-blind attack of blind_pgd.py. Each purifier has its default
number of iterations; classifier and attack always compute in float32. Rows of a purifier replace earlier ones in the
result file, benchmarks/results/half_precision.json. A run that was stopped resumes from --work.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.accuracy.evaluations import ATTACK, BLIND_PGD, attacked, figures, measured
from benchmarks.accuracy.tables import CLASSIFIERS, half_precision
from benchmarks.kit import classified, environment, load_sources, model, read_result, weights_of, write_result
from purifier import Purifier
from purifier.attacks import Blind

PURIFIERS = ("gs", "ncis", "nrp-resg", "alloy", "alloy-s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(CLASSIFIERS), choices=CLASSIFIERS)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--purifiers", nargs="+", default=list(PURIFIERS), metavar="NAME[=FOLDER]")
    parser.add_argument("--work", type=Path, default=Path("runs/half_precision"), help="folder for records")
    parser.add_argument("--name", default="half_precision", help="name of the result file")
    args = parser.parse_args()
    settings = {**ATTACK, "images": args.images}
    result = read_result(args.name, {"settings": settings, "weights": {}, "rows": []})
    if result["settings"] != settings:
        raise SystemExit(f"expected {args.name}.json of {settings}, got {result['settings']}; choose another --name")
    purifiers = load_sources(args.purifiers)
    for classifier in args.models:
        rows = measure(classifier, purifiers, args.images, args.work / "+".join([classifier, *purifiers]))
        again = {(row["classifier"], row["purifier"]) for row in rows}
        result["rows"] = [row for row in result["rows"] if (row["classifier"], row["purifier"]) not in again] + rows
    order = list(dict.fromkeys(row["purifier"] for row in result["rows"]))
    result["rows"].sort(key=lambda row: order.index(row["purifier"]))
    result["weights"] |= weights_of(purifiers)
    write_result(args.name, {**result, "environment": environment()})
    print(half_precision(result))


def measure(classifier: str, purifiers: dict[str, Purifier], count: int, out: Path) -> list[dict[str, Any]]:
    """Returns a row of figures by dtype for each purifier in front of a classifier."""
    found = measured(
        classifier, model(classifier), classified(count), purifiers=purifiers, attacks=BLIND_PGD,
        threats={"blind": Blind()}, out=out, defend_dtypes=("bfloat16",),
    )  # fmt: skip
    rows = {name: {"classifier": classifier, "purifier": name} for name in purifiers}
    for row in attacked(found.rows):
        if row.purifier in rows:
            rows[row.purifier][row.dtype] = figures(row)
    return list(rows.values())


if __name__ == "__main__":
    main()
