"""What a release states agrees: version, licences and data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import purifier

ROOT = Path(__file__).resolve().parent.parent
TRAINED = sorted(
    path.parent for path in (ROOT / "weights").glob("*/config.json") if json.loads(path.read_text()).get("files")
)


def test_the_citation_has_the_version() -> None:
    assert f"\nversion: {purifier.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_the_notice_and_the_card_name_the_data_of_bundled_weights(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^datasets: \[(.+)\]$", card, re.MULTILINE)
    assert found is not None, "state the data in the card's header: datasets: [NAME, ...]"
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^{re.escape(folder.name)} .*$", notice, re.MULTILINE)
    assert all(name in line for name in found[1].split(", ")), line


def test_the_steps_of_a_release_name_files_that_exist() -> None:
    text = (ROOT / "docs" / "release.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:\.ci|purifier)/[\w.]+|[A-Z]+(?:\.\w+)?)[ `]", text)
    assert len(names) >= 5
    assert [name for name in names if not (ROOT / name).exists()] == []
