"""Tables: purifiers that were measured alone join the others, if they were measured alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables

Row = dict[str, Any]

SETTINGS: dict[str, Any] = {
    "model": "m",
    "data": "d",
    "images": 4,
    "size": 224,
    "batch_size": 2,
    "seed": 0,
    "attacks": {"PGD": {"eps": 0.1}},
    "threats": {"blind": {"name": "blind"}},
}


def row(purifier: str, share: float) -> Row:
    return {
        "purifier": purifier,
        "threat": "blind",
        "images": 4,
        "settings": {"attack_key": "PGD", "threat_key": "blind"},
        "robust_accuracy": {"share": share, "interval": [0.0, 1.0]},
    }


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)

    def write(name: str, rows: list[Row], **changes: Any) -> None:
        (folder / f"{name}.json").write_text(json.dumps({"settings": SETTINGS | changes, "rows": rows}))

    write("honest_net_blind", [row("none", 0.0), row("ncis", 0.25)])
    return write


def test_rows_measured_alone_join_the_table_once(results: Callable[..., None]) -> None:
    results("honest_net_blind+alloy", [row("none", 0.0), row("alloy", 0.5)])
    lines = tables.honest("net_blind").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["purifier", "---", "none", "ncis", "alloy"]
    assert "50.0" in lines[-1]


def test_rows_measured_alone_later_take_the_place_of_older_ones(results: Callable[..., None]) -> None:
    results("honest_net_blind", [row("none", 0.0), row("gs", 0.125), row("ncis", 0.25)])
    results("honest_net_blind+gs", [row("none", 0.0), row("gs", 0.75)])
    lines = [line.split("|")[1:3] for line in tables.honest("net_blind").splitlines()[4:]]
    assert [name.strip() for name, _ in lines] == ["none", "gs", "ncis"]
    assert lines[1][1].strip().startswith("75.0") and lines[2][1].strip().startswith("25.0")


def test_of_rows_measured_together_and_alone_those_measured_alone_count(results: Callable[..., None]) -> None:
    results("honest_net_blind+alloy+alloy-s", [row("alloy", 0.5), row("alloy-s", 0.25)])
    results("honest_net_blind+alloy", [row("alloy", 0.75)])
    shares = {line["purifier"]: line["robust_accuracy"]["share"] for line in tables.honest_rows("net_blind")}
    assert shares == {"none": 0.0, "ncis": 0.25, "alloy": 0.75, "alloy-s": 0.25}


def test_columns_keep_their_order_where_a_purifier_lacks_one(results: Callable[..., None]) -> None:
    def under(purifier: str, attack: str) -> Row:
        return row(purifier, 0.5) | {"settings": {"attack_key": attack, "threat_key": "blind"}}

    first = [under(name, "noise") for name in ("none", "jpeg", "ncis")]
    results("honest_net_blind", [*first, under("ncis", "BIM"), under("jpeg", "PGD"), under("ncis", "PGD")])
    results("honest_net_blind+gs", [under("gs", "PGD")])
    heads = [cell.strip() for cell in tables.honest("net_blind").splitlines()[2].split("|")[2:-1]]
    assert heads == ["noise, blind", "BIM, blind", "PGD, blind"]


def test_rows_of_other_attacks_do_not_join(results: Callable[..., None]) -> None:
    results("honest_net_blind+alloy", [row("alloy", 0.5)], attacks={"PGD": {"eps": 0.2}})
    with pytest.raises(SystemExit, match="other attacks"):
        tables.honest("net_blind")


@pytest.mark.parametrize(("images", "joins"), [(2, True), (3, False)])
def test_no_batch_is_larger_than_all_images(results: Callable[..., None], images: int, joins: bool) -> None:
    results("honest_net_blind", [row("none", 0.0)], images=images, batch_size=2)
    results("honest_net_blind+alloy", [row("alloy", 0.5)], images=images, batch_size=10)
    if joins:
        assert "alloy" in tables.honest("net_blind")
    else:
        with pytest.raises(SystemExit, match="other batch_size"):
            tables.honest("net_blind")


def test_what_half_precision_moved_is_the_largest_difference_of_all() -> None:
    def figures(standard: float, robust: float) -> dict[str, float]:
        return {"standard": standard, "robust": robust}

    rows = [
        {"classifier": "a", "purifier": "gs", "float32": figures(0.5, 0.25), "bfloat16": figures(0.505, 0.25)},
        {"classifier": "a", "purifier": "ncis", "float32": figures(0.75, 0.25), "bfloat16": figures(0.75, 0.235)},
    ]
    lines = tables.half_precision({"settings": {"images": 200}, "rows": rows}).splitlines()
    assert lines[2:4] == ["| a | gs | 50.0 | 50.5 | 25.0 | 25.0 |", "| a | ncis | 75.0 | 75.0 | 25.0 | 23.5 |"]
    assert lines[-1] == "n = 200; the most that a figure moved: 1.5."


def test_a_card_says_what_is_won_back_on_the_tasks_that_were_measured(results: Callable[..., None]) -> None:
    def task_row(purifier: str, attack: str | None, value: float) -> Row:
        settings = {} if attack is None else {"attack_key": attack, "threat_key": "blind"}
        figures = {"robust": {"map_50": value}, "robust_intervals": {}}
        return {"purifier": purifier, "threat": "blind", "images": 4, "settings": settings, **figures}

    rows = [task_row("none", None, 0.5), task_row("none", "PGD", 0.125), task_row("none", "SSP", 0.25)]
    rows += [task_row("alloy", None, 0.375), task_row("alloy", "PGD", 0.25), task_row("alloy", "SSP", 0.375)]
    results("honest_yolox_nano_blind", rows)
    for model in ("lraspp_camvid", "deeplabv3_voc"):
        results(f"honest_{model}_blind", rows[:3])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.alloy_tasks("alloy").splitlines()]
    assert cells[2:] == [
        ["YOLOX-Nano, n=4: clean figure lost, at most", "6.0", "12.5", "no"],
        ["YOLOX-Nano, n=4: PGD, blind: % won back of what it took, at least", "50.0", "33.3", "no"],
        ["YOLOX-Nano, n=4: SSP, blind: % won back of what it took, at least", "50.0", "50.0", "yes"],
    ]
    assert tables.alloy_tasks("alloy-s") == "Not measured yet."
