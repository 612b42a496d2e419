"""One self-contained HTML page: no scripts, no other files, no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from purifier._errors import InputError
from purifier._records import read_records
from purifier.evaluation.checks import CHECKS
from purifier.evaluation.defences import Variant
from purifier.evaluation.pictures import ATTACKED, CHANGE, CLEAN, LEAST_SCORE, purified_name
from purifier.evaluation.plan import UNDEFENDED
from purifier.evaluation.report import view
from purifier.evaluation.report.curves import eps_panels, step_panels
from purifier.evaluation.report.figures import Costs, colours, cost_figure
from purifier.evaluation.report.markdown import FEW_CHECKS
from purifier.evaluation.report.section import sections
from purifier.evaluation.rows import TableRow
from purifier.evaluation.run import Evaluation

_MOST_PICTURED = 4
_DRAWN = {
    "classification": "The model's prediction is below each picture.",
    "segmentation": "The colours are the classes that the model predicts. One class has one colour in all pictures.",
    "detection": (
        f"The boxes are the model's with a score of at least {LEAST_SCORE}. One class has one colour in all pictures."
    ),
}


@dataclass(frozen=True)
class Tile:
    """A picture as a data URL, with the model's prediction for it."""

    source: str
    title: str
    said: str
    right: bool | None


@dataclass(frozen=True)
class Strip:
    """Rows of pictures for one attack under one threat model."""

    title: str
    note: str
    kind: str
    rows: tuple[tuple[Tile, ...], ...]


def page(evaluation: Evaluation, *, command: str | None, versions: Mapping[str, str], commit: str | None) -> str:
    """Returns the page as text.

    Args:
        evaluation: The results; the pictures are read from its folder.
        command: The command line of the evaluation, or None.
        versions: Versions of the packages that the figures depend on.
        commit: The commit of the package, or None.

    Raises:
        InputError: If a package of the extra "eval" is missing.
    """
    rows, settings = evaluation.rows, evaluation.settings
    shown = view.plain(rows)
    tint = colours(list(dict.fromkeys(row.purifier for row in rows)), UNDEFENDED)
    raised = {finding.check for _, finding in evaluation.findings}
    return _template().render(
        evaluation=evaluation,
        measure=view.measure_title(rows),
        images=rows[0].images,
        # Only the last part of a file's path, because it is a heading.
        model=Path(settings["model"].get("name", settings["model"]["kind"])).name,
        warning=view.warning(rows),
        title=view.capitalised(view.measure_title(rows)),
        few_checks=FEW_CHECKS,
        table=view.headline(rows),
        sections=sections(evaluation.certified, evaluation.detected),
        colours=tint,
        undefended=UNDEFENDED,
        missing=view.undefended_note,
        panels=eps_panels(shown, tint),
        step_panels=step_panels(shown, tint),
        costs=_costs(shown, tint),
        strips=_strips(evaluation, shown),
        drawn=_DRAWN[evaluation.task],
        checks=[check for check in CHECKS if check.name not in raised] if evaluation.task == "classification" else [],
        rows=[view.full(row) for row in rows],
        settings=settings,
        settings_text=json.dumps(settings, indent=2),
        command=command,
        versions=versions,
        commit=commit,
    )


