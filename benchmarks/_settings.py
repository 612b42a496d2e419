"""Settings of a training that are changed on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def read_changes(config: type[Any], changes: Sequence[str]) -> dict[str, Any]:
    """Reads KEY=VALUE entries, each as the type of the field's default.

    Args:
        config: A dataclass of settings.
        changes: The entries; the values of a tuple are separated by commas.
    """
    found: dict[str, Any] = {}
    for change in changes:
        key, _, value = change.partition("=")
        if not hasattr(config, key):
            raise SystemExit(f"expected KEY=VALUE with a field of {config.__name__}, got {change!r}")
        found[key] = _read(value, type(getattr(config, key)))
    return found


def _read(value: str, kind: type[Any]) -> Any:
    if kind is tuple:
        return tuple(value.split(","))
    return value.lower() in ("1", "true") if kind is bool else kind(value)
