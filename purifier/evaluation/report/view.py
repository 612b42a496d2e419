"""What a report shows, in the terms of a page: columns, groups of lines, entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from purifier.evaluation.plan import UNDEFENDED
from purifier.evaluation.rows import CLEAN, WORST_CASE, MeasureRow, Row
from purifier.evaluation.specs import show_eps

AnyRow = Row | MeasureRow
NOT_MEASURED = "not measured"
# Words for people; a blind figure is never called robust alone.
THREAT_TITLES = {
    "blind": "Blind",
    "transfer": "Transfer",
    "aware": "Aware",
    "bpda": "Aware, BPDA",
    WORST_CASE: "Aware, worst case",
}
THREAT_NOTES = {
    "blind": "attacker does not know the purifier",
    "transfer": "attacker knows neither model nor purifier",
    "aware": "attacker knows the purifier, exact gradients",
    "bpda": "attacker knows the purifier, backward through a substitute",
    WORST_CASE: "right only where every aware attack of this radius fails",
}
_ORDER = tuple(THREAT_TITLES)
_NORMS = {"Linf": "L∞", "L2": "L2"}
_MEASURES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_iou": "mIoU",
    "map": "mAP",
    "map_50": "mAP@0.5",
}


@dataclass(frozen=True)
class Entry:
    """One figure.

    Attributes:
        text: The figure.
        within: Its 95 % interval, or "".
        share: The figure in [0, 1].
    """

    text: str
    within: str
    share: float


@dataclass(frozen=True)
class Column:
    """A column of the headline table: a threat model, or accuracy without attack."""

    key: str
    title: str
    note: str
    kind: str


@dataclass(frozen=True)
class Line:
    """A purifier's figures under one attack; None where one was not measured."""

    purifier: str
    entries: tuple[Entry | None, ...]


@dataclass(frozen=True)
class Group:
    """An attack, and the lines of the purifiers under it."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Headline:
    """The table that a reader sees first."""

    columns: tuple[Column, ...]
    groups: tuple[Group, ...]


def plain(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """Returns the rows of the defence as it was given: not rounded to 8 bits, in no other dtype.

    Only those have the time that the purifier takes.
    """
    return [row for row in rows if row.milliseconds is not None]


def headline(rows: Sequence[AnyRow]) -> Headline:
    """Lays out the plain rows: a group an attack, a line a purifier, blind and aware figures side by side."""
    shown = plain(rows)
    purifiers = list(dict.fromkeys(row.purifier for row in shown))
    columns = _columns(shown)
    groups = []
    for attack in attacks_of(shown):
        lines = []
        for name in purifiers:
            mine = [row for row in shown if row.purifier == name]
            entries = [_find(mine, column, attack) for column in columns]
            lines.append(Line(name, tuple(entries)))
        groups.append(Group(attack_title(attack), tuple(lines)))
    return Headline(tuple(columns), tuple(groups))


def attacks_of(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """Returns a row for each attack there is, whatever the threat model and purifier."""
    found: dict[str, AnyRow] = {}
    for row in rows:
        if row.attack != CLEAN and row.threat != WORST_CASE:
            found.setdefault(row.settings["attack_key"], row)
    return list(found.values())


def attack_title(row: AnyRow) -> str:
    """Says what the attack of a row is, such as "PGD, L∞ 8/255, 10 steps"."""
    parts = [row.attack.split("-EOT")[0]]
    if row.eps is not None:
        parts.append(f"{_NORMS.get(row.norm or '', row.norm)} {show_eps(row.eps)}")
    elif row.norm is not None:
        parts.append(f"smallest {_NORMS.get(row.norm, row.norm)} change")
    if row.steps is not None:
        unit = "queries" if row.settings.get("queries") else "step" if row.steps == 1 else "steps"
        parts.append(f"{row.steps} {unit}")
    return ", ".join(parts)


def threat_of(row: AnyRow) -> str:
    """Returns what a row's column is: its threat model, with the number of EOT samples where there are several."""
    samples = row.settings.get("threat", {}).get("samples", 1)
    return f"{row.threat} {samples}" if samples > 1 else row.threat


def threat_title(key: str) -> str:
    """Says what a column of `threat_of` is."""
    threat, _, samples = key.partition(" ")
    return THREAT_TITLES[threat] + (f", EOT {samples}" if samples else "")


def threat_kind(key: str) -> str:
    """Returns "blind" for attackers who do not know the purifier, else "aware"."""
    return "blind" if key.split()[0] in ("blind", "transfer") else "aware"


def robust(row: AnyRow) -> Entry:
    """Returns a row's figure under attack."""
    if isinstance(row, Row):
        return _entry([row.robust_accuracy], [row.robust_interval])
    return _entry(list(row.robust.values()), [row.robust_intervals.get(name) for name in row.robust])


def standard(row: AnyRow) -> Entry:
    """Returns a row's figure without an attack, purifier on."""
    if isinstance(row, Row):
        return _entry([row.standard_accuracy], [row.standard_interval])
    return _entry(list(row.standard.values()), [row.standard_intervals.get(name) for name in row.standard])


def measure_title(rows: Sequence[AnyRow]) -> str:
    """Says what the figures are: "accuracy", or "pixel accuracy / mIoU"."""
    first = rows[0]
    if isinstance(first, Row):
        return "accuracy"
    return " / ".join(_MEASURES[name] for name in first.standard)


def percent(share: float) -> str:
    """Writes a share, such as "62.5 %".

    Example:
        >>> percent(0.625)
        '62.5 %'
    """
    return f"{100 * share:.1f} %"


def within(interval: tuple[float, float] | None) -> str:
    """Writes a 95 % interval in per cent, such as "57.7 – 67.1"."""
    return "" if interval is None else f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}"


def _entry(shares: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> Entry:
    texts = " / ".join(percent(share) for share in shares)
    return Entry(texts, " / ".join(filter(None, map(within, intervals))), shares[0])


def _columns(rows: Sequence[AnyRow]) -> list[Column]:
    # Both are always there, so that what is missing is seen to be missing.
    keys = dict.fromkeys(["blind", "aware"])
    keys |= dict.fromkeys(threat_of(row) for row in rows if row.attack != CLEAN)
    ordered = sorted(keys, key=lambda key: (_ORDER.index(key.split()[0]), len(key), key))
    if any(key.startswith(("aware ", "bpda")) for key in ordered) and not any(
        row.threat == "aware" and threat_of(row) == "aware" for row in rows
    ):
        ordered.remove("aware")
    return [
        Column("standard", "Standard", "no attack", "standard"),
        *(Column(key, threat_title(key), THREAT_NOTES[key.split()[0]], threat_kind(key)) for key in ordered),
    ]


def _find(rows: Sequence[AnyRow], column: Column, attack: AnyRow) -> Entry | None:
    if column.kind == "standard":
        return standard(rows[0])
    for row in rows:
        if row.attack == CLEAN or threat_of(row) != column.key:
            continue
        if row.threat == WORST_CASE:
            if (row.norm, row.eps) == (attack.norm, attack.eps):
                return robust(row)
        elif row.settings["attack_key"] == attack.settings["attack_key"]:
            return robust(row)
    return None


def undefended_note(line: Line, column: Column) -> str:
    """What to say where a figure is missing."""
    if line.purifier == UNDEFENDED and column.kind == "aware":
        return "same as blind"
    return NOT_MEASURED
