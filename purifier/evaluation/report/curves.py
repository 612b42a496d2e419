"""The panels of a report that show accuracy against eps and against the length of an attack."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from purifier.evaluation.report import view
from purifier.evaluation.report.figures import Axis, Curve, curve_panel
from purifier.evaluation.rows import CLEAN, WORST_CASE, Measures, TableRow

# What differs between the rows of a curve.
_VARIED = ("eps", "alpha", "steps", "queries", "restarts", "seed")
# Further attacks are in the tables only.
_MOST = 6


@dataclass(frozen=True)
class Panel:
    """A drawing and its title."""

    svg: str
    title: str


def eps_panels(rows: Sequence[TableRow], tint: Mapping[str, str]) -> list[list[Panel]]:
    """Accuracy against eps: for each attack with a radius, a panel for each threat model.

    An attack that also ran longer, with the same radii and threat models, is left out.
    """
    families: dict[tuple[Any, ...], list[TableRow]] = {}
    for row in rows:
        if row.eps is not None and row.attack != CLEAN:
            families.setdefault((_kind(row), _effort(row), row.steps), []).append(row)
    held = {key: {(row.eps, view.threat_of(row)) for row in members} for key, members in families.items()}
    longest = [
        members
        for key, members in families.items()
        if not any(key[0] == other[0] and key[1] < other[1] and held[key] <= held[other] for other in families)
    ]
    panels = []
    for members in longest[:_MOST]:
        axis: Axis = "Linf" if members[0].norm == "Linf" else "L2"
        group = []
        for those in _by_threat(members):
            attack, _, rest = view.attack_title(those[0]).partition(",")
            steps = "" if those[0].steps is None else f",{rest.rpartition(',')[2]}"
            attack = "all aware attacks" if those[0].threat == WORST_CASE else attack
            title = f"{attack}{steps} · {_knowing(those[0])}"
            group.append(Panel(curve_panel(_curves(those, _eps, tint, clean=True), axis=axis, title=title), title))
        panels.append(group)
    return panels


def step_panels(rows: Sequence[TableRow], tint: Mapping[str, str]) -> list[list[Panel]]:
    """Accuracy against the steps of an attack, or its queries: for each attack that was run with several numbers."""
    families: dict[tuple[Any, ...], list[TableRow]] = {}
    for row in rows:
        if row.steps is not None and row.attack != CLEAN and row.threat != WORST_CASE:
            families.setdefault((_kind(row), row.eps), []).append(row)
    several = [members for members in families.values() if len({_effort(row) for row in members}) > 1]
    panels = []
    for members in several[:_MOST]:
        axis: Axis = "queries" if members[0].settings.get("queries") else "steps"
        group = []
        for those in _by_threat(members):
            title = f"{view.attack_title(those[0]).rpartition(',')[0]} · {_knowing(those[0])}"
            group.append(Panel(curve_panel(_curves(those, _effort, tint), axis=axis, title=title), title))
        panels.append(group)
    return panels


def _kind(row: TableRow) -> str:
    """What is the same for all rows of a curve: the attack and its options beside radius, length and seed."""
    if row.threat == WORST_CASE:
        return row.threat
    options = {name: value for name, value in row.attack_options.items() if name not in _VARIED}
    return json.dumps([row.attack.split("-EOT")[0], row.norm, options], sort_keys=True, default=str)


def _eps(row: TableRow) -> float:
    return row.eps or 0.0


def _effort(row: TableRow) -> float:
    """Steps, or queries, times restarts."""
    return float((row.steps or 0) * row.restarts)


def _by_threat(rows: Sequence[TableRow]) -> list[list[TableRow]]:
    found: dict[str, list[TableRow]] = {}
    for row in rows:
        found.setdefault(view.threat_of(row), []).append(row)
    return list(found.values())


def _knowing(row: TableRow) -> str:
    """What the attacker of a row knows, for the end of a title."""
    title = view.threat_title(view.threat_of(row))
    return title[:1].lower() + title[1:]


def _curves(
    rows: Sequence[TableRow], place: Callable[[TableRow], float], tint: Mapping[str, str], *, clean: bool = False
) -> list[Curve]:
    """Returns the curve of each purifier through its rows; with `clean`, from its clean accuracy at 0 on."""
    found = []
    for name in dict.fromkeys(row.purifier for row in rows):
        mine = sorted((row for row in rows if row.purifier == name), key=place)
        points = [(place(row), row.attacked_measures) for row in mine]
        if clean:
            points.insert(0, (0.0, mine[0].clean_measures))
        places, measures = zip(*points, strict=True)
        lows, highs = zip(*map(_ends, measures), strict=True)
        found.append(Curve(name, tint[name], places, [_share(one) for one in measures], lows, highs))
    return found


def _share(measures: Measures) -> float:
    """The first measure."""
    return next(iter(measures.values()))[0]


def _ends(measures: Measures) -> tuple[float, float]:
    """The interval of the first measure, or its value twice if there is none."""
    share, interval = next(iter(measures.values()))
    return interval or (share, share)
