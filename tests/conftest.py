"""What every test shares: seeded randomness, the kit, the devices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# The tests are small: more threads would only wait for one another, very long where other work shares the cores. The
# variable is for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def kit() -> Path:
    """Folder of pictures to measure on."""
    if "PURIFIER_KIT" not in os.environ:
        pytest.skip("PURIFIER_KIT is not set: needs the project's measuring kit")
    return Path(os.environ["PURIFIER_KIT"])


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return str(request.param)
