"""The contents of a report: columns, groups of lines, entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from purifier.evaluation.plan import UNDEFENDED
from purifier.evaluation.rows import CLEAN, WORST_CASE, Measures, Row, TableRow
from purifier.evaluation.specs import show_eps

NOT_MEASURED = "not measured"
NO_ATTACK = "no attack"
BLIND_WARNING = (
    "Blind figures are for an attacker who does not know the purifier. An attacker who knows it (aware) can bypass it: "
    "rely on the aware figures."
)
NO_ATTACK_WARNING = "No attack was measured: these figures say nothing about attacks. Give --attack to measure one."
# A blind figure is never called robust without its threat model.
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
    "bpda": "attacker knows the purifier, substitute gradients",
    WORST_CASE: "correct only if every aware attack of this radius fails",
}
# Options of threat models that make them stronger: their usual value, and what a title says of another one.
_STRONGER = {
    "samples": (1, "EOT {}"),
    "submissions": (1, "worst of {}"),
    "gate_weight": (0, "hiding ({})"),
}
_ORDER = tuple(THREAT_TITLES)
_NORMS = {"Linf": "L∞", "L2": "L2"}
_MEASURES = {"pixel_accuracy": "pixel accuracy", "mean_iou": "mIoU", "map": "mAP", "map_50": "mAP@0.5"}


@dataclass(frozen=True)
class Entry:
    """One figure.

    Attributes:
        text: The figure as text.
        within: Its 95 % interval as text, or "".
        share: The figure in [0, 1].
    """

    text: str
    within: str
    share: float


@dataclass(frozen=True)
class Column:
    """A column of the headline table: a threat model, or the figures without an attack."""

    key: str
    title: str
    note: str
    kind: str


@dataclass(frozen=True)
class Line:
    """A purifier's figures under one attack; None if a figure was not measured."""

    purifier: str
    entries: tuple[Entry | None, ...]


@dataclass(frozen=True)
class Group:
    """An attack and the lines of the purifiers under it."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Headline:
    """The first table of a report."""

    columns: tuple[Column, ...]
    groups: tuple[Group, ...]


def plain(rows: Sequence[TableRow]) -> list[TableRow]:
    """Returns the rows of the plain variant, without 8-bit rounding or another dtype; only these state a time."""
    return [row for row in rows if row.milliseconds is not None]


def headline(rows: Sequence[TableRow]) -> Headline:
    """Arranges the plain rows: a group for each attack, a line for each purifier, blind beside aware figures.

    Without an attack, one group holds the figures on clean images.
    """
    shown = plain(rows)
    purifiers = list(dict.fromkeys(row.purifier for row in shown))
    columns, groups = _columns(shown), []
    for attack in attacks_of(shown):
        own = {name: [row for row in shown if row.purifier == name] for name in purifiers}
        lines = [Line(name, tuple(_find(rows, column, attack) for column in columns)) for name, rows in own.items()]
        groups.append(Group(attack_title(attack), tuple(lines)))
    if not groups:
        columns = columns[:1]
        rows_of = {name: next(row for row in shown if row.purifier == name) for name in purifiers}
        groups = [Group(NO_ATTACK, tuple(Line(name, (standard(row),)) for name, row in rows_of.items()))]
    return Headline(tuple(columns), tuple(groups))


def attacks_of(rows: Sequence[TableRow]) -> list[TableRow]:
    """Returns one row for each attack, whatever the threat model and purifier."""
    found: dict[str, TableRow] = {}
    for row in rows:
        if row.attack != CLEAN and row.threat != WORST_CASE:
            found.setdefault(row.settings["attack_key"], row)
    return list(found.values())


def attack_title(row: TableRow) -> str:
    """Describes the attack of a row, such as "PGD, L∞ 8/255, 10 steps"."""
    parts = [row.attack.split("-EOT")[0]]
    if row.eps is not None:
        parts.append(f"{_NORMS.get(row.norm or '', row.norm)} {show_eps(row.eps)}")
    elif row.norm is not None:
        parts.append(f"smallest {_NORMS.get(row.norm, row.norm)} change")
    if row.steps is not None:
        unit = "queries" if row.settings.get("queries") else "step" if row.steps == 1 else "steps"
        parts.append(f"{row.steps} {unit}")
    if row.restarts > 1:
        parts[-1] += f" x {row.restarts} restarts"
    return ", ".join(parts)


def threat_of(row: TableRow) -> str:
    """Returns the key of a row's column: its threat model, and the options that make it stronger, such as samples=5."""
    options = row.settings.get("threat", {})
    changed = [
        f"{name}={options[name]:g}" for name, (usual, _) in _STRONGER.items() if options.get(name, usual) != usual
    ]
    return " ".join([row.threat, *changed])


