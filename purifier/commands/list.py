"""purifier list: lists the purifiers that come with the package."""

from __future__ import annotations

import json
import re
from typing import Any

import click
import torch

from purifier import _hub
from purifier.commands._terminal import echo
from purifier.commands._zoo import measured
from purifier.methods import build

_NO_WEIGHTS = "no weights yet: purifier convert | train"


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(as_json: bool) -> None:
    """List the purifiers that come with the package. docs/choosing.md compares what they keep and cost."""
    figures = measured()
    rows = [_row(name, _hub.bundled_config(name), figures.get(name)) for name in _hub.list_purifiers(trained=False)]
    if as_json:
        echo(json.dumps(rows, indent=2))
        return
    table = [("NAME", "METHOD", "PARAMETERS", "COST", "WHAT IT DOES")]
    for row in rows:
        note = f"[loads {row['stand_in']}] " if row["stand_in"] else "" if row["trained"] else f"[{_NO_WEIGHTS}] "
        what = note + row["description"]
        time = (row["measured"] or {}).get("resnet50s")
        cost = "-" if time is None else f"{time:.2f}"
        table.append((row["name"], row["method"], f"{row['parameters']:,}", cost, what))
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    for name, method, parameters, cost, what in table:
        echo(f"{name:{widths[0]}}  {method:{widths[1]}}  {parameters:>{widths[2]}}  {cost:>{widths[3]}}  {what}")
    echo("\nCOST: time on a CPU, divided by that of a ResNet-50 for the same images. -: not measured.")


def _row(name: str, config: dict[str, Any], figures: dict[str, Any] | None) -> dict[str, Any]:
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build(config).parameters())
    return {
        "name": name,
        "method": config["method"],
        "parameters": parameters,
        "trained": config.get("trained", True),
        "stand_in": config.get("stand_in"),
        "options": config["options"],
        "description": _summary(name),
        "measured": figures,
    }


def _summary(name: str) -> str:
    """Returns the first sentence of a purifier's card, without links."""
    text = re.sub(r"\A---\n.*?\n---\n", "", _hub.bundled_card(name), flags=re.DOTALL)
    first = next(part for part in text.split("\n\n") if part.strip() and not part.lstrip().startswith(("#", "<")))
    plain = re.sub(r"\[`?(.*?)`?\]\(.*?\)", r"\1", " ".join(first.split()))
    return re.split(r"(?<=[a-z)\d])\. ", plain)[0].rstrip(".:") + "."
