"""Records: resuming after a kill, and refused files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from purifier import InputError, OptionError
from purifier._records import Records, read_records

SETTINGS = {"attack": {"name": "PGD", "steps": 10, "shape": (1, 2)}, "seed": 0}


def record(index: int) -> dict[str, int]:
    return {"index": index, "prediction": index * 2}


def test_added_records_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "cell.jsonl"
    Records(path, SETTINGS).add([record(0), record(1)])
    again = Records(path, SETTINGS)
    assert again.by_index == {0: record(0), 1: record(1)} == read_records(path)
    again.add([record(1), record(2)])
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_an_incomplete_line_is_dropped_and_written_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cell.jsonl"
    Records(path, SETTINGS).add([record(0), record(1)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert list(read_records(path)) == [0]
    again = Records(path, SETTINGS)
    assert list(again.by_index) == [0]
    again.add([record(1)])
    assert path.read_bytes() == whole


def test_a_file_with_an_incomplete_first_line_is_started_again(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    path.write_text('{"settings": {"se')
    Records(path, SETTINGS).add([record(0)])
    assert Records(path, SETTINGS).by_index == {0: record(0)}


def test_results_of_other_settings_are_refused_with_the_differences(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    Records(path, SETTINGS)
    other = {"attack": {"name": "PGD", "steps": 20, "shape": (1, 2)}, "seed": 0, "size": 3}
    text = r"got other settings \(attack.steps: 10 there, 20 here; size: nothing there, 3 here\); choose another"
    with pytest.raises(OptionError, match=text):
        Records(path, other)


@pytest.mark.parametrize("line", ["no json", '{"other": 1}', json.dumps([1])])
def test_a_file_of_something_else_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cell.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match="expected lines of JSON"):
        Records(path, SETTINGS)
