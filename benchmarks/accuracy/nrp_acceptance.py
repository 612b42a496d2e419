"""The targets of NRP: SSP, PGD and transferred attacks, beside the classical baselines, on two classifiers.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.nrp_acceptance [--images N] [--device cuda] [--purifiers ...]

No attack knows a purifier. Prints the tables and the targets, and writes benchmarks/results/nrp_acceptance.json. A run
that was stopped resumes from --work.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.accuracy.evaluations import ALPHA, EPS, attacked, measured
from benchmarks.accuracy.tables import CLASSIFIERS, nrp_accuracy, nrp_targets
from benchmarks.kit import classified, environment, model, weights_of, write_result
from benchmarks.recipes.extractors import feature_extractor
from purifier import Purifier
from purifier._hub import is_trained
from purifier.attacks import DIFGSM, MIFGSM, PGD, SSP, Attack, Blind, Transfer

BASELINES = ("jpeg", "median", "bit-depth", "tvm")
SSP_NAME = "SSP 16/255"
WHITE_BOX: dict[str, Attack] = {
    "PGD L2 5": PGD(norm="L2", eps=5.0, alpha=1.0, steps=10),
    # The step size of the NCIS paper's Table 1; ten such steps go a fifth of the way.
    "PGD L2 5, steps of 0.1": PGD(norm="L2", eps=5.0, alpha=0.1, steps=10),
    "PGD Linf 16/255": PGD(eps=EPS, alpha=ALPHA, steps=10),
    "MI-FGSM 16/255": MIFGSM(eps=EPS, alpha=ALPHA, steps=10),
    "DIM 16/255": DIFGSM(eps=EPS, alpha=ALPHA, steps=10),
}
L2 = tuple(name for name in WHITE_BOX if " L2 " in name)
TRANSFERRED = ("MI-FGSM 16/255", "DIM 16/255")
# The least accuracy under SSP, and the largest loss of standard accuracy, in points.
TARGETS = {"resnet50": {"nrp-resg": 60, "nrp": 65, "drop": 6}, "mobilenet_v2": {"nrp-resg": 45, "nrp": 50, "drop": 12}}

Cells = dict[str, dict[str, dict[str, Any]]]


def rows_of(classifier: str, purifiers: dict[str, Purifier], args: argparse.Namespace) -> Cells:
    """Returns accuracy and interval by purifier and column of a classifier's table."""
    features = feature_extractor().to(args.device)
    ssp = SSP(features, eps=EPS, alpha=2 / 255, steps=30, distance="squared")
    (other,) = (name for name in CLASSIFIERS if name != classifier)
    transfer = Transfer(model(other, args.device), names=[other])
    rows: Cells = {}
    for threat, attacks in (
        (Blind(), {SSP_NAME: ssp, **WHITE_BOX}),
        (transfer, {name: WHITE_BOX[name] for name in TRANSFERRED}),
    ):
        found = measured(
            f"{classifier} {threat.name}", model(classifier, args.device), classified(args.images),
            purifiers=purifiers, attacks=attacks, threats={threat.name: threat},
            out=args.work / f"{'+'.join([classifier, *purifiers])}-{threat.name}-{args.images}", batch_size=10,
        )  # fmt: skip
        for row in attacked(found.rows):
            key = row.settings["attack_key"]
            cells = rows.setdefault(row.purifier, {"standard": _cell(row.standard_accuracy, row.standard_interval)})
            head = f"{key} from {other}" if threat is transfer else key
            cells[head] = _cell(row.robust_accuracy, row.robust_interval)
    return rows


def _cell(accuracy: float, interval: tuple[float, float]) -> dict[str, Any]:
    return {"accuracy": accuracy, "interval": interval}


def targets(rows: Cells, classifier: str) -> list[dict[str, Any]]:
    """Returns each target of each NRP network on a classifier: what is wanted, what was measured, whether it holds."""
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
            "SSP, at least": (wanted[name], ours[SSP_NAME], ours[SSP_NAME] >= wanted[name]),
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
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--work", type=Path, default=Path("runs/nrp_acceptance"), help="folder for records")
    ours = [name for name in ("nrp-resg", "nrp") if is_trained(name)]
    parser.add_argument("--purifiers", nargs="+", default=[*BASELINES, "gs", "ncis", *ours])
    args = parser.parse_args()
    purifiers = {}
    for name in args.purifiers:
        options = {"iterations": 5} if name in ("gs", "ncis") else {}
        purifiers[f"{name} i=5" if options else name] = Purifier.from_pretrained(name, device=args.device, **options)
    rows = {classifier: rows_of(classifier, purifiers, args) for classifier in CLASSIFIERS}
    result = {
        "settings": {"eps": EPS, "alpha": ALPHA, "device": args.device, "images": args.images},
        "weights": weights_of({name.split()[0]: purifier for name, purifier in purifiers.items()}),
        "rows": rows,
        "targets": [row for classifier in CLASSIFIERS for row in targets(rows[classifier], classifier)],
        "environment": environment(),
    }
    write_result("nrp_acceptance", result)
    print(*(nrp_accuracy(result, classifier) for classifier in CLASSIFIERS), nrp_targets(result), sep="\n\n")


if __name__ == "__main__":
    main()
