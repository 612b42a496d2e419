"""A training on two hosts with file systems of their own: one writes, a lost one ends it, and it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from purifier import Purifier
from purifier.training.checkpoints import load_checkpoint
from purifier.training.ncis import NCISTraining, train
from tests.training.processes import LIMIT, start_hosts

TINY: dict[str, Any] = {
    "steps": 8, "batch_size": 2, "crop_size": 24, "filters": 4, "layers": 3, "precision": "no", "device": "cpu",
    "checkpoint_every": 3, "validate_every": 6, "validation_every": 4, "validation_images": 2,
}  # fmt: skip
SCRIPT = """
import os, sys, time
from pathlib import Path
from purifier import PurifierError
from purifier.training.loop import _Training
from purifier.training.ncis import NCISTraining, train
advance = _Training._advance
def slowly(self, parts):
    time.sleep(float(sys.argv[3]))
    return advance(self, parts)
_Training._advance = slowly
Path(sys.argv[2] + ".pid").write_text(str(os.getpid()))
try:
    train(NCISTraining(data=(sys.argv[1],), **%r), sys.argv[2])
except PurifierError as error:
    sys.exit(f"error: {error}")
"""

pytestmark = pytest.mark.slow


def wait(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    return [process.wait(LIMIT) for process in processes]


def test_one_host_writes_and_a_lost_one_ends_the_training_which_goes_on(photos: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "first", tmp_path / "second"]
    hosts = start_hosts(SCRIPT % TINY, [photos] * 2, outs, pause=0.5)
    deadline = time.monotonic() + LIMIT
    while not (outs[0] / "checkpoint.pt").exists():
        assert time.monotonic() < deadline and all(host.poll() is None for host in hosts), log(outs[0])
        time.sleep(0.05)
    os.kill(int(outs[1].with_suffix(".pid").read_text()), signal.SIGKILL)
    assert all(wait(hosts)) and "expected all 2 processes to train on" in log(outs[0])
    halfway = load_checkpoint(outs[0] / "checkpoint.pt")
    assert halfway is not None and 0 < halfway["step"] < TINY["steps"]
    assert wait(start_hosts(SCRIPT % TINY, [photos] * 2, outs, launcher="torchrun")) == [0, 0], log(outs[0])
    assert not list(outs[1].rglob("*.pt")) and not list(outs[1].rglob("*.safetensors"))
    train(NCISTraining(data=(str(photos),), **TINY), tmp_path / "one")
    one, two = (Purifier.from_pretrained(tmp_path / name / "ncis") for name in ("one", "first"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_hosts_that_are_not_alike_are_refused_under_accelerate_too(photos: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in sorted(photos.iterdir())[1:]:
        (fewer / path.name).write_bytes(path.read_bytes())
    outs = [tmp_path / "first", tmp_path / "second"]
    assert all(wait(start_hosts(SCRIPT % TINY, [photos, fewer], outs, launcher="accelerate")))
    assert all("expected the same settings and images in all processes, got images" in log(out) for out in outs)


def log(out: Path) -> str:
    return out.with_suffix(".log").read_text()
