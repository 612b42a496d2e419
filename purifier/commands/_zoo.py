"""The measured figures of the bundled purifiers, which `python -m benchmarks.tables` writes into weights/zoo.json."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def measured() -> dict[str, dict[str, Any]]:
    """Returns the figures of each bundled purifier by name; a figure that was not measured is None."""
    text = (resources.files("purifier.weights") / "zoo.json").read_text(encoding="utf-8")
    return {row["name"]: row for row in json.loads(text)["purifiers"]}
