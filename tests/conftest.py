"""What every test shares: no network, seeded randomness, the warning of `wrap` already given."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from purifier import _wrapping


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning comes once per process; tests/test_wrapping.py looks at it in processes of its own."""
    monkeypatch.setattr(_wrapping, "_warned", True)


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
