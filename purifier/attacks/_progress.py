"""A progress bar for long attacks."""

from __future__ import annotations

from typing import Any

# Shorter runs need no bar.
_LONG = 200


def progress_bar(name: str, steps: int) -> Any:
    """Returns a tqdm bar over `steps`. It shows only for long runs, and if stderr is a terminal."""
    from tqdm import tqdm

    return tqdm(total=steps, desc=name, unit="step", leave=False, disable=None if steps >= _LONG else True)
