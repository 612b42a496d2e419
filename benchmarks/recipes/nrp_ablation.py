"""The ablations of NRP's Figure 5: short trainings of a small nrp-resg that each change one thing.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.nrp_ablation --cache <folder of the headline's attacked images>

Every training starts from the identity and has the steps of nrp-ablation.yaml. Each purifier is then judged by what
EfficientNet-Lite0, which takes part in none, makes of the first images of the headline tables: clean, and under blind
attacks on it. GNP and FGSP are the paper's names for Gaussian noise and FGSM instead of SSP. Finished trainings are
kept in --work, and a run that was stopped resumes. Result: nrp_ablation.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.accuracy.headline import ATTACKS, CLEAN, SSP16, attacked_images, nips
from benchmarks.kit import as_folder, environment, photographs, share, write_result
from benchmarks.lite import lite0
from benchmarks.markdown import percent, table
from purifier import Purifier
from purifier.training.nrp import NRPTraining, train

NAME, CLASSIFIER = "nrp_ablation", "lite0"
BASE = Path(__file__).parent / "nrp-ablation.yaml"
VARIANTS: dict[str, dict[str, Any]] = {
    "NRP": {},
    "NRP, another seed": {"seed": 1},
    "GNP: Gaussian noise": {"attack": "gaussian"},
    "FGSP: FGSM": {"attack": "fgsm"},
    "without the feature loss": {"feature_weight": 0.0},
    "without the pixel loss": {"pixel_weight": 0.0},
    "vanilla GAN": {"relativistic": False},
    "without a critic": {"adversarial_weight": 0.0},
}
JUDGED = (CLEAN, "PGD 4/255", "PGD 16/255", "MI-FGSM 16/255", SSP16)


def base_settings() -> NRPTraining:
    """Reads the settings that each training changes one of."""
    return NRPTraining(**yaml.safe_load(BASE.read_text()), data=photographs())


def trained(name: str, base: NRPTraining, work: Path) -> Purifier:
    """Trains one variant, or loads what `work` has of it."""
    folder = work / as_folder(name)
    return Purifier.from_pretrained(train(replace(base, **VARIANTS[name]), folder), dtype="float32")


@torch.inference_mode()
def shares(purify: Callable[[Tensor], Tensor], network: nn.Module, sets: Mapping[str, Any], count: int) -> Any:
    """Returns the share of right predictions under each attack, with its interval."""
    found = {}
    for name, attacked in sets.items():
        labels = attacked.pictures.labels
        hits = sum(int(network(purify(attacked[i])).argmax(1)) == int(labels[i]) for i in range(count))
        found[name] = share(hits, count)
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """The table of the result file."""
    lines = [
        [name, *(percent(cell["share"], cell["interval"]) for cell in row.values())]
        for name, row in result["rows"].items()
    ]
    count = result["settings"]["images"]
    return f"n = {count} images.\n\n" + table(["training", *next(iter(result["rows"].values()))], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("runs/headline"), help="folder of attacked images")
    parser.add_argument("--work", type=Path, default=Path("runs/nrp_ablation"), help="folder of the trainings")
    parser.add_argument("--images", type=int, default=100)
    args = parser.parse_args(arguments)
    base, network, pictures = base_settings(), lite0(), nips()
    made = {name: trained(name, base, args.work) for name in tqdm(VARIANTS, unit="training")}
    sets = {name: attacked_images(args.cache, CLASSIFIER, name, {CLASSIFIER: network}, pictures) for name in JUDGED}
    for attacked in sets.values():
        attacked.make(args.images)
    purifiers: dict[str, Callable[[Tensor], Tensor]] = {"no purifier": nn.Identity(), **made}
    rows = {name: shares(one, network, sets, args.images) for name, one in tqdm(purifiers.items(), unit="purifier")}
    settings = {"images": args.images, "classifier": CLASSIFIER, "training": yaml.safe_load(BASE.read_text())}
    settings["attacks"] = {name: attack.settings() for name in JUDGED if (attack := ATTACKS[name]()) is not None}
    result = {"settings": settings, "variants": VARIANTS, "rows": rows, "environment": environment()}
    write_result(NAME, result)
    print(markdown(result))


if __name__ == "__main__":
    main()
