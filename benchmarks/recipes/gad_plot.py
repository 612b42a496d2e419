"""Draws trainings of GAD: the model's accuracy on samples kept out of the training, by step.

python -m benchmarks.recipes.gad_plot RESULT.json [RESULT.json ...] docs/gad_training.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.figures import FAINT, INK, blank, tidy, write

_LINES = {"clean": ("", "#1d4ed8"), "attacked": (", purifier-blind", "#c2410c")}
_TITLES = {"gad_camvid": "LR-ASPP, CamVid: pixel accuracy", "gad_yolox": "YOLOX-Nano, photographs: F1 of boxes"}


def draw(trainings: dict[str, dict[str, Any]], path: Path) -> None:
    """Writes a PNG with a panel per training, one below the other: solid with the purifier, dashed without it."""
    figure = blank(5, 3.4 * len(trainings), layout="constrained")
    panels = figure.subplots(len(trainings), 1, squeeze=False)[:, 0]
    for panel, (name, training) in zip(panels, trainings.items(), strict=True):
        _curves(panel, training["history"])
        panel.set_title(_TITLES.get(name, name), fontsize=10, color=INK, loc="left", weight="bold")
        stages = training["settings"] if isinstance(training["settings"], list) else [training["settings"]]
        panel.set_xlabel(f"steps of {stages[0]['batch_size']} samples", color=FAINT, fontsize=8.5)
    panels[0].set_ylabel("%", color=FAINT, fontsize=8.5, rotation=0)
    panels[0].legend(frameon=False, fontsize=8.5, labelcolor=INK)
    write(figure, path)


def _curves(panel: Any, history: list[dict[str, float]]) -> None:
    steps = [entry["step"] for entry in history]
    for key, (knows, colour) in _LINES.items():
        panel.plot(steps, [100 * entry[key] for entry in history], color=colour, linewidth=1.8, label=f"{key}{knows}")
        bare = 100 * history[-1][f"{key}_bare"]
        panel.axhline(bare, color=colour, linewidth=1, linestyle=(0, (3, 2)), label=f"{key}, without purifier")
    panel.set_ylim(0, 100)
    panel.set_xlim(0, steps[-1])
    tidy(panel, "y")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    draw({path.stem: json.loads(path.read_text())["training"] for path in args.results}, args.picture)


if __name__ == "__main__":
    main()
