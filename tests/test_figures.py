"""The figures in README, docs and cards are those of the result files, and these are of the bundled weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from purifier import Purifier
from purifier._identity import weights_sha256

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def test_texts_equal_the_results_and_no_result_is_stale() -> None:
    command = [sys.executable, "-m", "benchmarks.tables", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_shipped_ncis_is_the_best_of_the_candidates() -> None:
    result = json.loads((RESULTS / "select_ncis.json").read_text())
    best = max(result["candidates"], key=lambda name: result["candidates"][name]["score"])
    assert len(result["candidates"]) > 1
    assert result["weights"][best] == weights_sha256(Purifier.from_pretrained("ncis").method)


def test_ncis_beats_gs_by_the_margins_that_it_was_accepted_with() -> None:
    for name, margin in (("resnet50", 0.04), ("mobilenet_v2", 0.08)):
        rows = json.loads((RESULTS / f"blind_pgd_{name}.json").read_text())["rows"]
        means = {kind: [rows[f"{kind} i={i}"]["mean"] for i in range(1, 9)] for kind in ("gs", "ncis")}
        assert max(means["ncis"]) - max(means["gs"]) >= margin
