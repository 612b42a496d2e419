"""A folder of pictures as a data set of Hugging Face, purified with datasets.map, which caches what it has done.

pip install datasets
python examples/datasets_map.py PICTURES OUT
"""

import argparse

from datasets import load_dataset

from purifier import Purifier

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("pictures", help="folder of pictures; folders in it are the labels")
parser.add_argument("out", help="folder for the purified data set")
parser.add_argument("--purifier", default="ncis", help="a name from purifier.list_purifiers(), a folder, or org/name")
options = parser.parse_args()

purifier = Purifier.from_pretrained(options.purifier, device="auto")


def purify(example: dict) -> dict:
    return {"image": purifier.purify_image(example["image"])}


data = load_dataset("imagefolder", data_dir=options.pictures, split="train").map(purify)
data.save_to_disk(options.out)
print(f"{len(data)} pictures, columns {', '.join(data.column_names)}")
