"""The ablations of GAD on CIFAR-10: trainings that differ in their losses only, in front of the reference ResNet-20.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.cifar10
    PURIFIER_KIT=<folder> python -m benchmarks.recipes.gad_ablation [NAME ...] [--steps 1500]

The losses, by the paper's names: L_I pixels, L_F features, L_T pixels as in traditional training, where both outputs
are compared with the clean image; "classes" is the class-aware alignment. "Full" is L_I+F with classes. All without the
perceptual loss, except "full, L_p", which uses three layers of VGG-19. Every training has the settings of
gad-cifar10.yaml, with detach_clean, and the same steps. They are then measured under the blind attacks of gad_linf.py.

Finished trainings are kept in --work, and a run that was stopped resumes. With names, only these train, and nothing is
measured. Result: gad_ablation.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from benchmarks.kit import as_folder, environment, write_result
from benchmarks.recipes import cifar10_targets, gad_linf
from benchmarks.recipes.cifar10 import extract_part
from benchmarks.recipes.tables import gad_task
from purifier import Purifier
from purifier.training.gad import GADTraining, train

NAME = "gad_ablation"
BASE = Path(__file__).parent / "gad-cifar10.yaml"
_PERCEPTUAL = {"perceptual": "benchmarks.recipes.extractors:perceptual_maps", "perceptual_weight": 0.1}
VARIANTS: dict[str, dict[str, Any]] = {
    "L_I": {"variant": "li"},
    "L_F, no classes": {"variant": "lf-noc"},
    "L_I+F, no classes": {"variant": "li+lf-noc"},
    "L_T": {"variant": "lt"},
    "L_T+F, no classes": {"variant": "lt+lf-noc"},
    "full": {"variant": "full"},
    "full, L_p": {"variant": "full", **_PERCEPTUAL},
}


def settings_of(name: str, steps: int) -> GADTraining:
    """Returns the settings of a variant."""
    base = yaml.safe_load(BASE.read_text())
    changed = {"detach_clean": True, "steps": steps, "validate_every": steps, **VARIANTS[name]}
    return GADTraining(**{**base, **changed, "data": str(extract_part("train", Path("runs/cifar10")))})


def trained(name: str, steps: int, work: Path) -> Purifier:
    """Trains a variant, or loads what `work` has of it."""
    folder = work / as_folder(name)
    return Purifier.from_pretrained(train(settings_of(name, steps), folder, model=cifar10_targets.resnet20()))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"out of {'; '.join(VARIANTS)}")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--work", type=Path, default=Path("runs/gad_ablation"), help="folder of trainings and records")
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.names if name not in VARIANTS]:
        raise SystemExit(f"expected names out of {'; '.join(VARIANTS)}, got {'; '.join(unknown)}")
    names = args.names or list(VARIANTS)
    made = {name: trained(name, args.steps, args.work) for name in tqdm(names, unit="training")}
    if args.names:
        return
    found = gad_linf.measure(made, args.images, args.work / f"measured-{args.images}")
    stated = {name: {**asdict(settings_of(name, args.steps)), "data": "cifar10 train"} for name in VARIANTS}
    write_result(NAME, {**found, "training": stated, "environment": environment()})
    print(gad_task(found))


if __name__ == "__main__":
    main()
