"""Writes a trained purifier as `weights/` has it: in half precision, named after its folder.

python -m benchmarks.recipes.ship RUN/PURIFIER weights/NAME
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from purifier import Purifier


def ship(folder: Path, to: Path) -> None:
    """Saves a purifier again, in half precision, with its training.yaml."""
    purifier = Purifier.from_pretrained(folder).half()
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
    args = parser.parse_args()
    ship(args.folder, args.to)


if __name__ == "__main__":
    main()
