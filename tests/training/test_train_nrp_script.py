"""benchmarks/recipes/train_nrp.py: every preset trains, at small size and on the CPU, and can be exported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from purifier import Purifier

ROOT = Path(__file__).parents[2]
SMALL = {
    "device": "cpu",
    "precision": "no",
    "compile": "false",
    "workers": 0,
    "filters": 4,
    "growth": 2,
    "blocks": 2,
    "crop_size": 32,
    "batch_size": 2,
    "steps": 2,
    "critic_from": 1,
    "attack_steps": 1,
    "validation_every": 2,
    "validation_images": 1,
}
LOADER = """
import torch
def vgg19_features(layers):
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Path:
    """A folder with the places that the script reads, and nothing of weight in them."""
    folder = tmp_path_factory.mktemp("kit")
    (folder / "kit_models.py").write_text(LOADER)
    random = np.random.default_rng(0)
    for number, place in enumerate(["photos", "photos", "objects/train/cat", "objects/test/cat"]):
        (folder / place).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / place / f"{number}.png")
    return folder


def train(kit: Path, out: Path, preset: str, *arguments: str, **changes: object) -> subprocess.CompletedProcess:
    sets = [text for key, value in {**SMALL, **changes}.items() for text in ("--set", f"{key}={value}")]
    environment = {**os.environ, "PURIFIER_KIT": str(kit), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.recipes.train_nrp", preset, "--out", str(out), *sets, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_the_presets_train_one_from_the_other_and_export_half_precision(kit: Path, tmp_path: Path) -> None:
    shallow = train(kit, tmp_path, "resg-cpu-shallow", blocks=1)
    assert shallow.returncode == 0, shallow.stderr
    start = str(tmp_path / "resg-cpu-shallow" / "nrp-resg")
    grown = train(kit, tmp_path, "resg-cpu", "--init", start, "--export", str(tmp_path / "weights"))
    assert grown.returncode == 0, grown.stderr
    full, half = (Purifier.from_pretrained(tmp_path / name) for name in ("resg-cpu/nrp-resg", "weights"))
    assert full.method.blocks == half.method.blocks == 2
    for a, b in zip(full.parameters(), half.parameters(), strict=True):
        assert a.half().float().equal(b)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "name"), [("resg-gpu", "nrp-resg"), ("nrp-gpu", "nrp")])
def test_the_presets_for_gpus_train_with_the_critic(preset: str, name: str, kit: Path, tmp_path: Path) -> None:
    done = train(kit, tmp_path, preset)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / preset / name / "config.json").read_text())["method"] == name
    assert "critic_from: 1" in (tmp_path / preset / name / "README.md").read_text()


def test_an_unknown_setting_is_refused(kit: Path, tmp_path: Path) -> None:
    done = train(kit, tmp_path, "resg-cpu", blok=3)
    assert done.returncode == 1 and "got 'blok=3'" in done.stderr
