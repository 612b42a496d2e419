"""Writes a trained purifier as `weights/` has it: named after its folder, in half precision unless --exact is given.

python -m benchmarks.recipes.ship RUN/PURIFIER weights/NAME
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from purifier import Purifier


def ship(folder: Path, to: Path, exact: bool = False) -> None:
    """Saves a purifier again, in half precision unless `exact`, with its training.yaml."""
    purifier = Purifier.from_pretrained(folder)
    purifier = purifier if exact else purifier.half()
    purifier.name = to.name
    purifier.save_pretrained(to)
    (to / "training.yaml").write_text(without_places((folder / "training.yaml").read_text()))


def without_places(settings: str) -> str:
    """Shortens the absolute paths in the text of a training.yaml to their last two parts."""
    return re.sub(r"(?<=[\s'\"=])/(?:[^\s/'\"]+/)*([^\s/'\"]+/[^\s/'\"]+)", r"\1", settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("to", type=Path)
    parser.add_argument("--exact", action="store_true", help="keep single precision, for weights that were measured so")
    args = parser.parse_args()
    ship(args.folder, args.to, args.exact)


if __name__ == "__main__":
    main()
