"""The zoo: what each bundled purifier is, costs and does, from its configuration, its card and the result files.

`python -m benchmarks.tables` writes it as a table into docs/zoo.md and as JSON into weights/zoo.json, which
`purifier list --json` reads. A figure without a result is None, "not measured" in the table.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.accuracy import certified, tables
from benchmarks.kit import ROOT, read_result
from benchmarks.markdown import percent, table
from benchmarks.recipes import aware_measure
from purifier import _hub
from purifier._wrapping import DEFAULT
from purifier.methods import build

JSON = ROOT / "weights" / "zoo.json"
_ABSENT, _MARK = "not measured", ", the default"
_THREATS = ("clean", "blind", "transfer", "aware", "certified")
# The model of each table, and its columns of figures.
TABLES = {
    "resnet50": ("clean", "blind", "transfer", "aware"),
    "cifar10-resnet20": ("clean", "blind", "aware", "certified"),
}
_RADIUS = 0.25
_LINF = "PGD Linf 16/255"


class Own(NamedTuple):
    """Where the figures of a purifier are that was measured on another model than ResNet-50.

    Attributes:
        model: That model.
        row: The purifier's name in the results.
        blind: The result with the figures without an attack and under a blind one, and the heading of the latter.
        aware: The result with the figure under an aware attack, and its heading.
        certified: The result with the certified accuracy.
    """

    model: str
    row: str
    blind: tuple[str, str] | None = None
    aware: tuple[str, str] | None = None
    certified: str | None = None


_OWN = {
    "gad-cifar10-resnet20": Own(
        "cifar10-resnet20", "gad-cifar10-resnet20",
        ("gad_cifar10_resnet20_blind", "PGD 8/255, blind"), ("gad_cifar10_resnet20_aware", "PGD 8/255, aware"),
    ),
    aware_measure.SHIPPED: Own(
        "cifar10-resnet20", aware_measure.NAME,
        ("gad_aware_auto_8", "PGD 8/255, blind"), ("gad_aware_auto_8", "AutoAttack 8/255, aware"),
    ),
    **{name: Own("cifar10-resnet20", name, certified="certified_cifar10") for name in certified.SIGMAS},
}  # fmt: skip
_MOMENTUM = "MI-FGSM 16/255"
# The rows of the default's table, by the key of their figure.
_ATTACKERS = {
    "clean": "none",
    "blind": "blind, PGD",
    "momentum": "blind, MI-FGSM",
    "transfer": "transfer from MobileNetV2, PGD",
    "moved": "transfer from MobileNetV2, MI-FGSM",
    "aware": "aware, PGD",
}
Figure = dict[str, Any]


def figure(share: float, interval: Sequence[float], images: int, attack: str | None) -> Figure:
    return {"accuracy": share, "interval": list(interval), "images": images, "attack": attack}


@functools.cache
def rows() -> list[dict[str, Any]]:
    """Returns what is known of each purifier, as JSON values."""
    costs = read_result("cost_cpu")["rows"]
    return [_row(name, costs.get(name, {}).get("resnet50s")) for name in _hub.list_purifiers(trained=False)]


def _row(name: str, time: float | None) -> dict[str, Any]:
    config, front = _hub.bundled_config(name), front_matter(_hub.bundled_card(name))
    parameters, gmac = size_of(config)
    measured = {} if config.get("stand_in") else own_model(name) if name in _OWN else resnet50(name)
    return {
        "name": name,
        "method": config["method"],
        "loads": config.get("stand_in"),
        "parameters": parameters,
        "gmac": gmac,
        "resnet50s": time,
        "model": _OWN[name].model if name in _OWN else "resnet50",
        **{threat: measured.get(threat) for threat in _THREATS},
        "license": front["license"],
        "datasets": front.get("datasets", []),
    }


def front_matter(card: str) -> dict[str, Any]:
    """Returns the YAML header of a model card."""
    header: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return header


def size_of(config: Mapping[str, Any]) -> tuple[int, float | None]:
    """Returns the parameters, and 1e9 multiply-accumulates for 224 x 224 pixels; None if there is no network."""
    with torch.device("meta"):
        method = build(config).eval()
    parameters = sum(parameter.numel() for parameter in method.parameters())
    if not parameters:
        return 0, None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        method(torch.empty(1, 3, 224, 224, device="meta"))
    return parameters, round(counter.get_total_flops() / 2e9, 1)


def resnet50(name: str) -> dict[str, Figure]:
    """Returns the figures in front of ResNet-50; if there are several, those of more images."""
    aware, transfer = tables.honest_rows("resnet50_aware"), tables.honest_rows("resnet50_transfer")
    found = {}
    for column in reversed(tables.AWARE):
        found |= evaluated(aware, name, "aware", column)
    found |= evaluated(transfer, name, "transfer", f"{_LINF}, transfer")
    acceptance = read_result("nrp_acceptance")
    if name == "nrp-resg":
        row, images = acceptance["rows"]["resnet50"][name], acceptance["settings"]["images"]
        for threat, key in (("clean", "standard"), ("blind", _LINF)):
            found[threat] = figure(row[key]["accuracy"], row[key]["interval"], images, key)
    every = tables.blind_pgd("resnet50")
    form = name if name in every else tables.best_of(every, name) if f"{name} i=1" in every else None
    return found | (blind_pgd(every[form]) if form else {})


def evaluated(rows: Iterable[Mapping[str, Any]], name: str, threat: str, column: str) -> dict[str, Figure]:
    """Returns the figure of a purifier in a column of an evaluation, if there is one."""
    for row in rows:
        if row["purifier"].split(" i=")[0] == name and tables.column(row) == column:
            share, interval = tables.measure_of(row)
            return {threat: figure(share, interval or (), row["images"], column)}
    return {}


def blind_pgd(row: Mapping[str, Any]) -> dict[str, Figure]:
    """Returns the figures in a row of blind_pgd.py."""
    images = row["images"]
    found = {
        "clean": figure(row["standard"], row["standard_interval"], images, "standard"),
        "blind": figure(row["robust"], row["robust_interval"], images, _LINF),
    }
    if aware := row.get("aware"):
        found["aware"] = figure(aware["robust"], aware["robust_interval"], aware["images"], f"{_LINF}, aware")
    return found


def own_model(name: str) -> dict[str, Figure]:
    """Returns the figures of a purifier in front of the one model that it was trained for."""
    own, found = _OWN[name], dict[str, Figure]()
    if own.blind:
        unattacked = read_result(own.blind[0])["rows"]
        found |= evaluated(unattacked, own.row, "clean", "no attack")
        found |= evaluated(unattacked, own.row, "blind", own.blind[1])
    if own.aware:
        found |= evaluated(read_result(own.aware[0])["rows"], own.row, "aware", own.aware[1])
    for row in read_result(own.certified, {"rows": []})["rows"] if own.certified else ():
        if row["purifier"] == own.row:
            (known,) = (one for one in row["accuracies"] if one["radius"] == _RADIUS)
            found["certified"] = figure(known["share"], known["interval"], row["images"], f"L2 {_RADIUS}")
    return found


def document() -> str:
    """Returns weights/zoo.json."""
    return json.dumps({"purifiers": rows()}, indent=1) + "\n"


def markdown(model: str) -> str:
    """Returns a table of docs/zoo.md: the purifiers that were measured in front of a model."""
    threats = TABLES[model]
    heads = ["purifier", "method", "parameters", "GMAC", "time", *threats, "n", "licence", "trained on"]
    lines = []
    for row in rows():
        if row["model"] != model:
            continue
        images = next((row[threat]["images"] for threat in threats if row[threat]), None)
        lines.append(
            [
                f"[{row['name']}](../weights/{row['name']}/README.md){_MARK if row['name'] == DEFAULT else ''}",
                row["method"] + (f", loads {row['loads']}" if row.get("loads") else ""),
                f"{row['parameters']:,}",
                _ABSENT if row["gmac"] is None and row["parameters"] else str(row["gmac"] or "no network"),
                _ABSENT if row["resnet50s"] is None else f"{row['resnet50s']:.2f}",
                *(_cell(row[threat], images) for threat in threats),
                str(images or _ABSENT),
                row["license"],
                ", ".join(row["datasets"]) or "nothing",
            ]
        )
    return table(heads, lines)


def _cell(found: Figure | None, images: int | None) -> str:
    if found is None:
        return _ABSENT
    text = percent(found["accuracy"], found["interval"])
    return text if found["images"] == images else f"{text}, n={found['images']}"


def of_default() -> str:
    """Returns what the default purifier does against each attacker, in front of ResNet-50."""
    row = dict(next(row for row in rows() if row["name"] == DEFAULT))
    bare = resnet50("none")
    bare["aware"] = bare["blind"]  # there is no purifier to know of
    for found, name in ((bare, "none"), (row, DEFAULT)):
        found |= evaluated(tables.honest_rows("resnet50_blind"), name, "momentum", f"{_MOMENTUM}, blind")
        found |= evaluated(tables.honest_rows("resnet50_transfer"), name, "moved", f"{_MOMENTUM}, transfer")
    lines = [[text, _cell(bare[threat], None), _cell(row[threat], None)] for threat, text in _ATTACKERS.items()]
    return table(["attacker, attack", "ResNet-50 alone", f"ResNet-50 behind {DEFAULT}"], lines)
