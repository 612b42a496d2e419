"""What matters in the training of alloy: short trainings that each change one thing, judged on held-out photographs.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.alloy_ablation [NAME ...] [--init FOLDER] [--steps 300]

Without names every ablation is run. All but those of another network start from FOLDER,
weights that have seen noise only (`train_alloy alloy-warm`), and none but "teacher" has a teacher, as a teacher has
seen every extractor. By what each is judged, alloy_figures.py says: also by an extractor that it leaves out, which the
rest must generalise to. A run that is done is not done again; one that was killed goes on. Results:
benchmarks/results/alloy_ablation.json; what a file of the same settings there knows of other ablations stays in it.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.kit import RESULTS, environment, write_result
from benchmarks.recipes.alloy_figures import Judge, Row, judge, judged, judges_of, table, unpurified
from benchmarks.recipes.train_alloy import PRESETS, settings
from purifier import Purifier
from purifier._files import write_text
from purifier.training.alloy import AlloyTraining, train
from purifier.training.alloy.config import read_extractors, read_sources
from purifier.training.checkpoints import load_checkpoint

# Presets that train a whole network, with others, as these are the judges.
_JUDGED = [name for name, values in PRESETS.items() if values.get("extractors") != () and not values.get("only_gate")]

# The extractors that are one network.
_VGG = ("vgg", "centre")

# Applications of the network that each training is judged at.
ITERATIONS = (1, 2)

Changes = dict[str, Any]


def drop_sources(base: AlloyTraining, *kinds: str, extractor: str = "") -> tuple[str, ...]:
    """The sources without those of some kinds, all kinds where none is named, on an extractor, any where "" is."""
    lines = zip(base.sources, read_sources(base.sources), strict=True)
    return tuple(
        text
        for text, line in lines
        if not ((not kinds or line.kind in kinds) and (not extractor or line.extractor == extractor))
    )


def keep_extractors(base: AlloyTraining, *names: str) -> Changes:
    """Some of the extractors, and no attack on the others."""
    lines = zip(base.extractors, read_extractors(base.extractors), strict=True)
    kept = [text for text, line in lines if line.name in names]
    sources = zip(base.sources, read_sources(base.sources), strict=True)
    return {
        "extractors": tuple(kept),
        "sources": tuple(text for text, line in sources if line.extractor in ("", "*", *names)),
    }


def leave_out(base: AlloyTraining, *names: str) -> Changes:
    others = [line.name for line in read_extractors(base.extractors) if line.name not in names]
    return keep_extractors(base, *others)


def replace_extractor(base: AlloyTraining, name: str, line: str) -> Changes:
    known = zip(base.extractors, read_extractors(base.extractors), strict=True)
    return {"extractors": tuple(line if one.name == name else text for text, one in known)}


def weightless(base: AlloyTraining) -> Changes:
    """Extractors that are attacked, but not asked about the result."""
    return {"extractors": tuple(f"{text.rpartition(':')[0]}:0" for text in base.extractors), "prediction_weight": 0.0}


def noise(base: AlloyTraining, share: float) -> Changes:
    rest = drop_sources(base, "gaussian", "sign")
    total = sum(line.share for line in read_sources(rest))
    each = total * share / (1 - share) / 2
    return {"sources": (*rest, f"gaussian:{each:.4g}", f"sign:{each:.4g}")}


def network(base: AlloyTraining, **changes: Any) -> Changes:
    """Another network, which no weights of the base's can be given to."""
    return {"init": "", **changes}


