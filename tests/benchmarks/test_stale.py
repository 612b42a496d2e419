"""Results of superseded weights or of uncommitted code are found; what cannot be compared is listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stale import bundled_sha256, check_results, problems_of
from purifier import Purifier
from purifier._identity import purifier_identity

OTHER = "0" * 64
VARIANTS = {
    "nrp-resg": Purifier.from_pretrained("nrp-resg"),
    "gs i=3": Purifier.from_pretrained("gs", iterations=3),
    "ncis i=4 dynamic": Purifier.from_pretrained("ncis", iterations=4, dtype="bfloat16").dynamic(),
    "gad-cifar10-resnet20, jpeg": Purifier.chain("gad-cifar10-resnet20", "jpeg"),
    "ncis-gated": Purifier.from_pretrained("ncis").gated("alloy"),
}


def evaluated(**identities: dict[str, Any]) -> dict[str, Any]:
    return {"settings": {"purifiers": identities}}


@pytest.mark.parametrize("name", VARIANTS)
def test_bundled_weights_are_recognised_in_every_form(name: str) -> None:
    identity = purifier_identity(VARIANTS[name])
    assert problems_of(evaluated(**{name: identity})) == []
    if identity["sha256"] != bundled_sha256("gs"):
        (problem,) = problems_of({"parts": {"one": evaluated(**{name: {**identity, "sha256": OTHER}})}})
        assert problem.startswith(f"{name} has other weights than the bundled ones")


def test_a_purifier_beside_the_settings_is_compared_and_none_has_no_weights() -> None:
    result = {"purifiers": {"none": {}, "ncis i=5": {"sha256": OTHER, "dtype": "float32"}}}
    (problem,) = problems_of(result)
    assert problem.startswith("ncis i=5 has other weights")


def test_the_weights_of_a_file_are_compared_too() -> None:
    assert problems_of({"weights": {"ncis": bundled_sha256("ncis")}}) == []
    (problem,) = problems_of({"weights": {"alloy": bundled_sha256("ncis"), "reference-demo": None, "mine": OTHER}})[:1]
    assert problem.startswith("alloy has other weights")


@pytest.mark.parametrize("environment", [{"uncommitted_changes": True}, {"commit": "abc-dirty"}])
def test_a_result_of_uncommitted_code_is_found(environment: dict[str, Any]) -> None:
    assert problems_of({"environment": environment}) == [
        "measured with uncommitted changes; commit them and measure again"
    ]
    assert problems_of({"environment": {"uncommitted_changes": False, "commit": "abc"}}) == []


def test_the_stale_result_is_named_and_others_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = {"sha256": OTHER, "dtype": "float32"}
    for name, result in (
        ("bare", {"rows": []}),
        ("mine", evaluated(gad=identity)),
        ("old", {"weights": {"ncis": "1"}}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    with pytest.raises(SystemExit, match=r"old\.json: ncis has other weights"):
        check_results(tmp_path)
    assert capsys.readouterr().out.splitlines() == ["bare.json: no hash", "mine.json: not bundled: gad"]
    (tmp_path / "old.json").unlink()
    check_results(tmp_path)
