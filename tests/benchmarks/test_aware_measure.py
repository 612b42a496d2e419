"""The tables of the purifier that was trained against attackers who know it."""

from __future__ import annotations

from typing import Any

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
