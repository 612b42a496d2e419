"""What benchmarks/accuracy/blind_pgd.py takes for the same purifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import blind_pgd
from purifier import Purifier
from purifier.methods import describe
from purifier.methods.alloy import Alloy


def test_rows_are_outdated_by_other_weights_and_options_and_not_by_options_that_are_new(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def renewed(result: dict[str, Any], method: Alloy) -> bool:
        return blind_pgd.renewed(result, "mine", Purifier(method, name="mine"), Path("folder/rows.json"))

    result: dict[str, Any] = {"weights": {}}
    method = Alloy(filters=4, blocks=1)
    assert not renewed(result, method) and not renewed(result, method)
    assert result["options"] == {"mine": describe(method)}
    del result["options"]["mine"]["options"]["levels"]
    assert not renewed(result, method)
    assert capsys.readouterr().out == ""

    blurred = Alloy(filters=4, blocks=1, blur=1)
    blurred.load_state_dict(method.state_dict())
    for other in (blurred, Alloy(filters=4, blocks=1, blur=1), Alloy(filters=4, blocks=1, levels=2)):
        assert renewed(result, other)
        assert capsys.readouterr().out.startswith("mine: other options or weights than those of rows.json")
        assert not renewed(result, other)
