"""What purifying in bfloat16 does to accuracy: the same images, in float32 and in bfloat16.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.half_precision

Standard accuracy, and purifier-blind robust accuracy under the attack of blind_pgd.py, of the kit's images;
every purifier at its own number of iterations. The classifier computes in float32 throughout. The attacked images are
kept in --work, every finished row in the result file, so a run that was killed goes on where it stopped. Rows of
options or weights that are others by now are measured again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from benchmarks.accuracy.blind_pgd import ALPHA, EPS, STEPS, attacked, figures, purified, renewed
from benchmarks.kit import RESULTS, begun_result, correct, environment, imagenet, model, sources, write_result
from benchmarks.tables import half_precision
from purifier import Purifier

DTYPES = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenet_v2"])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument(
        "--purifiers", nargs="+", default=["gs", "ncis", "nrp-resg", "alloy", "alloy-s"], metavar="NAME[=FOLDER]"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/blind_pgd"), help="folder for attacked images")
    parser.add_argument("--name", default="half_precision", help="name of the result file")
    args = parser.parse_args()
    path = RESULTS / f"{args.name}.json"
    settings = {"eps": EPS, "alpha": ALPHA, "steps": STEPS, "norm": "Linf", "images": args.images}
    result = begun_result(path, settings, [])
    for name, source in sources(args.purifiers).items():
        if renewed(result, name, Purifier.from_pretrained(source), path):
            result["rows"] = [row for row in result["rows"] if row["purifier"] != name]
        # Purified once for all classifiers.
        clean: dict[str, Tensor] = {}
        for classifier in args.models:
            if not any((row["classifier"], row["purifier"]) == (classifier, name) for row in result["rows"]):
                measured = measure(classifier, source, clean, args)
                result["rows"].append({"classifier": classifier, "purifier": name, **measured})
                write_result(args.name, {**result, "environment": environment()})
    print(half_precision(result))


def measure(classifier: str, source: str, clean: dict[str, Tensor], args: argparse.Namespace) -> dict[str, Any]:
    """Returns the figures of a purifier in front of a classifier, by dtype, and keeps what it makes of clean images."""
    images, labels = imagenet(args.images)
    hostile, network = attacked(classifier, images, labels, args.work), model(classifier)
    found = {}
    for dtype in tqdm(DTYPES, desc=f"{classifier} {source}"):
        purifier = Purifier.from_pretrained(source, dtype=dtype)
        if dtype not in clean:
            clean[dtype] = purified(purifier, images)
        right = [correct(network, x, labels) for x in (clean[dtype], purified(purifier, hostile))]
        found[dtype] = figures(right[0], right[1], len(labels))
    return found


if __name__ == "__main__":
    main()
