"""The figures in README and cards equal those of the result files."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from purifier import Purifier

ROOT = Path(__file__).resolve().parent.parent


def test_readme_and_cards_have_the_figures_of_the_results() -> None:
    command = [sys.executable, "-m", "benchmarks.tables", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def _shipped(name: str) -> str:
    weights = Purifier.from_pretrained(name).method.state_dict()
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights.values())).hexdigest()


@pytest.mark.parametrize("name", ["alloy", "alloy-s", "ncis"])
def test_the_shipped_weights_are_the_measured_ones(name: str) -> None:
    for path in (ROOT / "benchmarks" / "results").glob("blind_pgd_*.json"):
        assert json.loads(path.read_text())["weights"][name] == _shipped(name)


def test_half_precision_was_measured_with_the_shipped_weights() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "half_precision.json").read_text())["weights"]
    assert measured == {name: _shipped(name) for name in ("gs", "ncis", "nrp-resg", "alloy", "alloy-s")}


def test_the_shipped_nrp_resg_is_the_measured_one() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "nrp_acceptance.json").read_text())
    shipped = json.loads((ROOT / "weights" / "nrp-resg" / "config.json").read_text())
    assert measured["settings"]["weights"]["nrp-resg"] == shipped["files"] != {}


def test_the_shipped_gad_is_the_measured_one() -> None:
    shipped = json.loads((ROOT / "weights" / "gad-cifar10-resnet20" / "config.json").read_text())
    for part in ("blind", "aware", "bpda"):
        measured = json.loads((ROOT / "benchmarks" / "results" / f"gad_cifar10_resnet20_{part}.json").read_text())
        assert measured["weights"] == shipped["files"] != {}


def test_the_shipped_ncis_is_the_best_of_the_candidates() -> None:
    candidates = json.loads((ROOT / "benchmarks" / "results" / "select_ncis.json").read_text())["candidates"]
    assert len(candidates) > 1
    assert max(candidates, key=lambda key: candidates[key]["score"]) == _shipped("ncis")


def test_ncis_beats_gs_by_its_margins_of_acceptance() -> None:
    for name, margin in (("resnet50", 0.04), ("mobilenet_v2", 0.08)):
        rows = json.loads((ROOT / "benchmarks" / "results" / f"blind_pgd_{name}.json").read_text())["rows"]
        means = {
            kind: [row["mean"] for key, row in rows.items() if key.startswith(f"{kind} i=")] for kind in ("gs", "ncis")
        }
        assert {f"{kind} i={i}" for kind in ("gs", "ncis") for i in range(1, 9)} <= rows.keys()
        assert max(means["ncis"]) - max(means["gs"]) >= margin
