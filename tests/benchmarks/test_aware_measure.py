"""The tables of the purifier that was trained against attackers who know it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kit import ROOT
from benchmarks.recipes import aware_measure
from purifier.evaluation import Row


def row(purifier: str, attack: str, threat: str, robust: int, images: int = 1000) -> dict[str, Any]:
    settings = {} if threat == "none" else {"attack_key": attack}
    return Row(
        purifier=purifier, attack="clean" if threat == "none" else attack, threat=threat, images=images, standard=660,
        robust=robust, fooled=660 - min(robust, 660), restored=robust, settings=settings,
    ).to_dict()  # fmt: skip


def test_the_table_has_a_row_for_each_attack_and_clean_images_once() -> None:
    own = aware_measure.NAME
    first = [row("none", "", "none", 850), row(own, "", "none", 660), row(own, "AutoAttack 8/255", "aware", 280)]
    second = [row("none", "", "none", 430, 900), row(own, "", "none", 330, 900), row(own, "PGD", "aware", 300, 900)]
    worst = [row(own, "AutoAttack 8/255 + PGD", "worst-case", 270)]
    lines = aware_measure.markdown({"rows": first + worst}, {"rows": second}).splitlines()[2:]
    assert lines == [
        "| none | none | 1000 | 85.0 (83-87) | 66.0 (63-69) |",
        "| AutoAttack 8/255 | aware | 1000 | as blind | 28.0 (25-31) |",
        "| PGD | aware | 900 | as blind | 33.3 (30-36) |",
    ]
    assert aware_measure.markdown({"rows": []}) == aware_measure.in_short({"rows": []}) == "Not measured yet."
    assert "28.0 % (25-31) of 1,000 test images" in aware_measure.in_short({"rows": first})
    assert "66.0 % (63-69) are right without an attack" in aware_measure.in_short({"rows": first})


def test_every_part_has_attacks_that_know_the_purifier() -> None:
    parts = aware_measure.parts()
    assert [f"gad_aware_{name.replace('-', '_')}" for name in parts] == list(aware_measure.PARTS)
    assert all("aware" in part for part in parts.values())


def test_slices_are_added_up() -> None:
    own = aware_measure.NAME
    one, two = ([Row.from_dict(row(own, "", "none", 660, n)), Row.from_dict(row(own, "PGD", "aware", robust, n))]
                for n, robust in ((700, 100), (800, 250)))  # fmt: skip
    clean, attacked = (Row.from_dict(found) for found in aware_measure.added([one, two]))
    assert (clean.images, clean.standard, clean.threat) == (1500, 1320, "none")
    assert (attacked.images, attacked.robust, attacked.fooled) == (1500, 350, 560 + 410)
    assert attacked.settings == {"attack_key": "PGD"}


def test_a_run_writes_after_each_slice_and_each_slice_has_every_class(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picked: list[list[int]] = []

    class Images(list[int]):
        def pick(self, indices: range) -> list[int]:
            return [self[index] for index in indices]

    def slice_of(part: str, purifier: object, data: list[int], work: Path) -> dict[str, Any]:
        picked.append(data)
        rows = [row(aware_measure.NAME, "", "none", 660), row(aware_measure.NAME, "AutoAttack 8/255", "aware", 30)]
        return {"rows": rows, "settings": {}}

    monkeypatch.setattr(aware_measure, "extract_part", lambda *given: tmp_path)
    monkeypatch.setattr(aware_measure, "labelled_images", lambda *given, **options: Images(range(1000)))
    monkeypatch.setattr(aware_measure, "slice_of", slice_of)
    aware_measure.main([str(ROOT / "weights" / aware_measure.SHIPPED), "--images", "300"])
    _, found = json.loads((results / "gad_aware_auto_8.json").read_text())["rows"]
    assert (found["images"], found["robust"]) == (3000, 90)
    # Images 0 to 99 of the set have one class.
    assert [len(data) for data in picked] == [100] * 3 and all(
        {x // 100 for x in data} == set(range(10)) for data in picked
    )
