"""Saved cards say what was changed, and assignments that would change nothing are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from purifier import OptionError, Purifier
from purifier._cards import clean_costs, with_changes

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def card(purifier: Purifier, folder: Path) -> str:
    purifier.save_pretrained(folder)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_an_unchanged_purifier_keeps_its_card(tmp_path: Path) -> None:
    purifier = Purifier.from_pretrained("gs")
    assert card(purifier, tmp_path / "saved") == purifier.card
    assert card(Purifier.from_pretrained(tmp_path / "saved"), tmp_path / "again") == purifier.card


def test_the_card_states_changed_options_below_its_header(tmp_path: Path) -> None:
    text = card(Purifier.from_pretrained("gs", iterations=3), tmp_path)
    assert text.startswith("---\n")
    assert "\n---\n> **Changed.** It was saved with iterations=3 instead of 7. The text" in text
    assert text.endswith((Purifier.from_pretrained("gs").card or "").split("\n---\n", 1)[1])


def test_options_set_after_loading_count_too(tmp_path: Path) -> None:
    purifier = Purifier.from_pretrained("gs")
    purifier.iterations = 2
    assert "iterations=2 instead of 7" in card(purifier, tmp_path)


def test_the_card_of_a_variant_says_that_it_is_one(tmp_path: Path) -> None:
    assert "It is part of another purifier now" in card(Purifier.from_pretrained("gs").dynamic(), tmp_path)


def test_a_card_without_a_header_gets_the_note_first() -> None:
    loaded, saved = ({"method": "gs", "options": {"iterations": k}} for k in (1, 2))
    assert with_changes("# mine\n", loaded, saved).startswith("> **Changed.** It was saved with iterations=2")
    assert with_changes("# mine\n", None, saved) == "# mine\n"


def test_the_cost_on_clean_images_is_read_off_the_table_of_a_card() -> None:
    table = "| classifier | purifier | standard | blind |\n|---|---|---|---|\n"
    rows = ["net | none | 80.5 (76-84) | 0.0", "net | gs i=1 | 70.0 (66-74) | 1.0", "net | gs i=2 | 60.5 (50-70) | 2.0"]
    card = table + "".join(f"| {row} |\n" for row in [*rows, "other | gs i=1 | 9.0 (8-10) | 1.0"])
    assert clean_costs(card, "gs", 1) == {"net": 10.5}
    assert clean_costs(card, "gs", 2) == {"net": 20.0}
    assert clean_costs(card, "gs", 3) == clean_costs(card, "jpeg", None) == clean_costs("# mine\n", "gs", 1) == {}
    bundled = Purifier.from_pretrained("alloy-s")
    assert set(clean_costs(bundled.card or "", "alloy-s", bundled.iterations)) == {"resnet50", "mobilenet_v2"}


@pytest.mark.parametrize("card", sorted(WEIGHTS.glob("*/README.md")), ids=lambda card: card.parent.name)
def test_a_bundled_card_has_the_sections_of_the_template(card: Path) -> None:
    text = card.read_text(encoding="utf-8")
    sections = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert sections[:3] == ["Use", "Measured", "Who it helps, and whom not"]
    assert sections[3:] in (["How it was made", "Data and licence"], ["How it was made, data and licence"])
    assert f"\n# {card.parent.name}\n" in text


@pytest.mark.parametrize("name", ["gate_bias", "caution", "gate_floor", "filters"])
def test_an_assignment_to_an_option_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"as an argument of from_pretrained, got an assignment, which would change"):
        setattr(Purifier.from_pretrained("alloy-s"), name, 4.0)


def test_an_assignment_to_nearly_an_option_is_refused() -> None:
    purifier = Purifier.from_pretrained("gs")
    with pytest.raises(OptionError, match="got 'iteration'; did you mean 'iterations'"):
        purifier.iteration = 1
    purifier.iterations = 1
    purifier.remark = "attributes of one's own are kept"
    assert purifier.iterations == 1
