"""What benchmarks/blind_pgd.py takes for the same purifier."""

from __future__ import annotations

import blind_pgd

from purifier.methods import describe
from purifier.methods.alloy import Alloy


def test_rows_are_outdated_by_other_weights_and_options_and_not_by_options_that_are_new() -> None:
    options = describe(Alloy(filters=4, blocks=1))
    stored = {"weights": {"alloy": "1"}, "options": {"alloy": options}}
    assert not blind_pgd.outdated({"weights": {}}, "alloy", "1", options)
    assert not blind_pgd.outdated(stored, "alloy", "1", options)
    assert blind_pgd.outdated(stored, "alloy", "2", options)
    assert blind_pgd.outdated(stored, "alloy", "1", describe(Alloy(filters=4, blocks=1, blur=1)))
    del options["options"]["levels"]
    assert not blind_pgd.outdated(stored, "alloy", "1", describe(Alloy(filters=4, blocks=1)))
    assert blind_pgd.outdated(stored, "alloy", "1", describe(Alloy(filters=4, blocks=1, levels=2)))
