"""Finds results of superseded weights, or of code that was never committed.

A result names the weights it was measured with as the SHA-256 of `purifier._identity.weights_sha256`: for each purifier
in settings.purifiers, as an evaluation writes it, in "purifiers", or in "weights".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from purifier import Purifier, list_purifiers, reference_model
from purifier._hub import is_trained
from purifier._identity import weights_sha256

_REFERENCE = "reference-"
# How a purifier is made of a bundled one, by the end of its name in a result.
_VARIANTS: dict[str, Callable[[Purifier], Purifier]] = {
    " dynamic": lambda purifier: purifier.dynamic(),
    ", jpeg": lambda purifier: Purifier.chain(purifier, "jpeg"),
    "-gated": lambda purifier: purifier.gated("alloy"),
}


def check_results(folder: Path) -> None:
    """Prints the results whose weights cannot be compared.

    Raises:
        SystemExit: If a result is of other weights than the bundled ones, or of uncommitted code.
    """
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        weights = list(recorded(result))
        problems += [f"{path.name}: {text}" for text in problems_of(result)]
        unknown = sorted({name for name, _, dtype in weights if bundled_sha256(name, dtype) is None})
        if unknown:
            print(f"{path.name}: not bundled: {'; '.join(unknown)}")
        elif not weights:
            print(f"{path.name}: no hash")
    if problems:
        raise SystemExit("expected results of the bundled weights and of committed code, got\n" + "\n".join(problems))


def problems_of(result: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with a result; nothing is said of purifiers that are not bundled."""
    found = [
        f"{name} has other weights than the bundled ones; measure it again or remove its rows"
        for name, sha256, dtype in recorded(result)
        if bundled_sha256(name, dtype) not in (None, sha256)
    ]
    environment = result.get("environment", {})
    if environment.get("uncommitted_changes") or str(environment.get("commit")).endswith("-dirty"):
        found.append("measured with uncommitted changes; commit them and measure again")
    return list(dict.fromkeys(found))


def recorded(result: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields name, SHA-256 and dtype of the weights of each purifier that a result names."""
    parts = (part["settings"] for part in result.get("parts", {}).values())
    for settings in (result, result.get("settings", {}), *parts):
        for name, identity in settings.get("purifiers", {}).items():
            if identity:  # "none" has no weights
                yield name, identity["sha256"], identity["dtype"]
    for name, sha256 in result.get("weights", {}).items():
        yield name, sha256, "float32"


@functools.cache
def bundled_sha256(name: str, dtype: str = "float32") -> str | None:
    """Returns the SHA-256 of the bundled weights that a name in a result stands for; None if none are bundled."""
    if name.startswith(_REFERENCE):
        return weights_sha256(reference_model(name.removeprefix(_REFERENCE)))
    end = next((end for end in _VARIANTS if name.endswith(end)), "")
    base = name.removesuffix(end).split(" i=")[0]
    if base not in list_purifiers() or not is_trained(base):
        return None
    purifier = Purifier.from_pretrained(base, dtype=dtype)
    return weights_sha256((_VARIANTS[end](purifier) if end else purifier).method)