def threat_title(key: str) -> str:
    """Returns the title of a column of `threat_of`."""
    threat, *changed = key.split()
    options = [_STRONGER[name][1].format(value) for name, value in (option.split("=") for option in changed)]
    return ", ".join([THREAT_TITLES[threat], *options])


def threat_kind(key: str) -> str:
    """Returns "blind" if the attacker does not know the purifier, else "aware"."""
    return "blind" if key.split()[0] in ("blind", "transfer") else "aware"


def robust(row: TableRow) -> Entry:
    """Returns a row's figures under attack."""
    return _entry(row.attacked_measures)


def standard(row: TableRow) -> Entry:
    """Returns a row's figures without an attack, with the purifier."""
    return _entry(row.clean_measures)


def measure_title(rows: Sequence[TableRow]) -> str:
    """Returns the names of the measures: "accuracy", or "pixel accuracy / mIoU"."""
    return " / ".join(_MEASURES.get(name, name) for name in rows[0].clean_measures)


def warning(rows: Sequence[TableRow]) -> str:
    """Returns what a reader must know about the figures."""
    return BLIND_WARNING if any(row.attack != CLEAN for row in rows) else NO_ATTACK_WARNING


def capitalised(title: str) -> str:
    """Returns a title with a capital at its start, unless it starts with a name such as mAP or mIoU.

    Example:
        >>> capitalised("pixel accuracy"), capitalised("mAP / mAP@0.5")
        ('Pixel accuracy', 'mAP / mAP@0.5')
    """
    return title if title[1:2].isupper() else title[:1].upper() + title[1:]


def full(row: TableRow) -> dict[str, Any]:
    """Returns every measure of a row, as texts and entries."""
    clean = row.attack == CLEAN
    found = {
        "purifier": row.purifier,
        "attack": CLEAN if clean else row.attack if row.threat == WORST_CASE else attack_title(row),
        "threat": "–" if clean else threat_title(threat_of(row)),
        "images": str(row.images),
        "form": f"{row.dtype}{', 8 bit' if row.eight_bit else ''}",
        "standard": standard(row),
        "robust": None if clean else robust(row),
    }
    if isinstance(row, Row):
        success, psr = row.attack_success_rate, row.purification_success_rate
        found["success"] = None if clean else _entry({"": (success, row.attack_success_interval)})
        found["psr"] = _entry({"": (psr, row.purification_success_interval)})
    return found | {"milliseconds": "–" if row.milliseconds is None else f"{row.milliseconds:.2f}"}


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


def _entry(measures: Measures) -> Entry:
    shares, intervals = zip(*measures.values(), strict=True)
    return Entry(" / ".join(map(percent, shares)), " / ".join(filter(None, map(within, intervals))), shares[0])


def _columns(rows: Sequence[TableRow]) -> list[Column]:
    # Both columns always exist, so that a missing figure is visible.
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


def _find(rows: Sequence[TableRow], column: Column, attack: TableRow) -> Entry | None:
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
    """Returns the text in place of a missing figure."""
    if line.purifier == UNDEFENDED and column.kind == "aware":
        return "same as blind"
    return NOT_MEASURED
