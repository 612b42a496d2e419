"""The results of a service's evaluation as a table, and as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from purifier._files import write_text
from purifier._identity import commit, versions
from purifier._opening import as_path
from purifier.evaluation.metrics.ranked import RankedScores
from purifier.evaluation.ranked.run import RankedEvaluation
from purifier.evaluation.report.markdown import as_table


def markdown(evaluation: RankedEvaluation) -> str:
    """Returns the table, with the number of pairs and of images above it, and the choices of iterations below."""
    k = evaluation.rows[0].clean.k
    columns = ("prediction", "top 1", f"top {k}")
    heads = ["purifier", *(f"clean: {one}" for one in columns), *(f"attacked: {one}" for one in columns), "mean"]
    lines = []
    for row in evaluation.rows:
        name = row.purifier if row.iterations is None else f"{row.purifier} i={row.iterations}"
        lines.append([name, *_cells(row.clean), *_cells(row.attacked), f"{100 * row.mean:.1f}"])
    wanted, left = evaluation.settings["pairs"], evaluation.left
    asked = f" ({wanted} were asked for)" if evaluation.pairs < wanted else ""
    others = f" Images without a pair: {', '.join(f'{count} {why}' for why, count in left.items())}." if left else ""
    text = (
        f"Pairs of clean and attacked images without a label in common: {evaluation.pairs}{asked}, of "
        f"{evaluation.tried} images tried.{others} The attacker knows neither service nor purifier (transfer). Shares "
        "in %, with 95 % intervals."
    )
    chosen = [
        f"{name}: " + ", ".join(f"i={number} {100 * mean:.1f}" for number, mean in means.items())
        for name, means in evaluation.choices.items()
    ]
    after = f"Mean prediction accuracy on other pairs ({evaluation.validation_pairs}), {'; '.join(chosen)}."
    return "\n\n".join([text, as_table(heads, lines), *([after] if chosen else [])]) + "\n"


def _cells(scores: RankedScores) -> list[str]:
    found = [
        (scores.prediction_accuracy, scores.prediction_interval),
        (scores.top1_accuracy, scores.top1_interval),
        (scores.topk_accuracy, scores.topk_interval),
    ]
    return [f"{100 * share:.1f} ({100 * low:.0f}-{100 * high:.0f})" for share, (low, high) in found]


def as_json(evaluation: RankedEvaluation, command: str | None = None) -> dict[str, Any]:
    """Returns all figures and settings, ready for JSON."""
    return {
        "task": "ranked",
        "command": command,
        "versions": versions(),
        "commit": commit(),
        "settings": evaluation.settings,
        "pairs": evaluation.pairs,
        "tried": evaluation.tried,
        "left": evaluation.left,
        "rows": [row.to_dict() for row in evaluation.rows],
        "validation_pairs": evaluation.validation_pairs,
        "choices": evaluation.choices,
    }


def write_ranked(evaluation: RankedEvaluation, out: str | Path, *, command: str | None = None) -> dict[str, Path]:
    """Writes results.json and table.md, each atomically.

    Args:
        evaluation: The results.
        out: Folder to write to; it is created if needed.
        command: The command line of the evaluation, which results.json states.

    Returns:
        The paths, by "json" and "markdown".
    """
    folder = as_path(out, wanted="a folder for the results")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.json", json.dumps(as_json(evaluation, command), indent=1) + "\n")
    write_text(folder / "table.md", markdown(evaluation))
    return {"json": folder / "results.json", "markdown": folder / "table.md"}
