"""Standard and robust accuracy under one purifier-blind attack, and under the same attack by who knows the purifier.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.blind_pgd [--purifiers NAME[=FOLDER] ...]

The attack is untargeted PGD, Linf, eps 16/255, alpha 1.6/255, 10 steps, random start, cross entropy. The blind rows
attack the bare classifier; they are no defence, the classical baselines, and each purifier at each number of
iterations. The aware rows attack purifier and classifier together, with exact gradients, on --aware-images images; each
purifier has its best number of iterations. --purifiers measures some purifiers alone and replaces their rows. A run
that was stopped resumes from --work. Results: benchmarks/results/blind_pgd_<classifier>.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.accuracy.evaluations import ATTACK, BLIND_PGD, attacked, figures, measured
from benchmarks.accuracy.tables import CLASSIFIERS, best_of
from benchmarks.kit import classified, environment, model, read_result, sources, weights_of, write_result
from purifier import Purifier
from purifier.attacks import Aware, Blind

BASELINES = ("jpeg", "bit-depth", "median", "tvm", "resize-pad")
# The largest number of iterations that is measured of each purifier.
ITERATED = {"gs": 8, "ncis": 8, "alloy": 1, "alloy-s": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(CLASSIFIERS), choices=CLASSIFIERS)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--aware-images", type=int, default=30)
    parser.add_argument("--purifiers", nargs="+", metavar="NAME[=FOLDER]", help=f"of {', '.join(ITERATED)}")
    parser.add_argument("--dtype", default="float32", help="dtype of the purifiers")
    parser.add_argument("--work", type=Path, default=Path("runs/blind_pgd"), help="folder for records")
    parser.add_argument("--name", default="blind_pgd", help="name of the result files")
    args = parser.parse_args()
    for classifier in args.models:
        run(classifier, args)


def iterated(given: list[str], dtype: str) -> dict[str, Purifier]:
    """Returns each of NAME[=FOLDER] at each number of iterations, as "NAME i=N"."""
    found = sources(given)
    if not found.keys() <= ITERATED.keys():
        raise SystemExit(f"expected --purifiers of {', '.join(ITERATED)}, got {', '.join(found)}")
    return {
        f"{kind} i={i}": Purifier.from_pretrained(source, iterations=i, dtype=dtype)
        for kind, source in found.items()
        for i in range(1, ITERATED[kind] + 1)
    }


def run(classifier: str, args: argparse.Namespace) -> None:
    """Measures the purifiers in front of one classifier, and adds their rows to its result file."""
    name, settings = f"{args.name}_{classifier}", {**ATTACK, "dtype": args.dtype}
    earlier = read_result(name, {"settings": settings})
    if earlier["settings"] != settings:
        raise SystemExit(f"expected {name}.json of {settings}, got {earlier['settings']}; choose another --name")
    purifiers = iterated(args.purifiers or list(ITERATED), args.dtype)
    others = {} if args.purifiers else {row: Purifier.from_pretrained(row) for row in BASELINES}
    network, kinds = model(classifier), list(dict.fromkeys(row.split()[0] for row in purifiers))
    out = args.work / "+".join([classifier, *((args.purifiers and kinds) or [])])

    def rows_of(shown: dict[str, Purifier], threat: Any, count: int, batch_size: int) -> dict[str, Any]:
        found = measured(
            f"{classifier} {threat.name}", network, classified(count), purifiers=shown, attacks=BLIND_PGD,
            threats={threat.name: threat}, out=out / f"{threat.name}-{count}", batch_size=batch_size,
        )  # fmt: skip
        return {row.purifier: figures(row) for row in attacked(found.rows)}

    rows = rows_of({**others, **purifiers}, Blind(), args.images, 20)
    if args.aware_images:
        best = {row: purifiers[row] for row in (best_of(rows, kind) for kind in kinds)}
        for row, found in rows_of(best, Aware(), args.aware_images, 10).items():
            rows[row]["aware"] = {key: found[key] for key in ("images", "robust", "robust_interval")}
    weights = weights_of({kind: purifiers[f"{kind} i=1"] for kind in kinds})
    kept = {row: r for row, r in earlier.get("rows", {}).items() if row.split()[0] not in kinds}
    write_result(
        name,
        {
            "settings": settings,
            "weights": {**earlier.get("weights", {}), **weights},
            "rows": {**kept, **rows},
            "environment": environment(),
        },
    )


if __name__ == "__main__":
    main()
