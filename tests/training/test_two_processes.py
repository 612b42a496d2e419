"""Every recipe in two processes, as on two hosts: one writes, both have the same weights, often those of one process.

All trainings follow each other in one pair of processes, because starting a pair takes longer than all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from purifier import Purifier
from purifier.training import critic
from purifier.training.checkpoints import load_checkpoint
from tests.training.conftest import write_photos
from tests.training.gad.builders import class_folders
from tests.training.processes import LIMIT, start_hosts
from tests.training.states import close, gradients, same
from tests.training.test_nrp import NARROW
from tests.training.together import CLASSES, PHOTOS, fitted, settings, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_photos(folder / PHOTOS)
    class_folders(folder / CLASSES)
    return folder


@pytest.fixture(scope="module")
def outs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What the first and the second process made of every training. Both left in peace, although they share cores."""
    outs = tmp_path_factory.mktemp("two") / "first", tmp_path_factory.mktemp("two") / "second"
    for process in start_hosts("from tests.training.together import main\nmain()\n", [data, data], list(outs)):
        assert process.wait(LIMIT) == 0, "\n".join(out.with_suffix(".log").read_text()[-3000:] for out in outs)
    return outs


def networks(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(out / name / "networks.pt", weights_only=True)
    return found


def test_the_first_process_writes_and_the_second_nothing(data: Path, outs: tuple[Path, Path]) -> None:
    for name, config in settings(data).items():
        assert load_checkpoint(outs[0] / name / "checkpoint.pt")["step"] == config.steps
        (weights,) = (outs[0] / name).rglob("*.safetensors")
        assert bool(Purifier.from_pretrained(weights.parent)(torch.rand(1, 3, 20, 20)).isfinite().all())
    written = [path.name for path in outs[1].rglob("*")]
    assert "checkpoint.pt" not in written and not [name for name in written if name.endswith(".safetensors")]


def test_purifier_and_critic_are_the_same_in_both(outs: tuple[Path, Path]) -> None:
    first, second = (networks(out, "nrp") for out in outs)
    assert same(first["model"], second["model"]) and first["critic"] and same(first["critic"], second["critic"])
    assert "psr_ssp" in (outs[0] / "nrp" / "nrp-resg" / "README.md").read_text()


def test_networks_are_the_same_in_both_although_each_attacks_for_itself(outs: tuple[Path, Path]) -> None:
    first, second = (networks(out, "alloy") for out in outs)
    assert first["model"] and same(first["model"], second["model"])


@pytest.mark.parametrize("name", ["nrp-plain", "alloy-plain"])
def test_weights_and_gradients_are_those_of_one_process_if_nothing_is_random(
    name: str, data: Path, outs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(critic, "_WIDTHS", NARROW)
    torch.manual_seed(0)
    two, one = networks(outs[0], name), fitted(settings(data)[name], tmp_path).model
    assert close(dict(one.named_parameters()), two["model"])
    assert close(gradients(one), two["gradients"])


def test_a_purifier_for_one_model_is_that_of_one_process(data: Path, outs: tuple[Path, Path], tmp_path: Path) -> None:
    train(settings(data)["gad-plain"], tmp_path)
    one, two = (Purifier.from_pretrained(folder / "gad") for folder in (tmp_path, outs[0] / "gad-plain"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_a_second_training_in_the_same_processes_is_like_the_first(outs: tuple[Path, Path]) -> None:
    files = [(outs[0] / name / "ncis" / "model.safetensors").read_bytes() for name in ("ncis", "ncis-again")]
    assert files[0] == files[1]
