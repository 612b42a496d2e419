"""The scripts that attack, purify and count, on a small kit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.accuracy import alloy_gate, blind_pgd, detail, half_precision, honest_tables, nrp_acceptance
from benchmarks.kit import classified, model
from benchmarks.stale import bundled_sha256
from purifier import Purifier
from purifier.attacks import PGD
from purifier.methods.alloy import Alloy
from tests.benchmarks.conftest import LABELS


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    script.main()


def read(results: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / f"{name}.json").read_text())
    return found


def accuracy(purifier: Purifier | None = None) -> float:
    """Accuracy of the small ResNet-50 on clean images."""
    images, labels = classified(len(LABELS)).load(range(len(LABELS)))
    with torch.no_grad():
        shown = images if purifier is None else purifier(images)
        return (model("resnet50")(shown).argmax(1) == labels).float().mean().item()


@pytest.mark.slow
def test_purifiers_that_are_measured_alone_replace_their_rows(
    small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blind_pgd, "ITERATED", {"gs": 2, "alloy-s": 1})
    monkeypatch.setattr(blind_pgd, "BASELINES", ("bit-depth",))
    counts = ("--models", "resnet50", "--images", 4, "--aware-images", 2)
    run(blind_pgd, monkeypatch, *counts)
    first = read(results, "blind_pgd_resnet50")
    assert list(first["rows"]) == ["none", "bit-depth", "gs i=1", "gs i=2", "alloy-s i=1"]
    assert first["rows"]["none"]["standard"] == accuracy() == 1 and first["rows"]["none"]["robust"] < 1
    assert first["weights"] == {"gs": bundled_sha256("gs"), "alloy-s": bundled_sha256("alloy-s")}
    best = max(("gs i=1", "gs i=2"), key=lambda row: first["rows"][row]["mean"])
    assert first["rows"][best]["aware"]["images"] == 2

    free = Purifier(Alloy(iterations=1, patch=1, filters=4, blocks=1), name="free")
    free.save_pretrained(results / "free")
    run(blind_pgd, monkeypatch, *counts, "--purifiers", f"alloy-s={results / 'free'}")
    second = read(results, "blind_pgd_resnet50")
    assert second["rows"].keys() == first["rows"].keys() and second["rows"]["gs i=1"] == first["rows"]["gs i=1"]
    assert second["weights"]["alloy-s"] != first["weights"]["alloy-s"]
    assert second["rows"]["alloy-s i=1"]["standard"] == accuracy(free)


def test_results_of_other_settings_are_not_mixed(
    small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script, name in ((half_precision, "half_precision"), (blind_pgd, "blind_pgd_resnet50")):
        (results / f"{name}.json").write_text(json.dumps({"settings": {"eps": 1}}))
        with pytest.raises(SystemExit, match=rf"expected {name}.json of .*; choose another --name"):
            run(script, monkeypatch, "--models", "resnet50", "--images", 4)


def test_only_iterated_purifiers_are_measured_at_numbers_of_iterations() -> None:
    with pytest.raises(SystemExit, match="expected --purifiers of gs, ncis, alloy, alloy-s, got jpeg"):
        blind_pgd.iterated(["jpeg"], "float32")


def test_both_dtypes_are_measured_on_the_same_images(
    small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = ("--images", 4, "--models", "resnet50", "mobilenet_v2")
    run(half_precision, monkeypatch, *counts, "--purifiers", "gs")
    run(half_precision, monkeypatch, *counts, "--purifiers", "bit-depth", "gs")
    result = read(results, "half_precision")
    rows = {(row["purifier"], row["classifier"]): row for row in result["rows"]}
    assert sorted(rows) == [(p, c) for p in ("bit-depth", "gs") for c in ("mobilenet_v2", "resnet50")]
    for dtype in ("float32", "bfloat16"):
        purifier = Purifier.from_pretrained("gs", dtype=dtype)
        assert rows["gs", "resnet50"][dtype]["standard"] == accuracy(purifier)
        assert rows["gs", "resnet50"][dtype]["images"] == 4
    assert result["weights"].keys() == {"gs", "bit-depth"}
    assert "| resnet50 | gs |" in capsys.readouterr().out


@pytest.mark.slow
def test_nrp_is_compared_under_its_own_and_transferred_attacks(
    small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(nrp_acceptance, monkeypatch, "--images", 2, "--purifiers", "gs", "jpeg")
    result = read(results, "nrp_acceptance")
    assert list(result["rows"]) == ["resnet50", "mobilenet_v2"] and result["targets"] == []
    for classifier, other in (("resnet50", "mobilenet_v2"), ("mobilenet_v2", "resnet50")):
        rows = result["rows"][classifier]
        assert list(rows) == ["none", "gs i=5", "jpeg"]
        heads = ["standard", "SSP 16/255", *nrp_acceptance.WHITE_BOX]
        assert list(rows["none"]) == [*heads, f"MI-FGSM 16/255 from {other}", f"DIM 16/255 from {other}"]
    assert result["rows"]["resnet50"]["none"]["standard"]["accuracy"] == 1
    assert result["rows"]["resnet50"]["none"]["PGD Linf 16/255"]["accuracy"] == 0
    assert "resnet50, n = 2." in capsys.readouterr().out


def test_nrp_is_held_to_its_targets() -> None:
    def row(standard: float, ssp: float, l2: float) -> dict[str, dict[str, Any]]:
        cells = {"standard": standard, "SSP 16/255": ssp, **dict.fromkeys(nrp_acceptance.L2, l2), "DIM from b": 0.5}
        return {head: {"accuracy": value} for head, value in cells.items()}

    rows = {"none": row(0.9, 0.1, 0.1), "jpeg": row(0.9, 0.2, 0.3), "nrp-resg": row(0.8, 0.7, 0.4)}
    found = {target["target"]: target for target in nrp_acceptance.targets(rows, "resnet50")}
    assert not found["standard accuracy lost, at most"]["holds"]
    assert found["standard accuracy lost, at most"]["measured"] == pytest.approx(10)
    assert found["SSP, at least"]["holds"] and found["PGD L2 5, gained over no defence, at least"]["holds"]
    assert found["PGD L2 5, above the best classical baseline"]["holds"]
    assert not found["DIM from b, above the best classical baseline"]["holds"]


def half_open() -> Alloy:
    """An alloy whose gate is 0.5 everywhere."""
    method = Alloy(iterations=1, patch=1, filters=4, blocks=1, gate=2)
    assert method.gate is not None
    for parameter in method.gate.layers[-1].parameters():
        nn.init.zeros_(parameter)
    return method


def test_a_half_open_gate_halves_every_change(
    small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, few = Purifier(half_open(), name="one"), {"PGD Linf 8/255": PGD(eps=8 / 255, alpha=4 / 255, steps=2)}
    one.save_pretrained(results / "one")
    monkeypatch.setattr(alloy_gate, "attacks", lambda: few)
    monkeypatch.setattr(alloy_gate, "OTHERS", {"gs i=5": ("gs", {"iterations": 5})})
    counts = ("--images", 4, "--few", 2, "--held-out", 1)
    run(alloy_gate, monkeypatch, "--purifier", f"one={results / 'one'}", *counts)
    found = read(results, "alloy_gate")
    rows = {(row["classifier"], row["purifier"], row["gate"]): row for row in found["accuracy"]}
    assert {key[:2] for key in rows} == {(c, p) for c in alloy_gate.CLASSIFIERS for p in ("gs i=5", "one")}
    gs = Purifier.from_pretrained("gs", iterations=5)
    assert rows["resnet50", "gs i=5", False]["standard"] == accuracy(gs)
    assert rows["resnet50", "gs i=5", True]["standard"] == accuracy(gs.gated(one))
    assert all(row["mean"] == row["least"] == row["most"] == pytest.approx(0.5) for row in found["gate"].values())
    assert found["gate"]["PGD Linf 8/255"]["attack"] and not found["gate"]["JPEG, quality 50"]["attack"]
    shares = found["gate_biases"]["shares"]
    assert shares.keys() == {*map(str, alloy_gate.BIASES), alloy_gate.NO_GATE}
    assert all(row.keys() == {"clean", "PGD Linf 8/255"} for row in shares.values())
    assert "| PGD Linf 8/255 | yes | 0.50 | 0.50 to 0.50 |" in capsys.readouterr().out


def test_an_alloy_without_a_gate_is_refused() -> None:
    with pytest.raises(SystemExit, match="expected an alloy with a gate, got free"):
        alloy_gate.gate_of(Purifier(Alloy(patch=1, filters=4, blocks=1), name="free"))


def test_a_constant_is_coarse_and_a_checkerboard_the_finest_detail() -> None:
    board = (torch.arange(24)[:, None] + torch.arange(24)) % 2 * 2.0 - 1
    flat, fine = (
        detail.bands(difference.expand(2, 3, 24, 24) / 255) for difference in (torch.full((24, 24), 3.0), board)
    )
    assert flat["coarse"] == pytest.approx(3.0, abs=1e-3) and max(flat[name] for name in detail.BANDS) < 1e-3
    assert fine["finest"] == pytest.approx(1.0, abs=0.05) and fine["coarse"] < 1e-3


def test_detail_is_measured_for_every_purifier_under_every_attack(
    small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(detail, monkeypatch, "--images", 1, "--purifiers", "gs")
    found = read(results, "detail")
    attacks = ("none", "PGD Linf 16/255", "SSP 16/255")
    assert [(row["purifier"], row["attack"]) for row in found["rows"]] == [
        ("the images themselves", "none"),
        *(("none", attack) for attack in attacks[1:]),
        *(("gs", attack) for attack in attacks),
    ]
    # The attacks move no pixel by more than 16/255, and the noise of the picture is finest detail that gs removes.
    assert found["rows"][1]["finest"] <= 16 and found["rows"][3]["finest"] > found["rows"][3]["coarse"]
    assert found["weights"] == {"gs": bundled_sha256("gs")}
    assert "| gs | SSP 16/255 |" in capsys.readouterr().out


def test_an_alloy_is_measured_without_its_gate() -> None:
    assert detail.purifier("alloy-s").method.options["gate_bias"] == 20.0


def test_an_attackers_own_purifier_stands_in_front_of_either_classifier(small_kit: Path) -> None:
    images, labels = classified(2).load(range(2))
    threats = honest_tables.surrogates("resnet50", "cpu")
    assert list(threats) == ["through alloy-s and resnet50", "through alloy-s and mobilenet_v2"]
    with torch.no_grad():
        purified = Purifier.from_pretrained("alloy-s")(images)
    for threat, name in zip(threats.values(), ("resnet50", "mobilenet_v2"), strict=True):
        with torch.no_grad():
            expected = model(name)(purified)

        def attack(attacked: nn.Module, x: Tensor, targets: Tensor, expected: Tensor = expected) -> Tensor:
            x = x.clone().requires_grad_()
            logits = attacked(x)
            torch.testing.assert_close(logits, expected)
            (gradient,) = torch.autograd.grad(logits.sum(), x)
            return gradient

        assert bool(threat(attack, None, images, labels).abs().sum() > 0)
        assert threat.settings()["surrogates"] == [f"alloy-s + {name}"]


def test_what_is_measured_alone_takes_images_and_batches_of_its_table(
    small_kit: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(honest_tables, monkeypatch, "resnet50", "dynamic", "--images", 2, "--batch-size", 1, "--purifiers", "gs")
    (results / "honest_resnet50_dynamic+gs.json").rename(results / "honest_resnet50_dynamic.json")
    run(honest_tables, monkeypatch, "resnet50", "dynamic", "--purifiers", "gs")
    joined = read(results, "honest_resnet50_dynamic+gs")
    assert joined["settings"] == read(results, "honest_resnet50_dynamic")["settings"]
    assert (joined["settings"]["images"], joined["settings"]["batch_size"]) == (2, 1)
    assert {row["purifier"] for row in joined["rows"]} == {"none", "gs dynamic"}


def test_a_part_that_a_model_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(honest_tables, monkeypatch, "yolox_nano", "square")
    assert "expected a part out of blind, aware, got square" in capsys.readouterr().err
