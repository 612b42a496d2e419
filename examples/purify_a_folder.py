"""Purifies every image in a folder.

    python examples/purify_a_folder.py PHOTOS CLEAN
    python examples/purify_a_folder.py PHOTOS CLEAN --purifier ncis --tile 512  # bounded memory for large images

The command `purifier purify PHOTOS CLEAN` also handles subfolders, batches and interrupted runs.
"""

import argparse
from pathlib import Path

from purifier import InputError, Purifier

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("source", type=Path)
parser.add_argument("target", type=Path)
parser.add_argument("--purifier", default="ncis", help="a name from purifier.list_purifiers(), a folder, or org/name")
parser.add_argument("--tile", type=int, help="work in tiles of this many pixels")
options = parser.parse_args()

purify = Purifier.from_pretrained(options.purifier, device="auto")
if options.tile:
    purify = purify.tiled(options.tile)

options.target.mkdir(parents=True, exist_ok=True)
for path in sorted(path for path in options.source.iterdir() if path.is_file()):
    # PNG is lossless: a lossy format would change the image again.
    target = options.target / f"{path.stem}.png"
    try:
        purify.purify_image(path).save(target)
        print(target)
    except InputError as error:
        print(f"skipped: {error}")
