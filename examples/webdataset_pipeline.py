"""Shards of WebDataset, purified in the pipeline that feeds a training or an evaluation.

pip install webdataset
python examples/webdataset_pipeline.py "shards/{00..09}.tar"
"""

import argparse

import torch
import webdataset as wds

from purifier import Purifier

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("shards", help="tar files with pictures (jpg or png) and classes (cls)")
parser.add_argument("--purifier", default="ncis", help="a name from purifier.list_purifiers(), a folder, or org/name")
parser.add_argument("--size", type=int, default=224)
options = parser.parse_args()

purifier = Purifier.from_pretrained(options.purifier, device="auto")


def central_square(image: torch.Tensor) -> torch.Tensor:
    """Cuts and resizes after purifying, so that a purifier with a gate sees the picture as the attacker made it."""
    side = min(image.shape[-2:])
    top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
    square = image[None, :, top : top + side, left : left + side]
    return torch.nn.functional.interpolate(square, (options.size, options.size), mode="bilinear", antialias=True)[0]


@torch.inference_mode()
def purify(image: torch.Tensor) -> torch.Tensor:
    return central_square(purifier(image))


data = wds.WebDataset(options.shards, shardshuffle=False).decode("torchrgb").to_tuple("jpg;png", "cls")
for images, labels in data.map_tuple(purify, None).batched(8):
    print(f"{tuple(images.shape)} in [{images.min():.2f}, {images.max():.2f}], classes {labels}")
