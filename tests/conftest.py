"""Fixtures of all tests: seeded randomness, folders, the kit, the devices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.builders import small_purifier

# More threads would only slow down these small tests. The variable is for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def ncis_folder(tmp_path: Path) -> Path:
    """A folder with trained weights."""
    small_purifier("ncis").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def kit() -> Path:
    """Folder of the images and models for measurements."""
    if "PURIFIER_KIT" not in os.environ:
        pytest.skip("PURIFIER_KIT is not set; this test needs the kit")
    return Path(os.environ["PURIFIER_KIT"])


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return str(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips tests marked `fuzz`, unless they are asked for with -m."""
    if "fuzz" not in str(config.getoption("-m")):
        for item in items:
            if item.get_closest_marker("fuzz"):
                item.add_marker(pytest.mark.skip(reason="takes minutes; run it with -m fuzz"))
