"""The three files of a report: results.json for programs, table.md for documents, report.html for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from purifier._errors import InputError
from purifier._files import write_text
from purifier._identity import commit, versions
from purifier._opening import as_path
from purifier.evaluation.report.html import page
from purifier.evaluation.report.markdown import document
from purifier.evaluation.run import Evaluation


def write_report(evaluation: Evaluation, out: str | Path, *, command: str | None = None) -> dict[str, Path]:
    """Writes results.json, table.md and report.html, each atomically.

    Args:
        evaluation: The results.
        out: Folder to write to; it is created if needed.
        command: The command line of the evaluation, which the report states.

    Returns:
        The paths, by "json", "markdown" and "html".

    Raises:
        InputError: If the results are not an `Evaluation`, or a package of the extra "eval" is missing.
    """
    if not isinstance(evaluation, Evaluation):
        raise InputError(f"expected the result of evaluate, got {type(evaluation).__name__}")
    folder = as_path(out, wanted="a folder for the report")
    folder.mkdir(parents=True, exist_ok=True)
    results = as_json(evaluation, command)
    texts = {
        "json": ("results.json", json.dumps(results, indent=1) + "\n"),
        "markdown": ("table.md", document(evaluation)),
        "html": ("report.html", page(evaluation, command=command, versions=versions(), commit=commit())),
    }
    for name, text in texts.values():
        write_text(folder / name, text)
    return {kind: folder / name for kind, (name, _) in texts.items()}


def as_json(evaluation: Evaluation, command: str | None = None) -> dict[str, Any]:
    """Returns all figures and settings of an evaluation, ready for JSON."""
    return {
        "task": evaluation.task,
        "command": command,
        "versions": versions(),
        "commit": commit(),
        "settings": evaluation.settings,
        "rows": [row.to_dict() for row in evaluation.rows],
        "certified": [row.to_dict() for row in evaluation.certified],
        "detected": [row.to_dict() for row in evaluation.detected],
        "findings": [{"purifier": name, **vars(finding)} for name, finding in evaluation.findings],
        "skipped": [vars(skipped) for skipped in evaluation.skipped],
    }
