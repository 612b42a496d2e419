"""What matters in the training of alloy: short trainings that each change one thing, compared on held-out photographs.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.alloy_ablation [NAME ...] --init FOLDER

Without names, all ablations run. They change one thing of alloy-ablation.yaml and start from FOLDER, weights that have
seen noise only (alloy-noise.yaml), except those of another network. Only "teacher" has a teacher, as a teacher has seen
every extractor. alloy_judge.py says what the figures are; an extractor that a training leaves out tells how well it
generalises. Finished ablations are kept in --work, and a run that was stopped resumes. Results:
benchmarks/results/alloy_ablation.json, or with names alloy_ablation_some.json. The result that the project has was made
by the commit that it names, with settings that have been removed since because they did not help.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from benchmarks.kit import environment, photographs, write_result
from benchmarks.recipes.alloy_judge import Judge, judged_table, judges_of, row_of, rows_of, unpurified
from purifier import Purifier
from purifier._files import write_text
from purifier.training.alloy import AlloyTraining, train
from purifier.training.checkpoints import load_checkpoint
from purifier.training.extractors import read_extractors
from purifier.training.perturbations import read_sources

BASE = Path(__file__).parent / "alloy-ablation.yaml"
# The extractors that are one network.
_VGG = ("vgg", "centre")
# Applications of the network that each training is measured at.
ITERATIONS = (1, 2)
Changes = dict[str, Any]


def drop_sources(base: AlloyTraining, *kinds: str) -> Changes:
    """Leaves out the sources of some kinds."""
    lines = zip(base.sources, read_sources(base.sources), strict=True)
    return {"sources": tuple(text for text, line in lines if line.kind not in kinds)}


def keep_extractors(base: AlloyTraining, *names: str) -> Changes:
    """Leaves out the other extractors, and the attacks on them."""
    lines = zip(base.extractors, read_extractors(base.extractors), strict=True)
    sources = zip(base.sources, read_sources(base.sources), strict=True)
    return {
        "extractors": tuple(text for text, line in lines if line.name in names),
        "sources": tuple(text for text, line in sources if line.extractor in ("", "*", *names)),
    }


def leave_out(base: AlloyTraining, *names: str) -> Changes:
    """Leaves out some extractors, and the attacks on them."""
    return keep_extractors(base, *(line.name for line in read_extractors(base.extractors) if line.name not in names))


def attacked_only(base: AlloyTraining) -> Changes:
    """Attacks the extractors, without any loss of theirs."""
    return {"extractors": tuple(f"{text.rpartition(':')[0]}:0" for text in base.extractors), "prediction_weight": 0.0}


def untrained(**changes: Any) -> Changes:
    """Trains from random weights."""
    return {"init": "", **changes}


ABLATIONS: dict[str, Callable[[AlloyTraining], Changes]] = {
    "base": lambda base: {},
    # How much chance does.
    "seed-1": lambda base: {"seed": base.seed + 1},
    "seed-2": lambda base: {"seed": base.seed + 2},
    # Attacks and their strength.
    "no-ssp": lambda base: drop_sources(base, "ssp"),
    "no-kl": lambda base: drop_sources(base, "kl"),
    "no-noise": lambda base: drop_sources(base, "gaussian", "sign"),
    "eps-to-8": lambda base: {"eps": 8 / 255},
    "eps-from-12": lambda base: {"eps_low": 12 / 255},
    # Extractors.
    "without-vgg": lambda base: leave_out(base, *_VGG),
    "without-mobilenet": lambda base: leave_out(base, "mobilenet"),
    "without-demo": lambda base: leave_out(base, "demo"),
    "only-mobilenet": lambda base: keep_extractors(base, "mobilenet"),
    # Losses.
    "pixels-only": attacked_only,
    "features-only": lambda base: {"pixel_weight": 0.0},
    "pixels-more": lambda base: {"pixel_weight": base.pixel_weight * 4},
    "no-predictions": lambda base: {"prediction_weight": 0.0},
    "predictions-more": lambda base: {"prediction_weight": base.prediction_weight * 4},
    "teacher": lambda base: {"teacher": "alloy", "pixel_weight": 0.0},
    # How it is applied, and how it learns.
    "no-blur": lambda base: {"blur": 0},
    "rate-double": lambda base: {"learning_rate": base.learning_rate * 2},
    "crops-smaller": lambda base: {"crop_size": base.crop_size * 2 // 3},
    # The network.
    "random-start": lambda base: untrained(),
    "random-start-no-blur": lambda base: untrained(blur=0),
    "half-depth": lambda base: untrained(blocks=max(1, base.blocks // 2)),
    "wider": lambda base: untrained(filters=base.filters * 3 // 2),
    "patch-1": lambda base: untrained(patch=1, filters=base.filters // 2),
}


def base_settings(config: Path, init: str) -> AlloyTraining:
    """Reads the settings that each ablation changes one of."""
    values = yaml.safe_load(config.read_text())
    tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return AlloyTraining(**{**tuples, "data": photographs(), "init": init})


def ablate(name: str, base: AlloyTraining, count: int, work: Path, judges: Callable[[], list[Judge]]) -> dict[str, Any]:
    """Trains and measures one ablation on `count` images, or returns what `work` has of it."""
    changes = ABLATIONS[name](base)
    config = replace(base, **changes)
    stated = json.loads(json.dumps({**asdict(config), "images": count}))
    done = work / name / "judged.json"
    known = json.loads(done.read_text()) if done.exists() else {}
    if known.get("settings") != stated:
        trained = Purifier.from_pretrained(train(config, work / name), dtype="auto")
        seconds = (load_checkpoint(work / name / "checkpoint.pt") or {})["seconds"]
        rows = rows_of(trained, judges(), ITERATIONS)
        known = {"settings": stated, "changes": changes, "seconds": seconds, "rows": rows}
        write_text(done, json.dumps(known))
    return {key: known[key] for key in ("changes", "seconds", "rows")}


def print_table(others: dict[str, Any], runs: dict[str, dict[str, Any]]) -> None:
    """Prints the other purifiers, and each ablation at its best number of applications."""
    rows = [(name, "k=", row) for name, row in others.items()]
    for name, run in runs.items():
        k = max(run["rows"], key=lambda k: run["rows"][k]["mean"])
        rows.append((name, k, {**run["rows"][k], "seconds": run["seconds"]}))
    print(judged_table("ablation", rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"out of {', '.join(ABLATIONS)}; default: all")
    parser.add_argument("--config", type=Path, default=BASE, help="settings that each ablation changes one of")
    parser.add_argument("--init", default="", help="name or folder of weights to start from")
    parser.add_argument("--images", type=int, default=96, help="number of held-out images")
    parser.add_argument("--work", type=Path, default=Path("runs/alloy_ablation"))
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in ABLATIONS]
    if unknown:
        raise SystemExit(f"expected names out of {', '.join(ABLATIONS)}, got {', '.join(unknown)}")
    base = base_settings(args.config, args.init)
    judges = functools.cache(lambda: judges_of(base, args.images))
    names = tqdm(args.names or ABLATIONS, unit="run")
    runs = {name: ablate(name, base, args.images, args.work, judges) for name in names}
    others = {"no purifier": unpurified(judges())}
    others |= {name: row_of(Purifier.from_pretrained(name, dtype="auto"), judges()) for name in ("gs", "ncis")}
    settings = {key: value for key, value in asdict(base).items() if key != "data"}
    settings["init"] = "/".join(Path(base.init).parts[-2:])
    result = {"settings": settings, "images": args.images, "others": others, "runs": runs}
    name = "alloy_ablation_some" if args.names else "alloy_ablation"
    write_result(name, {**result, "environment": environment()})
    print_table(others, runs)


if __name__ == "__main__":
    main()
