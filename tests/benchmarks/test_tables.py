"""The tables of accuracy: purifiers that were measured alone join the others if their settings are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables as pages
from benchmarks.accuracy import tables
from benchmarks.markdown import MISSING, table, targets_table

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


def result(*rows: Row, **changes: Any) -> dict[str, Any]:
    return {"settings": SETTINGS | changes, "rows": list(rows)}


TABLE = result(row("none", 0.0), row("ncis", 0.25))


def cells(table: str) -> list[list[str]]:
    """The lines of a table below its head."""
    lines = table[table.index("| ") :].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_rows_measured_alone_join_the_table_once() -> None:
    rows = tables.with_added(TABLE, {"alloy": result(row("none", 0.0), row("alloy", 0.5))})
    assert [line[:2] for line in cells(tables.grid(rows))] == [
        ["none", "0.0 (0-100)"], ["ncis", "25.0 (0-100)"], ["alloy", "50.0 (0-100)"],
    ]  # fmt: skip


def test_rows_measured_alone_later_replace_older_ones_in_their_place() -> None:
    base = result(row("none", 0.0), row("gs", 0.125), row("ncis", 0.25))
    rows = tables.with_added(base, {"gs": result(row("none", 0.0), row("gs", 0.75))})
    assert [line[1][:4] for line in cells(tables.grid(rows))] == ["0.0 ", "75.0", "25.0"]


def test_of_rows_measured_together_and_alone_those_measured_alone_count(
    results: Path,
) -> None:
    for name, given in (
        ("", TABLE),
        ("+alloy+alloy-s", result(row("alloy", 0.5), row("alloy-s", 0.25))),
        ("+alloy", result(row("alloy", 0.75))),
    ):
        (results / f"honest_net_blind{name}.json").write_text(json.dumps(given))
    shares = {line["purifier"]: line["robust_accuracy"]["share"] for line in tables.honest_rows("net_blind")}
    assert shares == {"none": 0.0, "ncis": 0.25, "alloy": 0.75, "alloy-s": 0.25}


def test_columns_keep_their_order_if_a_purifier_lacks_one() -> None:
    def under(purifier: str, attack: str) -> Row:
        return row(purifier, 0.5) | {"settings": {"attack_key": attack, "threat_key": "blind"}}

    first = [under(name, "noise") for name in ("none", "jpeg", "ncis")]
    base = result(*first, under("ncis", "BIM"), under("jpeg", "PGD"), under("ncis", "PGD"))
    table = tables.grid(tables.with_added(base, {"gs": result(under("gs", "PGD"))}))
    heads = [cell.strip() for cell in table.splitlines()[2].split("|")[2:-1]]
    assert heads == ["noise, blind", "BIM, blind", "PGD, blind"]


def test_rows_of_other_attacks_do_not_join() -> None:
    with pytest.raises(SystemExit, match="net\\+alloy has other attacks than the table"):
        tables.with_added(TABLE, {"net+alloy": result(row("alloy", 0.5), attacks={"PGD": {"eps": 0.2}})})


@pytest.mark.parametrize(("images", "joins"), [(2, True), (3, False)])
def test_no_batch_is_larger_than_all_images(images: int, joins: bool) -> None:
    base = result(row("none", 0.0), images=images, batch_size=2)
    added = {"alloy": result(row("alloy", 0.5), images=images, batch_size=10)}
    if joins:
        assert [one["purifier"] for one in tables.with_added(base, added)] == ["none", "alloy"]
    else:
        with pytest.raises(SystemExit, match="other batch_size"):
            tables.with_added(base, added)


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


def test_a_card_says_what_is_won_back_on_the_tasks_that_were_measured(results: Path) -> None:
    def task_row(purifier: str, attack: str | None, value: float) -> Row:
        settings = {} if attack is None else {"attack_key": attack, "threat_key": "blind"}
        figures = {"robust": {"map_50": value}, "robust_intervals": {}}
        return {"purifier": purifier, "threat": "blind", "images": 4, "settings": settings, **figures}

    rows = [task_row("none", None, 0.5), task_row("none", "PGD", 0.125), task_row("none", "SSP", 0.25)]
    rows += [task_row("alloy", None, 0.375), task_row("alloy", "PGD", 0.25), task_row("alloy", "SSP", 0.375)]
    for model, shown in (("yolox_nano", rows), ("lraspp_camvid", rows[:3]), ("deeplabv3_voc", rows[:3])):
        (results / f"honest_{model}_blind.json").write_text(json.dumps(result(*shown)))
    assert cells(tables.alloy_tasks("alloy")) == [
        ["YOLOX-Nano, n=4: clean figure lost, at most", "6.0", "12.5", "no"],
        ["YOLOX-Nano, n=4: PGD, blind: % won back of what it took, at least", "50.0", "33.3", "no"],
        ["YOLOX-Nano, n=4: SSP, blind: % won back of what it took, at least", "50.0", "50.0", "yes"],
    ]


def test_a_table_ends_its_head_with_an_empty_heading_and_has_no_minus_zero() -> None:
    assert table(["a", ""], [["1", "2"]]) == "| a | |\n|---|---|\n| 1 | 2 |"
    assert targets_table("t", [("x", 1.0, -0.01, False)]).splitlines()[-1] == "| x | 1.0 | 0.0 | no |"


def test_a_block_is_filled_and_the_text_around_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pages.BLOCKS, "one", lambda: "new")
    text = "before\n<!-- measured: one -->\nold\n<!-- end -->\nafter"
    assert pages.render(text) == text.replace("old", "new")


def test_a_model_is_the_same_in_earlier_and_later_results() -> None:
    earlier = {"model": {"kind": "a.Net", "sha256": "0", "mean": None, "std": None}}
    later = {"model": {"kind": "a.Net", "sha256": "0", "normalisation": None}}
    other = {"model": {"kind": "a.Net", "sha256": "1", "normalisation": None}}
    assert tables._effective(earlier, "model") == tables._effective(later, "model")
    assert tables._effective(later, "model") != tables._effective(other, "model")


# Tables whose commands have not been run for the pages yet.
UNMEASURED = {
    "nrp ablation",
    "nrp critic",
    "nrp steps",
    "nrp layers",
    "ncis ablation",
    "gad ablation",
    "services lite0",
}


def test_every_other_table_finds_its_result_file() -> None:
    assert {name for name, block in pages.BLOCKS.items() if block() == MISSING} == UNMEASURED
