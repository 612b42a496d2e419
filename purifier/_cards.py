"""Model cards: that of a purifier that was changed after it was loaded, and what a card states."""

from __future__ import annotations

import re
from typing import Any

_FRONT = re.compile(r"---\n.*?\n---\n", re.DOTALL)
# A row of a table of accuracies: classifier, purifier with its iterations, accuracy without an attack.
_ROW = re.compile(r"^\| (\w+) \| ([\w-]+)(?: i=(\d+))? \| (\d+(?:\.\d+)?) ", re.MULTILINE)


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


def clean_costs(card: str, name: str, iterations: int | None) -> dict[str, float]:
    """Returns how many points of clean accuracy a purifier costs each classifier, as its card states.

    Args:
        card: The card's text; its table has the columns classifier, purifier and standard.
        name: The purifier's name.
        iterations: Its number of iterations, or None.
    """
    bare: dict[str, float] = {}
    behind: dict[str, float] = {}
    for classifier, purifier, count, accuracy in _ROW.findall(card):
        if purifier == "none":
            bare.setdefault(classifier, float(accuracy))
        elif purifier == name and count in ("", str(iterations)):
            behind.setdefault(classifier, float(accuracy))
    return {classifier: bare[classifier] - accuracy for classifier, accuracy in behind.items() if classifier in bare}
