"""The model card of a purifier that was changed after it was loaded."""

from __future__ import annotations

import re
from typing import Any

_FRONT = re.compile(r"---\n.*?\n---\n", re.DOTALL)


def with_changes(card: str, loaded: dict[str, Any] | None, saved: dict[str, Any]) -> str:
    """Returns a card that states how a saved purifier differs from the one that the card describes.

    Args:
        card: The card's text, in Markdown with or without a YAML header.
        loaded: The description of the purifier that the card came with: "method" and "options". None means unknown.
        saved: The description of the purifier that is saved.
    """
    if loaded is None or (loaded["method"], loaded["options"]) == (saved["method"], saved["options"]):
        return card
    before, after = loaded["options"], saved["options"]
    if loaded["method"] != saved["method"] or before.keys() != after.keys():
        change = "It is part of another purifier now, which config.json describes."
    else:
        names = sorted(name for name in after if after[name] != before[name])
        change = f"It was saved with {', '.join(f'{n}={after[n]} instead of {before[n]}' for n in names)}."
    note = f"> **Changed.** {change} The text and the figures below are those of the purifier that it was made from.\n"
    front = _FRONT.match(card)
    start = front.end() if front else 0
    return f"{card[:start]}{note}\n{card[start:]}"
