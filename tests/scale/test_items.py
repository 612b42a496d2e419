"""Pictures as bytes: the outcomes are what the one-machine command writes."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

from purifier import InputError, Purifier
from purifier.data.outputs import plan
from purifier.scale.items import Item, Purifying, _Contents, format_ending
from tests.scale.pictures import contents, encoded, folder, made_here


def items(source: Path, target: Path) -> list[Item]:
    return [
        Item(str(job.source.relative_to(source)), str(job.target.relative_to(target)), job.source.read_bytes)
        for job in plan(source, target)
    ]


def test_outcomes_are_the_files_of_the_one_machine_command(tmp_path: Path) -> None:
    source, purifier = folder(tmp_path / "in", 13), Purifier.from_pretrained("gs")
    expected = made_here(source, tmp_path / "out", purifier, 2)
    found = list(Purifying(purifier, 2).outcomes(items(source, tmp_path / "out")))
    assert {outcome.target: outcome.data for outcome in found if outcome.error is None} == expected
    (failed,) = [outcome for outcome in found if outcome.error is not None]
    assert failed.key == "damaged.png" and "cannot be read" in str(failed.error) and failed.digest is None
    assert len(expected) == 13 == len(contents(tmp_path / "out"))


def test_outcomes_have_the_score_of_the_gate_and_a_digest() -> None:
    purifier, content = Purifier.from_pretrained("alloy-s"), encoded(3, size=(24, 24))
    (outcome,) = Purifying(purifier).outcomes([Item("a.png", "a.png", lambda: content)])
    assert outcome.data is not None and outcome.digest == hashlib.sha256(outcome.data).hexdigest()
    assert outcome.attack_score is not None and 0 <= outcome.attack_score <= 1 and outcome.seconds > 0


def test_contents_beyond_the_limit_of_memory_are_read_when_they_are_needed(monkeypatch: object) -> None:
    reads: list[str] = []

    def read(name: str) -> bytes:
        reads.append(name)
        return b"x" * 100

    some = [Item(f"{number}", f"{number}.png", partial(read, f"{number}")) for number in range(40)]
    monkeypatch.setattr("purifier.scale.items._HELD", 150)  # type: ignore[attr-defined]
    held = _Contents(some)
    assert len(reads) == 16
    assert held.look(some[0]) == held.take(some[0]) == held.take(some[0])
    assert held.look(some[39]) == b"x" * 100
    assert reads.count("0") == 2 and reads.count("39") == 1


def test_what_cannot_be_fetched_is_a_failed_outcome() -> None:
    def read() -> bytes:
        raise InputError("expected a service that answers, got none")

    (outcome,) = Purifying(Purifier.from_pretrained("gs")).outcomes([Item("a", "a.png", read)])
    assert outcome.error == "expected a service that answers, got none" and outcome.data is None


def test_formats_are_told_by_the_content() -> None:
    assert format_ending(encoded(0, "JPEG")) == ".jpg"
    assert format_ending(encoded(0, "WEBP")) == ".webp"
    assert format_ending(b"no picture") == ".png"
