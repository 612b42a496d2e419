"""The tables of an evaluation in Markdown."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from purifier.evaluation.report.section import sections
from purifier.evaluation.report.view import (
    Entry,
    Headline,
    Line,
    full,
    headline,
    measure_title,
    undefended_note,
    warning,
)
from purifier.evaluation.rows import TableRow
from purifier.evaluation.run import Evaluation

_HEADS = {
    "purifier": "Purifier",
    "attack": "Attack",
    "threat": "Threat",
    "images": "n",
    "form": "Form",
    "standard": "Standard",
    "robust": "Under attack",
    "success": "Attack success",
    "psr": "PSR",
    "milliseconds": "ms an image",
}


FEW_CHECKS = "The self-checks are for classifiers, except for those of clean figures and of a detector's labels."


def document(evaluation: Evaluation) -> str:
    """Returns the headline table, every measure with its interval, and the findings of the self-checks."""
    rows = evaluation.rows
    parts = [
        f"# {evaluation.task.capitalize()} under attack: {measure_title(rows)}",
        f"{rows[0].images} images. Figures are {measure_title(rows)}. Brackets hold 95 % intervals over the choice of "
        f"images. {warning(rows)}",
        _headline(headline(rows)),
        *_sections(evaluation),
        "## All measures",
        _all(rows),
        "## Self-checks",
        _findings(evaluation),
    ]
    if evaluation.skipped:
        parts += [
            "## Not measured",
            "\n".join(_plain(f"- {s.attack} ({s.threat}) on {s.purifier}: {s.reason}") for s in evaluation.skipped),
        ]
    return "\n\n".join(parts) + "\n"


def summary(evaluation: Evaluation) -> str:
    """Returns the headline table as aligned text for a terminal, and a line for each finding."""
    table = headline(evaluation.rows)
    lines = [["attack", "purifier", *(column.title.lower() for column in table.columns)]]
    lines += _body(table, lambda entry: entry.text)
    text = aligned(lines)
    found = [f"self-check {f.check}{f' ({name})' if name else ''}: {f.measured}" for name, f in evaluation.findings]
    rows = evaluation.rows
    for section in sections(evaluation.certified, evaluation.detected):
        text += ["", section.title.lower(), *aligned([section.heads, *section.lines])]
    note = f"{rows[0].images} images. Figures are {measure_title(rows)}. {warning(rows)}"
    return "\n".join([*text, "", note, *found])


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table with columns of one width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _sections(evaluation: Evaluation) -> list[str]:
    return [
        text
        for section in sections(evaluation.certified, evaluation.detected)
        for text in (f"## {section.title}", section.note, as_table(section.heads, section.lines))
    ]


def _headline(table: Headline) -> str:
    head = ["Attack", "Purifier", *(f"{column.title} ({column.note})" for column in table.columns)]
    return as_table(head, _body(table, _cell))


def _body(table: Headline, shown: Callable[[Entry], str]) -> list[list[str]]:
    lines = [(group.title, line) for group in table.groups for line in group.lines]
    return [[title, line.purifier, *_entries(line, table, shown)] for title, line in lines]


def _entries(line: Line, table: Headline, shown: Callable[[Entry], str]) -> list[str]:
    pairs = zip(line.entries, table.columns, strict=True)
    return [shown(entry) if entry else undefended_note(line, column) for entry, column in pairs]


def _all(rows: Sequence[TableRow]) -> str:
    lines = [{_HEADS[name]: _cell(value) for name, value in full(row).items()} for row in rows]
    return as_table(list(lines[0]), [list(line.values()) for line in lines])


def _cell(value: Entry | str | None) -> str:
    if isinstance(value, Entry):
        return f"{value.text} [{value.within}]" if value.within else value.text
    return value or "–"


def _findings(evaluation: Evaluation) -> str:
    if not evaluation.findings:
        return "No check was raised." + ("" if evaluation.task == "classification" else f" {FEW_CHECKS}")
    return "\n".join(
        _plain(
            f"- **{finding.check}**{f' ({name})' if name else ''}: {finding.measured}. Raised if {finding.raised_if}. "
            f"{finding.explanation}"
        )
        for name, finding in evaluation.findings
    )


def as_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; bars and HTML inside cells are escaped."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Returns a line in which nothing is HTML, because names of purifiers can be anything."""
    return html.escape(" ".join(text.split()), quote=False)
