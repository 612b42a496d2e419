"""Records: resuming after a kill, and refused files."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from purifier import InputError, OptionError, OutputError
from purifier._records import Records, differences, read_records

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


def test_a_later_option_at_its_default_is_the_same_as_none() -> None:
    old = {"purifier": {"links": [{"options": {"gate": 4}}]}, "seed": 0}
    new = {"purifier": {"links": [{"options": {"gate": 4, "gate_threshold": 0.0}}]}, "seed": 0}
    assert differences(old, new) == differences(new, old) == ""
    new["purifier"]["links"][0]["options"]["gate_threshold"] = 0.25  # type: ignore[index]
    assert "0.25" in differences(old, new)


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


def test_of_two_runs_with_other_settings_in_a_new_folder_exactly_one_succeeds(tmp_path: Path) -> None:
    def start(path: Path, seed: int) -> bool:
        try:
            Records(path, {**SETTINGS, "seed": seed}).add([record(seed)])
        except OptionError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for race in range(20):
            path = tmp_path / str(race) / "cell.jsonl"
            done = list(pool.map(start, [path] * 8, range(8)))
            assert sum(done) == 1
            assert json.loads(path.read_text().splitlines()[0])["settings"]["seed"] == done.index(True)


def test_runs_with_equal_settings_share_a_file_and_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cell.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: Records(path, SETTINGS).add([record(index)]), range(40)))
    assert sorted(Records(path, SETTINGS).by_index) == list(range(40))


@pytest.mark.parametrize("text", ["[" * 100_000 + "\n", '{"settings": 3}\n', '{"settings": {}}\n{"index": []}\n'])
def test_a_damaged_file_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cell.jsonl"
    path.write_text(text)
    with pytest.raises((InputError, OptionError)):
        Records(path, SETTINGS)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="expected a place that can be written"):
        Records(tmp_path / "file" / "cell.jsonl", SETTINGS)
