"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# What stands where a figure will.
MISSING = "Not measured yet."
# A target: its text, the wanted value, the measured value, and whether it holds.
Target = tuple[str, float, float, bool]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table with one line for each row."""
    head = f"| {' | '.join(heads)}".rstrip() + " |"
    return "\n".join([head, "|" + "---|" * len(heads), *(f"| {' | '.join(row)} |" for row in rows)])


def percent(value: float, interval: Sequence[float] | None = None) -> str:
    """Returns a share in %, followed by its interval in brackets if there is one."""
    return f"{100 * value:.1f}" + (f" ({100 * max(0, interval[0]):.0f}-{100 * interval[1]:.0f})" if interval else "")


def in_words(value: float, interval: Sequence[float]) -> str:
    """Returns a share and its interval as a sentence has them, such as "24.5 % (22-27)"."""
    share, _, within = percent(value, interval).partition(" ")
    return f"{share} % {within}"


def yes(flag: bool) -> str:
    return "yes" if flag else "no"


def targets_table(head: str, targets: Iterable[Target]) -> str:
    """Returns a table of targets; `head` is the heading of their texts."""
    # Adding 0.0 turns -0.0 into 0.0.
    rows = [(text, f"{wanted:.1f}", f"{round(got, 1) + 0.0:.1f}", yes(held)) for text, wanted, got, held in targets]
    return table([head, "wanted", "measured", "holds"], rows)
