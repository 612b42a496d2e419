"""Judges trained alloys, to choose between them: by held-out photographs, and networks other than the evaluation's.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.alloy_judge NAME[=FOLDER] ... [--images 96]

By what, `alloy_figures.py` says. Results, with a hash of each purifier's weights: benchmarks/results/alloy_judge.json.
"""

from __future__ import annotations

import argparse

from tqdm import tqdm

from benchmarks.accuracy.blind_pgd import digest
from benchmarks.kit import environment, sources, write_result
from benchmarks.recipes.alloy_figures import judged, judges_of, table, unpurified
from benchmarks.recipes.training_script import photographs
from purifier import Purifier
from purifier.training.settings import PhotographTraining

ITERATIONS = (1, 2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("purifiers", nargs="+", metavar="NAME[=FOLDER]")
    parser.add_argument("--images", type=int, default=96, help="held-out images")
    parser.add_argument("--name", default="alloy_judge", help="name of the result file")
    args = parser.parse_args()
    found = sources(args.purifiers)
    weights = {name: digest(Purifier.from_pretrained(source)) for name, source in found.items()}
    settings = {"images": args.images}
    judges = judges_of(PhotographTraining(data=photographs()), args.images)
    rows = {"no purifier": {"k=0": unpurified(judges)}}
    for name, source in tqdm(found.items(), unit="purifier"):
        rows[name] = judged(source, judges, ITERATIONS)
        write_result(args.name, {"settings": settings, "weights": weights, "rows": rows, "environment": environment()})
    print(table("purifier", [(name, k, row) for name, found in rows.items() for k, row in found.items()]))


if __name__ == "__main__":
    main()
