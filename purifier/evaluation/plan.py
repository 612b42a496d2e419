"""Which attack runs under which threat model against which purifiers: the cells of an evaluation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from purifier.attacks import SSP, Attack
from purifier.attacks.threats import ThreatModel
from purifier.evaluation.rows import AWARE_THREATS, CLEAN

UNDEFENDED = "none"


@dataclass(frozen=True)
class Cell:
    """One attack under one threat model; what it gives is shown to each of the purifiers.

    Attributes:
        name: Unique, fit for a file name.
        attack_key: What the attack was asked for as.
        attack: The attack; None for clean images.
        threat_key: What the threat model was asked for as.
        threat: The threat model; None for clean images.
        purifiers: Names of the purifiers that see the images; the one of an aware attack is also what is attacked.
    """

    name: str
    attack_key: str
    attack: Attack | None
    threat_key: str
    threat: ThreatModel | None
    purifiers: tuple[str, ...]


@dataclass(frozen=True)
class Skipped:
    """A cell that would say nothing, and why."""

    attack: str
    threat: str
    purifier: str
    reason: str


def plan(
    purifiers: Mapping[str, Any], attacks: Mapping[str, Attack], threats: Mapping[str, ThreatModel]
) -> tuple[list[Cell], list[Skipped]]:
    """Returns the cells of an evaluation, clean images first, and what was left out.

    Attacks that do not know the purifier run once for all purifiers, the others once for each.
    """
    everyone = (UNDEFENDED, *purifiers)
    cells, skipped = [Cell(CLEAN, CLEAN, None, UNDEFENDED, None, everyone)], []
    for attack_key, attack in attacks.items():
        for threat_key, threat in threats.items():
            if threat.name not in AWARE_THREATS:
                cells.append(Cell(f"{threat_key}--{attack_key}", attack_key, attack, threat_key, threat, everyone))
                continue
            for name, purifier in purifiers.items():
                reason = _pointless(attack, threat, purifier)
                if reason is not None:
                    skipped.append(Skipped(attack_key, threat_key, name, reason))
                else:
                    cell = f"{threat_key}--{name}--{attack_key}"
                    cells.append(Cell(cell, attack_key, attack, threat_key, threat, (name,)))
    return list(_with_file_names(cells)), skipped


def _pointless(attack: Attack, threat: ThreatModel, purifier: Any) -> str | None:
    if isinstance(attack, SSP):
        return "SSP looks at neither model nor purifier, so no attacker who knows them can use it; see its blind figure"
    if attack.gradient and threat.name == "aware" and not getattr(purifier, "differentiable", True):
        return "the purifier's exact gradient is zero almost everywhere; the threat bpda measures it"
    if not attack.gradient and threat.name == "bpda":
        return "the attack takes no gradient, so the threat aware is all there is"
    return None


def _with_file_names(cells: Sequence[Cell]) -> Iterator[Cell]:
    used: set[str] = set()
    for cell in cells:
        # "8/255" reads well as "8_255"; folders of purifiers become one word.
        base = re.sub(r"[^\w=.+-]+", "-", cell.name.replace("/", "_")).strip("-.")
        name, number = base, 2
        # Names that differ in case only are one file on some systems.
        while name.casefold() in used:
            name, number = f"{base}~{number}", number + 1
        used.add(name.casefold())
        yield Cell(name, cell.attack_key, cell.attack, cell.threat_key, cell.threat, cell.purifiers)
