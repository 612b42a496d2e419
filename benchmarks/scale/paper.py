"""What 100 million pictures on 64 GPUs would take, on paper.

    python -m benchmarks.scale.paper [--images-per-second RATE]

The sizes of the manifest and of the driver's plan are measured by making one of 256 pictures, the rest is arithmetic.
The rate of a GPU is an assumption: measure yours with `purifier bench`.
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.markdown import table
from purifier.scale.items import Outcome
from purifier.scale.manifest import Part, Rows
from purifier.scale.stores import Store

IMAGES, GPUS, PART = 100_000_000, 64, 256
# S3 in us-east-1, dollars for each request.
GET, PUT, LISTED = 0.0004 / 1000, 0.005 / 1000, 1000


def part_sizes() -> tuple[int, int, int]:
    """Returns the bytes of a part's file in the manifest, of its plan, and of its name in the list of done parts."""
    keys = [f"folder/{number:03d}/{number * 7919 % 10**9:09d}.jpg" for number in range(PART)]
    part, rows = Part(keys, [key.replace("jpg", "png") for key in keys]), Rows()
    for number, key in enumerate(keys):
        score, seconds = (number * 0.618) % 1, 0.02 + number / 1e5
        rows.add(Outcome(key, key.replace("jpg", "png"), str(number).encode(), None, score, seconds))
    with tempfile.TemporaryDirectory() as folder:
        rows.save(part, Store(folder))
        (file,) = Path(folder).iterdir()
        return file.stat().st_size, len(pickle.dumps(part)), part.name.__sizeof__()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-per-second", type=float, default=200, help="of one GPU")
    args = parser.parse_args(arguments)
    file, plan, name = part_sizes()
    parts, hours = IMAGES / PART, IMAGES / GPUS / args.images_per_second / 3600
    listing, rate = parts / LISTED, args.images_per_second
    rows = [
        ["parts", f"{parts:,.0f} of {PART} pictures"],
        ["manifest", f"{parts * file / 1e9:.1f} GB in {parts:,.0f} files of {file / 1e3:.1f} kB"],
        ["names of the done parts, in the driver", f"{parts * name / 1e6:.0f} MB; {listing:,.0f} requests to list"],
        ["plan of all parts, in Ray's object store", f"{parts * plan / 1e9:.1f} GB, and again in the driver"],
        ["requests to S3", f"{IMAGES * GET:.0f} $ to read, {(IMAGES + parts) * PUT:.0f} $ to write"],
        [f"time at {rate:g} pictures a second and GPU", f"{hours:.1f} hours, {hours * GPUS:.0f} GPU hours"],
    ]
    print(table(["what", "estimate"], rows))


if __name__ == "__main__":
    main()
