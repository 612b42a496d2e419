"""The zoo is current, and states what was measured and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import tables, zoo
from purifier import _hub

HINT = "run python -m benchmarks.tables"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return zoo.rows()


@pytest.mark.slow
def test_the_zoo_of_the_package_is_current(rows: list[dict[str, Any]]) -> None:
    assert json.loads(zoo.JSON.read_text()) == {"purifiers": rows}, HINT


@pytest.mark.slow
@pytest.mark.parametrize("page", ["zoo.md", "threats.md"])
def test_a_page_with_the_figures_of_the_zoo_is_current(
    page: str, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "rows", lambda: rows)
    text = (tables.ROOT / "docs" / page).read_text()
    assert tables.render(text) == text, HINT


@pytest.mark.slow
def test_every_bundled_purifier_has_a_row_and_no_cell_is_blank(
    rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [row["name"] for row in rows] == _hub.list_purifiers(trained=False)
    monkeypatch.setattr(zoo, "rows", lambda: rows)
    lines = [line for model in zoo.TABLES for line in zoo.markdown(model).splitlines()[2:]]
    assert len(lines) == len(rows)
    for line in lines:
        assert all(cell.strip() for cell in line.strip("|").split("|")), line


def test_a_purifier_without_results_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert zoo.resnet50("a purifier that nobody measured") == {}
    row = {"name": "new", "method": "new", "parameters": 0, "gmac": None, "resnet50s": None, "model": "resnet50"}
    row |= dict.fromkeys(["clean", "blind", "transfer", "aware", "certified"])
    monkeypatch.setattr(zoo, "rows", lambda: [row | {"license": "apache-2.0", "datasets": []}])
    assert zoo.markdown("resnet50").splitlines()[-1].count("not measured") == 6


def test_a_figure_of_other_images_states_how_many() -> None:
    known = zoo.figure(0.5, [0.25, 0.75], 20, None)
    assert zoo._cell(known, 20) == "50.0 (25-75)"
    assert zoo._cell(known, 400) == "50.0 (25-75), n=20"


@pytest.mark.parametrize("name", ["jpeg", "bit-depth", "median", "tvm", "resize-pad", "gs", "ncis", "alloy-s"])
def test_a_card_has_the_aware_figure_of_the_zoo(name: str) -> None:
    known = zoo.resnet50(name)["aware"]
    lines = [line for line in zoo.tables.of_purifier(name).splitlines() if line.startswith(f"| resnet50 | {name}")]
    assert any(zoo._cell(known, None) in line for line in lines)
