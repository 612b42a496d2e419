"""purifier list: the table and the JSON."""

from __future__ import annotations

import json

from click.testing import CliRunner

import purifier
from purifier import _hub
from purifier.cli import command


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(command, ["list", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_list_has_a_row_for_every_bundled_purifier() -> None:
    rows = [line.split() for line in invoke().split("\n\n")[0].splitlines()[1:]]
    assert [row[0] for row in rows] == _hub.list_purifiers(trained=False)


def test_list_counts_parameters_and_marks_purifiers_without_weights() -> None:
    lines = {line.split()[0]: line for line in invoke().splitlines() if line}
    assert "16,550,275" in lines["nrp"]
    assert "1,702,211" in lines["nrp-resg"]
    untrained = set(_hub.list_purifiers(trained=False)) - set(purifier.list_purifiers())
    assert {name for name, line in lines.items() if "no weights yet: purifier convert | train" in line} == untrained


def test_list_as_json_has_the_options_of_the_configurations() -> None:
    rows = json.loads(invoke("--json"))
    assert [row["name"] for row in rows] == _hub.list_purifiers(trained=False)
    for row in rows:
        assert set(row) == {"name", "method", "parameters", "trained", "stand_in", "options", "description", "measured"}
        assert row["options"] == _hub.bundled_config(row["name"])["options"]
        assert (row["trained"] or row["stand_in"] is not None) == (row["name"] in purifier.list_purifiers())
        assert row["description"]


def test_list_has_the_costs_that_were_measured() -> None:
    lines = {line.split()[0]: line.split() for line in invoke().splitlines() if line}
    for row in json.loads(invoke("--json")):
        time = row["measured"]["resnet50s"]
        assert lines[row["name"]][3] == ("-" if time is None else f"{time:.2f}")


def test_no_two_purifiers_have_one_description() -> None:
    rows = json.loads(invoke("--json"))
    assert len({row["description"] for row in rows}) == len(rows)


def test_list_as_json_has_the_measured_figures() -> None:
    figures = {row["name"]: row["measured"] for row in json.loads(invoke("--json"))}
    assert figures["alloy-s"]["parameters"] == 6_691_309
    for name, row in figures.items():
        # Nothing is left out: what was not measured is null.
        assert {"gmac", "resnet50s", "clean", "blind", "transfer", "aware", "certified"} < set(row), name
        for threat in ("clean", "blind", "transfer", "aware"):
            figure = row[threat]
            assert figure is None or (0 <= figure["accuracy"] <= 1 and figure["images"] > 0), (name, threat)
