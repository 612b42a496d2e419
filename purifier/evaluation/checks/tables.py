"""Checks on finished rows: figures that contradict each other, or that lack their counterpart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

from purifier import attacks
from purifier.evaluation.checks.finding import Check, Finding
from purifier.evaluation.checks.strength import LEFT, ONE_STEP, UNBOUNDED
from purifier.evaluation.rows import AWARE_THREATS, CLEAN, WORST_CASE, Row

FALLING = Check(
    "accuracy not falling with eps",
    "the robust accuracy under one attack rises with eps or, for an attack with the gradient, does not fall when eps "
    "doubles",
    "A larger ball contains the smaller one, so accuracy that does not fall shows that the attack does not work: a "
    "masked gradient, a wrong step size, or too few steps.",
)
BLACK_BOX = Check(
    "black-box stronger than white-box",
    "fewer images stay correct under Square, a transferred or a purifier-blind attack than under the gradient attacks "
    "of an attacker who knows the purifier, at the same norm and no larger eps",
    "The gradient attack uses strictly more knowledge; a worse result is the clearest sign of a masked gradient. The "
    "lower figure bounds the robustness from above; strengthen the gradient attack (BPDA, EOT, more steps).",
)
BLIND_ONLY = Check(
    "blind figure without an aware one",
    "a purifier has figures under purifier-blind or transfer attacks and none under an aware attacker",
    "Almost every purifier is far weaker against an attacker who knows it. Measure Aware (or BPDA) on at least some "
    "images and show the figure beside the blind one, or do not call the blind figure robustness.",
)
_Group = dict[Hashable, list[Row]]


def one_step_rows(rows: Sequence[Row]) -> Finding | None:
    """Checks whether clearly more images stay correct under iterative attacks than under one step."""
    measured = []
    for group in _grouped(_direct(rows), lambda r: (*_setting(r), r.threat, r.eps)):
        once = [row for row in group if row.steps == 1]
        many = [row for row in group if row.steps is not None and row.steps > 1]
        if once and many:
            weak, strong = min(once, key=_share), min(many, key=_share)
            if _clearly_less(weak, strong):
                measured.append(f"{_name(weak)} {_percent(weak)}, {_name(strong)} {_percent(strong)}")
    return ONE_STEP.found("; ".join(measured)) if measured else None


def unbounded_rows(rows: Sequence[Row]) -> Finding | None:
    """Checks whether images stay correct at Linf eps = 1 under attacks with the gradient."""
    left = [
        row
        for row in _direct(rows)
        if row.norm == "Linf" and row.eps is not None and row.eps >= 1 and (row.steps or 0) > 1 and _share(row) > LEFT
    ]
    return UNBOUNDED.found("; ".join(f"{_name(row)} {_percent(row)}" for row in left)) if left else None


def falling_rows(rows: Sequence[Row]) -> Finding | None:
    """Checks whether accuracy rises with eps or, under attacks with the gradient, does not fall."""
    measured = []
    ball = [row for row in rows if row.attack != CLEAN and row.eps is not None]
    direct = {id(row) for row in _direct(rows)}
    for group in _grouped(ball, lambda r: (*_setting(r), r.threat, r.attack, r.steps, r.restarts, r.images)):
        curve = sorted(group, key=lambda row: row.eps or 0.0)
        rises = [(a, b) for a, b in pairwise(curve) if _clearly_less(a, b)]
        measured += [f"{_name(a)} {_percent(a)}, then {_percent(b)} at {_radius(b)}" for a, b in rises]
        first, last = curve[0], curve[-1]
        doubled = (last.eps or 0) >= 2 * (first.eps or 0) > 0
        if not rises and doubled and id(first) in direct and last.robust >= first.robust > LEFT * first.images:
            measured.append(f"{_name(first)} {_percent(first)}, still {_percent(last)} at {_radius(last)}")
    return FALLING.found("; ".join(measured)) if measured else None


def black_box_rows(rows: Sequence[Row]) -> Finding | None:
    """Checks whether an attack with less knowledge fools more images."""
    measured = []
    direct = [row for row in _direct(rows) if (row.steps or 0) != 1]
    seen = {id(row) for row in direct}
    for group in _grouped(rows, _setting):
        white = [row for row in group if id(row) in seen]
        for black in (row for row in group if _sees_no_gradient(row) and row.eps is not None):
            larger = [row for row in white if row.eps is not None and row.eps >= black.eps - 1e-9]  # type: ignore[operator]
            if larger:
                best = min(larger, key=_share)
                if _clearly_less(black, best):
                    measured.append(f"{_name(black)} {_percent(black)}, {_name(best)} {_percent(best)}")
    return BLACK_BOX.found("; ".join(measured)) if measured else None


def blind_only_rows(rows: Sequence[Row]) -> Finding | None:
    """Checks whether a purifier has figures only of attackers who do not know it."""
    blind = {row.purifier for row in rows if row.threat in ("blind", "transfer") and row.attack != CLEAN}
    aware = {row.purifier for row in rows if row.threat in (*AWARE_THREATS, WORST_CASE)}
    alone = sorted(blind - aware - {"none"})
    return BLIND_ONLY.found(f"no purifier-aware row for {', '.join(alone)}") if alone else None


def _grouped(rows: Iterable[Row], key: object) -> list[list[Row]]:
    groups: _Group = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)  # type: ignore[operator]
    return list(groups.values())


def _setting(row: Row) -> tuple[Hashable, ...]:
    return row.purifier, row.norm, row.eight_bit, row.dtype


def _gradient_free(row: Row) -> bool:
    """Whether the attack uses no gradient of its target: only scores, or the features of another network (SSP)."""
    kind = getattr(attacks, row.attack.split("-")[0], None)
    return kind is attacks.SSP or getattr(kind, "gradient", True) is False


def _direct(rows: Iterable[Row]) -> list[Row]:
    """Rows whose attack has the gradient of its whole target; without a purifier, a blind attack has it."""
    return [
        row
        for row in rows
        if row.attack != CLEAN
        and not _gradient_free(row)
        and (row.threat in AWARE_THREATS or (row.purifier == "none" and row.threat in ("none", "blind")))
    ]


def _sees_no_gradient(row: Row) -> bool:
    """Whether the attacker lacked the gradient of the defended model."""
    if row.attack == CLEAN or row.threat == WORST_CASE:
        return False
    return _gradient_free(row) or row.threat == "transfer" or (row.threat == "blind" and row.purifier != "none")


def _share(row: Row) -> float:
    return row.robust_accuracy


def _clearly_less(low: Row, high: Row) -> bool:
    """Whether accuracy is lower by more than chance.

    On as many images that means by over 1 % and over one image; otherwise the intervals must not overlap.
    """
    if low.images == high.images:
        return high.robust - low.robust > max(1.0, 0.01 * low.images)
    return low.robust_interval[1] < high.robust_interval[0]


def _radius(row: Row) -> str:
    if row.eps is None:
        return ""
    return f"eps {255 * row.eps:.3g}/255" if row.norm == "Linf" else f"eps {row.eps:.3g}"


def _name(row: Row) -> str:
    radius = f" {_radius(row)}" if row.eps is not None else ""
    return f"{row.purifier}, {row.attack}{radius} ({row.threat})"


def _percent(row: Row) -> str:
    return f"{row.robust}/{row.images}"
