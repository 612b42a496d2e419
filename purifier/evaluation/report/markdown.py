"""The tables of an evaluation in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from purifier.evaluation.report.view import (
    AnyRow,
    Headline,
    Line,
    attack_title,
    headline,
    measure_title,
    percent,
    robust,
    standard,
    threat_of,
    threat_title,
    undefended_note,
    within,
)
from purifier.evaluation.rows import CLEAN, Row
from purifier.evaluation.run import Evaluation

BLIND_WARNING = (
    "Blind figures are against an attacker who does not know the purifier. One who does (aware) can bypass it: the "
    "aware figures are those to go by."
)


def document(evaluation: Evaluation) -> str:
    """Returns the headline table, every measure with its interval, and what the self-checks raised."""
    rows = evaluation.rows
    parts = [
        f"# {evaluation.task.capitalize()} under attack: {measure_title(rows)}",
        f"{rows[0].images} images; in brackets 95 % intervals over the choice of images. {BLIND_WARNING}",
        _headline(headline(rows)),
        "## All measures",
        _all(rows),
        "## Self-checks",
        _findings(evaluation),
    ]
    if evaluation.skipped:
        parts += [
            "## Left out",
            "\n".join(f"- {s.attack} ({s.threat}) on {s.purifier}: {s.reason}" for s in evaluation.skipped),
        ]
    return "\n\n".join(parts) + "\n"


def summary(evaluation: Evaluation) -> str:
    """Returns the headline table as aligned text for a terminal, and a line for each finding."""
    table = headline(evaluation.rows)
    lines = [["attack", "purifier", *(column.title.lower() for column in table.columns)]]
    for group in table.groups:
        for line in group.lines:
            pairs = zip(line.entries, table.columns, strict=True)
            texts = [entry.text if entry else undefended_note(line, column) for entry, column in pairs]
            lines.append([group.title, line.purifier, *texts])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    found = [f"self-check {f.check}{f' ({name})' if name else ''}: {f.measured}" for name, f in evaluation.findings]
    return "\n".join([*text, "", f"{evaluation.rows[0].images} images. {BLIND_WARNING}", *found])


def _headline(table: Headline) -> str:
    head = ["Attack", "Purifier", *(f"{column.title} ({column.note})" for column in table.columns)]
    body = [[group.title, line.purifier, *_entries(line, table)] for group in table.groups for line in group.lines]
    return as_table(head, body)


def _entries(line: Line, table: Headline) -> list[str]:
    pairs = zip(line.entries, table.columns, strict=True)
    return [_bracketed(e.text, e.within) if e else undefended_note(line, column) for e, column in pairs]


def _all(rows: Sequence[AnyRow]) -> str:
    classified = [row for row in rows if isinstance(row, Row)]
    if len(classified) == len(rows):
        return as_table(_MEASURES, [_measures(row) for row in classified])
    head = ["Purifier", "Attack", "Threat", "n", "8 bit", "Dtype", "Standard", "Under attack", "ms an image"]
    body = [
        [
            row.purifier,
            CLEAN if row.attack == CLEAN else attack_title(row),
            "–" if row.attack == CLEAN else threat_title(threat_of(row)),
            str(row.images),
            "yes" if row.eight_bit else "no",
            row.dtype,
            _bracketed(standard(row).text, standard(row).within),
            "–" if row.attack == CLEAN else _bracketed(robust(row).text, robust(row).within),
            "" if row.milliseconds is None else f"{row.milliseconds:.2f}",
        ]
        for row in rows
        if not isinstance(row, Row)
    ]
    return as_table(head, body)


_MEASURES = [
    "Purifier",
    "Attack",
    "Threat",
    "n",
    "8 bit",
    "Dtype",
    "Standard accuracy",
    "Robust accuracy (under this threat)",
    "Attack success rate",
    "PSR",
    "ms an image",
]


def _measures(row: Row) -> list[str]:
    clean = row.attack == CLEAN
    return [
        row.purifier,
        CLEAN if clean else attack_title(row),
        "–" if clean else threat_title(threat_of(row)),
        str(row.images),
        "yes" if row.eight_bit else "no",
        row.dtype,
        _bracketed(percent(row.standard_accuracy), within(row.standard_interval)),
        "–" if clean else _bracketed(percent(row.robust_accuracy), within(row.robust_interval)),
        "–"
        if clean
        else f"{_bracketed(percent(row.attack_success_rate), within(row.attack_success_interval))} of {row.standard}",
        _bracketed(percent(row.purification_success_rate), within(row.purification_success_interval)),
        "" if row.milliseconds is None else f"{row.milliseconds:.2f}",
    ]


def _findings(evaluation: Evaluation) -> str:
    if not evaluation.findings:
        return "Nothing was raised." if evaluation.task == "classification" else "The self-checks are for classifiers."
    return "\n".join(
        f"- **{finding.check}**{f' ({name})' if name else ''}: {finding.measured}. Raised if {finding.raised_if}. "
        f"{finding.explanation}"
        for name, finding in evaluation.findings
    )


def _bracketed(text: str, interval: str) -> str:
    return f"{text} [{interval}]" if interval else text


def as_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
