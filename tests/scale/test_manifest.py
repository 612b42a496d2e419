"""Which parts are done, by the files of the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from purifier.scale.items import Outcome
from purifier.scale.manifest import Part, Rows, done_parts
from purifier.scale.stores import Store

GOOD, BAD, MISSING = Part(["a.png"], ["a.png"]), Part(["b.png"], ["b.png"]), Part(["c.png"], ["c.png"])


@pytest.fixture
def manifest(tmp_path: Path) -> Store:
    pytest.importorskip("pyarrow", reason="needs pyarrow, of the extra scale")
    store = Store(str(tmp_path / "manifest"))
    for part, outcome in ((GOOD, Outcome("a.png", "a.png", b"x")), (BAD, Outcome("b.png", "b.png", error="broken"))):
        rows = Rows()
        rows.add(outcome)
        rows.save(part, store)
    return store


def test_parts_with_failures_are_done_unless_they_are_tried_again(manifest: Store) -> None:
    parts = [GOOD, BAD, MISSING]
    assert done_parts(manifest, parts, retry=False) == {GOOD.name, BAD.name}
    assert done_parts(manifest, parts, retry=True) == {GOOD.name}
    assert done_parts(manifest, parts, retry=False) == {GOOD.name}, "what is done again has no old rows"


def test_rows_of_a_source_that_has_changed_are_removed(manifest: Store) -> None:
    assert done_parts(manifest, [GOOD], retry=False) == {GOOD.name}
    assert [key.stem for key in manifest.keys((".parquet",))] == [GOOD.name]


def test_names_that_are_not_text_are_rows_too(manifest: Store, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    part, rows = Part(["\udcff.png"], ["\udcff.png"]), Rows()
    rows.add(Outcome("\udcff.png", "\udcff.png", b"x"))
    rows.save(part, manifest)
    assert "\\udcff.png" in pq.read_table(tmp_path / "manifest")["key"].to_pylist()
