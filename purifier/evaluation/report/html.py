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
from purifier.evaluation.pictures import ATTACKED, CHANGE, CLEAN, purified_name
from purifier.evaluation.plan import UNDEFENDED
from purifier.evaluation.report import view
from purifier.evaluation.report.figures import Costs, Curve, colours, cost_figure, eps_panel
from purifier.evaluation.report.markdown import BLIND_WARNING
from purifier.evaluation.rows import CLEAN as CLEAN_ROW
from purifier.evaluation.rows import WORST_CASE, Row
from purifier.evaluation.run import Evaluation

# A report is a page, not an archive: further attacks are in the tables.
_MOST_CURVES = 6
_MOST_PICTURED = 4


@dataclass(frozen=True)
class Panel:
    """A drawing and what is below it."""

    svg: str
    title: str


@dataclass(frozen=True)
class Tile:
    """One picture, as a data URL, with what the model says of it."""

    source: str
    title: str
    said: str
    right: bool | None


@dataclass(frozen=True)
class Strip:
    """Rows of pictures of one attack under one threat model."""

    title: str
    note: str
    kind: str
    rows: tuple[tuple[Tile, ...], ...]


def page(evaluation: Evaluation, *, command: str | None, versions: Mapping[str, str], commit: str | None) -> str:
    """Returns the page as text.

    Args:
        evaluation: What was found; its pictures are read from its folder.
        command: The command line that made it, or None.
        versions: Versions of the packages that the figures depend on.
        commit: The commit of the package, or None.

    Raises:
        InputError: Where a package of the extra "eval" is missing.
    """
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise InputError(
                f"expected the package {package} for the report, got none; install it with "
                'pip install "torch-purifier[eval]"'
            )
    import jinja2

    rows = evaluation.rows
    shown = view.plain(rows)
    tint = colours(list(dict.fromkeys(row.purifier for row in rows)), UNDEFENDED)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        resources.files("purifier.evaluation.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    names = {finding.check for _, finding in evaluation.findings}
    return template.render(
        task=evaluation.task,
        measure=view.measure_title(rows),
        images=rows[0].images,
        # Of a file's path the last part: headings are for people.
        model=Path(evaluation.settings["model"].get("name", evaluation.settings["model"]["kind"])).name,
        warning=BLIND_WARNING,
        table=view.headline(rows),
        colours=tint,
        undefended=UNDEFENDED,
        missing=view.undefended_note,
        panels=_curves(shown, tint),
        costs=_costs(shown, tint),
        strips=_strips(evaluation, shown),
        findings=evaluation.findings,
        checks=[check for check in CHECKS if check.name not in names],
        checked=evaluation.task == "classification",
        skipped=evaluation.skipped,
        rows=[_full(row) for row in rows],
        detailed=isinstance(rows[0], Row),
        settings=evaluation.settings,
        settings_text=json.dumps(evaluation.settings, indent=2),
        command=command,
        versions=versions,
        commit=commit,
    )


def _full(row: view.AnyRow) -> dict[str, Any]:
    """Every measure of a row, as text."""
    clean = row.attack == CLEAN_ROW
    full = {
        "purifier": row.purifier,
        "attack": "none" if clean else row.attack if row.threat == WORST_CASE else view.attack_title(row),
        "threat": "–" if clean else view.threat_title(view.threat_of(row)),
        "kind": "standard" if clean else view.threat_kind(row.threat),
        "images": row.images,
        "form": f"{row.dtype}{', 8 bit' if row.eight_bit else ''}",
        "standard": view.standard(row),
        "robust": None if clean else view.robust(row),
        "milliseconds": row.milliseconds,
    }
    if isinstance(row, Row):
        full["success"] = None if clean else _rate(row.attack_success_rate, row.attack_success_interval)
        full["psr"] = _rate(row.purification_success_rate, row.purification_success_interval)
    return full


def _rate(share: float, interval: tuple[float, float]) -> view.Entry:
    return view.Entry(view.percent(share), view.within(interval), share)


# -- curves -----------------------------------------------------------------------------------------------------------


def _curves(rows: Sequence[view.AnyRow], tint: Mapping[str, str]) -> list[list[Panel]]:
    """Accuracy against eps: for each attack with a radius, a panel for each threat model it was run under."""
    families: dict[tuple[Any, ...], list[view.AnyRow]] = {}
    for row in rows:
        if row.eps is not None and row.attack != CLEAN_ROW:
            title = row.threat if row.threat == WORST_CASE else row.attack.split("-EOT")[0]
            families.setdefault((title, row.norm, row.steps), []).append(row)
    panels = []
    for (_, norm, _), members in list(families.items())[:_MOST_CURVES]:
        by_threat: dict[str, list[view.AnyRow]] = {}
        for row in members:
            by_threat.setdefault(view.threat_of(row), []).append(row)
        panels.append([_panel(key, those, norm, tint) for key, those in by_threat.items()])
    return panels


def _panel(threat: str, rows: Sequence[view.AnyRow], norm: str | None, tint: Mapping[str, str]) -> Panel:
    first = rows[0]
    attack = "all aware attacks" if first.threat == WORST_CASE else view.attack_title(first).split(",")[0]
    steps = "" if first.steps is None else view.attack_title(first).rpartition(",")[2]
    title = f"{attack}{',' if steps else ''}{steps} · {_lower(view.threat_title(threat))}"
    found = []
    for name in dict.fromkeys(row.purifier for row in rows):
        mine = sorted((row for row in rows if row.purifier == name), key=lambda row: row.eps or 0.0)
        shares = [view.standard(mine[0]).share, *(view.robust(row).share for row in mine)]
        ends = [_ends(mine[0], clean=True), *(_ends(row, clean=False) for row in mine)]
        lows, highs = zip(*ends, strict=True)
        found.append(Curve(name, tint[name], [0.0, *(row.eps or 0.0 for row in mine)], shares, lows, highs))
    return Panel(eps_panel(found, linf=norm == "Linf", title=title), title)


def _lower(title: str) -> str:
    """Returns a title for the middle of a line; BPDA and EOT stay."""
    return title[:1].lower() + title[1:]


def _ends(row: view.AnyRow, *, clean: bool) -> tuple[float, float]:
    """The interval of a row's first measure, or the figure itself where there is none."""
    if isinstance(row, Row):
        return row.standard_interval if clean else row.robust_interval
    shares, intervals = (row.standard, row.standard_intervals) if clean else (row.robust, row.robust_intervals)
    name = next(iter(shares))
    return intervals.get(name, (shares[name], shares[name]))


# -- cost -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CostSection:
    """The figure of accuracy against cost, and its table."""

    svg: str
    attack: str
    lines: tuple[Costs, ...]


def _costs(rows: Sequence[view.AnyRow], tint: Mapping[str, str]) -> CostSection | None:
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


def reference_attack(rows: Sequence[view.AnyRow]) -> view.AnyRow | None:
    """Returns the attack that figures and pictures are of: under the most threat models, then of the largest eps."""
    attacks = view.attacks_of(rows)
    if not attacks:
        return None

    def weight(attack: view.AnyRow) -> tuple[int, float]:
        same = {r.threat for r in rows if r.settings.get("attack_key") == attack.settings["attack_key"]}
        return len(same), attack.eps or 0.0

    return max(attacks, key=weight)


# -- pictures ---------------------------------------------------------------------------------------------------------


def _strips(evaluation: Evaluation, rows: Sequence[view.AnyRow]) -> list[Strip]:
    attack = reference_attack(rows)
    if attack is None:
        return []
    cells: dict[str, view.AnyRow] = {}
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
    evaluation: Evaluation, cell: str, row: view.AnyRow, purifiers: list[str], clean: dict[int, dict[str, Any]]
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
        # An attack on what is behind a purifier is judged there: without the purifier it was not the target.
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
    """Returns a function of (kept prediction, label) that says it in words, and whether it is right."""
    classes = evaluation.classes

    def of_class(prediction: int, label: int | None) -> tuple[str, bool | None]:
        known = classes is not None and 0 <= prediction < len(classes)
        name = classes[prediction].split(",")[0] if known and classes else f"class {prediction}"
        return name, prediction == label

    def of_pixels(prediction: dict[str, list[int]], label: int | None) -> tuple[str, bool | None]:
        share = sum(prediction["hits"]) / max(1, sum(prediction["labelled"]))
        return f"{view.percent(share)} of pixels", None

    def of_boxes(prediction: dict[str, list[Any]], label: int | None) -> tuple[str, bool | None]:
        sure = sum(score >= 0.5 for score in prediction["scores"])
        return f"{sure} sure box{'' if sure == 1 else 'es'}", None

    return {"classification": of_class, "segmentation": of_pixels, "detection": of_boxes}[evaluation.task]  # type: ignore[return-value]


def _tile(path: Path, title: str, said: tuple[str, bool | None]) -> Tile:
    data = base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""
    return Tile(f"data:image/png;base64,{data}", title, *said)
