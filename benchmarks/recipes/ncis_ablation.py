"""The ablations of NCIS (Table 3 and Figure 5 of its supplement): equally long trainings that each change one thing.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.ncis_ablation --cache <folder of the headline's attacked images>

FBI is the blind-spot network on pixels, FBI-E the one on m x m patches, G one Gaussian pass of K taps; all are trained
by eq. 7 alone. Each is judged by what EfficientNet-Lite0 makes of the first images of the headline tables after i
applications: clean, and under blind PGD at 16/255. Finished trainings are kept in --work, and a run that was stopped
resumes. Result: ncis_ablation.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.accuracy.attacked_images import AttackedImages
from benchmarks.accuracy.headline import CLEAN, attacked_images, nips
from benchmarks.kit import as_folder, environment, photographs, write_result
from benchmarks.lite import lite0
from benchmarks.markdown import percent, table
from purifier import Purifier
from purifier.data.images import list_images
from purifier.training.ncis import NCISTraining, train

NAME, CLASSIFIER, ATTACK = "ncis_ablation", "lite0", "PGD 16/255"
ITERATIONS = (1, 3, 5, 7)
BASE: dict[str, Any] = {
    "crop_size": 96, "shrink": 0.5, "batch_size": 8, "learning_rate": 1e-3, "validate_every": 100_000,
    "validation_images": 8, "precision": "no", "device": "cpu", "checkpoint_every": 50,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "FBI-E (m = 2) + G (K = 11)": {},
    "FBI-E (m = 2)": {"kernel_size": 0},
    "FBI + G (K = 11)": {"patch": 1},
    "FBI": {"patch": 1, "kernel_size": 0},
    "FBI-E (m = 3) + G (K = 11)": {"patch": 3},
    "FBI-E (m = 2) + G (K = 9)": {"kernel_size": 9},
    "FBI-E (m = 2) + G (K = 13)": {"kernel_size": 13},
    "the first, on a quarter of the photographs": {"share": 4},
}


def trained(name: str, steps: int, work: Path) -> Purifier:
    """Trains a variant, or loads what `work` has of it."""
    changes = dict(VARIANTS[name])
    folder = work / as_folder(name)
    data = photographs()
    if share := changes.pop("share", 0):
        data = (str(_few(data, share, folder / "photographs")),)
    config = NCISTraining(**{**BASE, **changes, "steps": steps, "data": data})
    return Purifier.from_pretrained(train(config, folder / "run"), dtype="float32")


def _few(folders: Sequence[str], share: int, into: Path) -> Path:
    """Links every `share`-th photograph into a folder."""
    into.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(list_images(folders)[::share]):
        link = into / f"{number:05d}{path.suffix}"
        if not link.exists():
            link.symlink_to(path.resolve())
    return into


@torch.inference_mode()
def shares(purifier: Purifier, network: nn.Module, sets: Mapping[str, AttackedImages], count: int) -> Any:
    """Returns the shares of right predictions by kind of images and number of applications."""
    purifier.iterations = 1
    found = {kind: dict.fromkeys(map(str, ITERATIONS), 0.0) for kind in sets}
    for kind, attacked in sets.items():
        for index in range(count):
            image: Tensor = attacked[index]
            for i in range(1, max(ITERATIONS) + 1):
                image = purifier(image)
                if i in ITERATIONS:
                    right = int(network(image).argmax(1)) == int(attacked.pictures.labels[index])
                    found[kind][str(i)] += right / count
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """The table of the result file: clean / attacked."""
    heads = ["trained", *(f"i={i}" for i in ITERATIONS)]
    lines = [
        [name, *(f"{percent(row[CLEAN][str(i)])} / {percent(row[ATTACK][str(i)])}" for i in ITERATIONS)]
        for name, row in result["rows"].items()
    ]
    return f"n = {result['settings']['images']} images.\n\n" + table(heads, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("runs/headline"), help="folder of attacked images")
    parser.add_argument("--work", type=Path, default=Path("runs/ncis_ablation"), help="folder of the trainings")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--images", type=int, default=100)
    args = parser.parse_args(arguments)
    network, pictures = lite0(), nips()
    made = {name: trained(name, args.steps, args.work) for name in tqdm(VARIANTS, unit="training")}
    sets = {
        kind: attacked_images(args.cache, CLASSIFIER, kind, {CLASSIFIER: network}, pictures) for kind in (CLEAN, ATTACK)
    }
    for attacked in sets.values():
        attacked.make(args.images)
    plain = {f"G (K = {size}), not trained": Purifier.from_pretrained("gs", kernel_size=size) for size in (5, 11)}
    judged = tqdm({**plain, **made}.items(), unit="purifier")
    rows = {name: shares(one, network, sets, args.images) for name, one in judged}
    settings = {"images": args.images, "classifier": CLASSIFIER, "steps": args.steps, "training": BASE}
    result = {"settings": settings, "variants": VARIANTS, "rows": rows, "environment": environment()}
    write_result(NAME, result)
    print(markdown(result))


if __name__ == "__main__":
    main()