ABLATIONS: dict[str, Callable[[AlloyTraining], Changes]] = {
    "base": lambda base: {},
    # How much chance does.
    "seed-1": lambda base: {"seed": base.seed + 1},
    "seed-2": lambda base: {"seed": base.seed + 2},
    # Attack sources.
    "no-ssp-vgg": lambda base: {"sources": drop_sources(base, "ssp", extractor="vgg")},
    "no-ssp-mobilenet": lambda base: {"sources": drop_sources(base, "ssp", extractor="mobilenet")},
    "no-ssp": lambda base: {"sources": drop_sources(base, "ssp")},
    "no-demo-attacks": lambda base: {"sources": drop_sources(base, extractor="demo")},
    "no-kl": lambda base: {"sources": drop_sources(base, "kl")},
    "no-noise": lambda base: {"sources": drop_sources(base, "gaussian", "sign")},
    "noise-0.4": lambda base: noise(base, 0.4),
    "noise-only": lambda base: {"sources": ("gaussian:0.45", "sign:0.45", "none:0.1")},
    "no-clean": lambda base: {"sources": drop_sources(base, "none")},
    # Strength.
    "eps-to-8": lambda base: {"eps": 8 / 255},
    "eps-from-12": lambda base: {"eps_low": 12 / 255},
    "half-steps": lambda base: {"attack_alpha": base.attack_alpha / 2},
    # Extractors: each left out of attacks and losses, and each alone.
    "without-vgg": lambda base: leave_out(base, *_VGG),
    "without-vgg-loss": lambda base: leave_out(base, "centre"),
    "without-mobilenet": lambda base: leave_out(base, "mobilenet"),
    "without-demo": lambda base: leave_out(base, "demo"),
    "only-vgg": lambda base: keep_extractors(base, *_VGG),
    "only-mobilenet": lambda base: keep_extractors(base, "mobilenet"),
    "only-demo": lambda base: keep_extractors(base, "demo"),
    # How deep the features are.
    "last-layer": lambda base: replace_extractor(
        base, "mobilenet", "mobilenet=benchmarks.kit:mobilenet@net.features:1.0"
    ),
    # Pixels against features, and against predictions.
    "pixels-only": weightless,
    "features-only": lambda base: {"pixel_weight": 0.0},
    "pixels-less": lambda base: {"pixel_weight": base.pixel_weight / 4},
    "pixels-more": lambda base: {"pixel_weight": base.pixel_weight * 4},
    "no-beliefs": lambda base: {"prediction_weight": 0.0},
    "beliefs-more": lambda base: {"prediction_weight": base.prediction_weight * 4},
    "teacher": lambda base: {"teacher": "alloy", "pixel_weight": 0.0},
    "no-clamp": lambda base: {"clamp": False},
    "no-blur": lambda base: {"blur": 0},
    "blur-3": lambda base: {"blur": 3},
    # How it learns.
    "rate-half": lambda base: {"learning_rate": base.learning_rate / 2},
    "rate-double": lambda base: {"learning_rate": base.learning_rate * 2},
    "no-gradient-limit": lambda base: {"gradient_norm": 0.0},
    "batch-half": lambda base: {"batch_size": max(1, base.batch_size // 2), "steps": base.steps * 2},
    # The network, from random weights; those of one scale at the arithmetic of alloy-s.
    "random-start": lambda base: network(base),
    "gate": lambda base: network(base, gate=32),
    "half-depth": lambda base: network(base, blocks=max(1, base.blocks // 2)),
    "narrower": lambda base: network(base, filters=base.filters * 3 // 4),
    "wider": lambda base: network(base, filters=base.filters * 3 // 2),
    "fewer-scales": lambda base: network(base, levels=base.levels - 1),
    "more-scales": lambda base: network(base, levels=base.levels + 1),
    "patch-1": lambda base: network(base, patch=1, filters=base.filters // 2),
    "patch-1-more-scales": lambda base: network(base, patch=1, filters=base.filters // 2, levels=base.levels + 1),
    "patch-1-no-blur": lambda base: network(base, patch=1, filters=base.filters // 2, blur=0),
    "random-start-no-blur": lambda base: network(base, blur=0),
    "one-scale-patch-2": lambda base: network(base, patch=2, filters=32, blocks=16, levels=1),
    "one-scale-patch-3": lambda base: network(base, patch=3, filters=48, blocks=16, levels=1),
    "one-scale-patch-4": lambda base: network(base, patch=4, filters=64, blocks=16, levels=1),
    # Crops.
    "crops-smaller": lambda base: {"crop_size": base.crop_size * 2 // 3},
    "crops-larger": lambda base: {"crop_size": base.crop_size * 4 // 3},
    "shrink-0.6": lambda base: {"shrink": 0.6},
}


def base_settings(preset: str, steps: int, changes: list[str], init: str) -> AlloyTraining:
    """What the ablations change one thing of."""
    # The training's own validation would only cost time here.
    quiet = [f"steps={steps}", f"validate_every={steps}", "validation_images=1"]
    return settings(preset, [*quiet, "teacher=", "gate=0", "pixel_weight=4", *changes], init)


def ablate(name: str, base: AlloyTraining, count: int, work: Path, judges: Callable[[], list[Judge]]) -> dict[str, Any]:
    """Trains and judges one ablation, by `count` images, or returns what is known of it."""
    changes = ABLATIONS[name](base)
    config = replace(base, **changes)
    stated = json.loads(json.dumps({**asdict(config), "judged_on": count}))
    done = work / name / "judged.json"
    known = json.loads(done.read_text()) if done.exists() else {}
    if not known or _with_defaults(known["settings"]) != stated:
        folder = train(config, work / name)
        seconds = (load_checkpoint(work / name / "checkpoint.pt") or {})["seconds"]
        known = {
            "settings": stated,
            "changes": changes,
            "seconds": seconds,
            "rows": judged(folder, judges(), ITERATIONS),
        }
        write_text(done, json.dumps(known))
    return {key: known[key] for key in ("changes", "seconds", "rows")}


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of an earlier run, and the defaults of those that there were none of then."""
    return {**json.loads(json.dumps(asdict(AlloyTraining()))), **settings}


def with_earlier(runs: dict[str, Any], stated: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """The runs, and those of an earlier result of the same settings and images, in the order of ABLATIONS.

    Settings that the earlier result does not know had their defaults.
    """
    known = _with_defaults(earlier.get("settings", {}))
    known = {key: value for key, value in known.items() if key in stated["settings"]}
    if (known, earlier.get("images")) != (stated["settings"], stated["images"]):
        return runs
    found = earlier["runs"] | runs
    return {name: found[name] for name in ABLATIONS if name in found}


def best(rows: dict[str, Row]) -> str:
    """The "k=..." of the best mean."""
    return max(rows, key=lambda k: rows[k]["mean"])


def print_table(others: dict[str, Row], runs: dict[str, dict[str, Any]]) -> None:
    """Prints a row of each other purifier, at its own k, and one of each ablation, at its best."""
    rows = [(name, "k=", row) for name, row in others.items()]
    rows += [
        (name, k := best(run["rows"]), {**run["rows"][k], "seconds": run["seconds"]}) for name, run in runs.items()
    ]
    print(table("ablation", rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"out of {', '.join(ABLATIONS)}; all where none")
    parser.add_argument("--preset", choices=_JUDGED, default="alloy-s-cpu")
    parser.add_argument("--init", default="", help="name or folder of weights to start from")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--images", type=int, default=96, help="held-out images")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of all runs")
    parser.add_argument("--work", type=Path, default=Path("runs/alloy_ablation"))
    parser.add_argument("--name", default="alloy_ablation", help="name of the result file")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in ABLATIONS]
    if unknown:
        raise SystemExit(f"expected names out of {', '.join(ABLATIONS)}, got {', '.join(unknown)}")
    base = base_settings(args.preset, args.steps, args.set, args.init)

    @functools.cache
    def judges() -> list[Judge]:
        return judges_of(base, args.images)

    runs = {
        name: ablate(name, base, args.images, args.work, judges) for name in tqdm(args.names or ABLATIONS, unit="run")
    }
    others = {"no purifier": unpurified(judges())}
    others |= {name: judge(Purifier.from_pretrained(name, dtype="auto"), judges()) for name in ("gs", "ncis")}
    settings_of_all = {key: value for key, value in asdict(base).items() if key != "data"}
    settings_of_all["init"] = "/".join(Path(base.init).parts[-2:])
    # As a file holds it, where tuples are lists.
    stated = json.loads(json.dumps({"settings": settings_of_all, "images": args.images}))
    file = RESULTS / f"{args.name}.json"
    runs = with_earlier(runs, stated, json.loads(file.read_text()) if file.exists() else {})
    write_result(args.name, {**stated, "others": others, "runs": runs, "environment": environment()})
    print_table(others, runs)


if __name__ == "__main__":
    main()
