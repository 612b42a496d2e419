"""What tests and doctests share: no network, and the warning of `wrap` already given."""

import os

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

from purifier import _wrapping


@pytest.fixture(autouse=True)
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning comes once per process; tests/test_wrapping.py looks at it in processes of its own."""
    monkeypatch.setattr(_wrapping, "_warned", True)