def _template() -> Any:
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise InputError(
                f"expected the package {package} for the report, got none; install it with "
                'pip install "torch-purifier[eval]"'
            )
    import jinja2

    text = resources.files("purifier.evaluation.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(text)


# -- cost -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CostSection:
    """The figure of accuracy against cost, and its table."""

    svg: str
    attack: str
    lines: tuple[Costs, ...]


def _costs(rows: Sequence[TableRow], tint: Mapping[str, str]) -> CostSection | None:
    attack = reference_attack(rows)
    if attack is None:
        return None
    lines = []
    for name in dict.fromkeys(row.purifier for row in rows):
        mine = [row for row in rows if row.purifier == name]
        under = [row for row in mine if row.settings.get("attack_key") == attack.settings["attack_key"]]
        blind = [view.robust(row).share for row in under if row.threat == "blind"]
        aware = [view.robust(row).share for row in under if view.threat_kind(row.threat) == "aware"]
        lines.append(
            Costs(
                name,
                tint[name],
                mine[0].milliseconds or 0.0,
                view.standard(mine[0]).share,
                min(blind, default=None),
                min(aware, default=None),
            )
        )
    bare = next((line for line in lines if line.label == UNDEFENDED), None)
    defended = [line for line in lines if line.label != UNDEFENDED]
    if not defended:
        return None
    return CostSection(cost_figure(defended, undefended=bare), view.attack_title(attack), tuple(defended))


def reference_attack(rows: Sequence[TableRow]) -> TableRow | None:
    """Returns the attack to show in figures and pictures: the most threat models, then the largest eps."""
    attacks = view.attacks_of(rows)
    if not attacks:
        return None

    def weight(attack: TableRow) -> tuple[int, float]:
        same = {r.threat for r in rows if r.settings.get("attack_key") == attack.settings["attack_key"]}
        return len(same), attack.eps or 0.0

    return max(attacks, key=weight)


# -- pictures ---------------------------------------------------------------------------------------------------------


def _strips(evaluation: Evaluation, rows: Sequence[TableRow]) -> list[Strip]:
    attack = reference_attack(rows)
    if attack is None:
        return []
    cells: dict[str, TableRow] = {}
    for row in rows:
        if row.settings.get("attack_key") == attack.settings["attack_key"]:
            cells.setdefault(row.settings["cell"], row)
    clean = read_records(evaluation.folder / "records" / "clean.jsonl")
    strips = []
    for cell, row in list(cells.items())[:_MOST_PICTURED]:
        purifiers = [r.purifier for r in rows if r.settings.get("cell") == cell and r.purifier != UNDEFENDED]
        strip = _strip(evaluation, cell, row, purifiers, clean)
        if strip.rows:
            strips.append(strip)
    return strips


def _strip(
    evaluation: Evaluation, cell: str, row: TableRow, purifiers: list[str], clean: dict[int, dict[str, Any]]
) -> Strip:
    folder = evaluation.folder / "pictures" / cell
    records = read_records(evaluation.folder / "records" / f"{cell}.jsonl")
    say = _teller(evaluation)
    found = []
    for path in sorted(folder.glob(f"*-{CLEAN}.png")):
        stem = path.name.removesuffix(f"-{CLEAN}.png")
        index = int(stem)
        if index not in records or index not in clean:
            continue
        before, after = (r[index]["predictions"][Variant().key] for r in (clean, records))
        label = clean[index].get("label")
        # An aware attack has the purifier in its target, so the bare model is not evaluated on its images.
        plain = say(after[UNDEFENDED], label) if UNDEFENDED in after else ("", None)
        tiles = [
            _tile(path, "clean", say(before[UNDEFENDED], label)),
            _tile(folder / f"{stem}-{ATTACKED}.png", "attacked", plain),
            _tile(folder / f"{stem}-{CHANGE}.png", "perturbation × 10", ("", None)),
        ]
        for number, name in enumerate(purifiers):
            tiles.append(_tile(folder / f"{stem}-{purified_name(number)}.png", name, say(after[name], label)))
        found.append(tuple(tiles))
    threat = view.threat_of(row)
    title = view.threat_title(threat)
    if len(purifiers) == 1 and view.threat_kind(threat) == "aware":
        title = f"{title}: {purifiers[0]}"
    return Strip(title, view.THREAT_NOTES[row.threat], view.threat_kind(threat), tuple(found))


def _teller(evaluation: Evaluation) -> Callable[[Any, int | None], tuple[str, bool | None]]:
    """Returns a function of (recorded prediction, label) that returns it as text, and whether it is correct."""
    classes = evaluation.classes

    def of_class(prediction: int, label: int | None) -> tuple[str, bool | None]:
        known = classes is not None and 0 <= prediction < len(classes)
        name = classes[prediction].split(",")[0] if known and classes else f"class {prediction}"
        return name, prediction == label

    def of_pixels(prediction: dict[str, list[int]], label: int | None) -> tuple[str, bool | None]:
        share = sum(prediction["hits"]) / max(1, sum(prediction["labelled"]))
        return f"{view.percent(share)} of pixels right", None

    def of_boxes(prediction: dict[str, list[Any]], label: int | None) -> tuple[str, bool | None]:
        sure = sum(score >= LEAST_SCORE for score in prediction["scores"])
        return f"{sure} box{'' if sure == 1 else 'es'} with a score of at least 0.5", None

    return {"classification": of_class, "segmentation": of_pixels, "detection": of_boxes}[evaluation.task]  # type: ignore[return-value]


def _tile(path: Path, title: str, said: tuple[str, bool | None]) -> Tile:
    data = base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""
    return Tile(f"data:image/png;base64,{data}", title, *said)
