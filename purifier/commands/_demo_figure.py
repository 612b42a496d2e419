"""The figure that `purifier demo` draws."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

_RIGHT, _WRONG, _INK, _FAINT = "#15803d", "#b91c1c", "#1f2937", "#6b7280"
# The layout is in pixels, so that no image pixel is interpolated. The text is legible at a third of the size.
_DPI = 128
_CELL, _GAP, _CAPTION, _MARGIN, _HEAD = 256, 16, 76, 28, 136
_LARGE, _SMALL, _LINE = 15, 13, 30


@dataclass(frozen=True)
class Column:
    """One column of the figure.

    Attributes:
        title: The heading.
        images: (N, 3, S, S) in [0, 1], one for each row.
        captions: The caption of each image, of one line or two.
        right: Whether each caption is green or red; None for a caption without a verdict.
    """

    title: str
    images: Tensor
    captions: Sequence[str]
    right: Sequence[bool | None]


def draw(columns: Sequence[Column], path: Path, *, title: str, subtitle: str, note: str) -> None:
    """Writes a PNG with a row for each photograph and a column for each stage.

    Args:
        columns: The columns, left to right.
        path: The file, in an existing folder.
        title: The heading of the figure.
        subtitle: The line below the heading.
        note: The line at the bottom.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, size = len(columns[0].images), columns[0].images.shape[-1]
    cell = size * max(1, round(_CELL / size))
    width = 2 * _MARGIN + len(columns) * (cell + _GAP) - _GAP
    notes = textwrap.wrap(note, width // 12)
    height = _HEAD + rows * (cell + _CAPTION) + _LINE * len(notes) + 10
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)

    def write(x: float, y: float, text: str, points: float, colour: str, **style: Any) -> None:
        figure.text(
            x / width, 1 - y / height, text, fontsize=points, color=colour, va="center", parse_math=False, **style
        )

    write(_MARGIN, 28, title, _LARGE, _INK, weight="bold")
    write(_MARGIN, 64, subtitle, _SMALL, _FAINT)
    for place, column in enumerate(columns):
        left = _MARGIN + place * (cell + _GAP)
        write(left + cell / 2, _HEAD - 18, column.title, _LARGE, _INK, ha="center")
        for row in range(rows):
            top = _HEAD + row * (cell + _CAPTION)
            axes = figure.add_axes((left / width, 1 - (top + cell) / height, cell / width, cell / height))
            axes.imshow(column.images[row].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axes.set_axis_off()
            right = column.right[row]
            colour = _FAINT if right is None else _RIGHT if right else _WRONG
            write(left + cell / 2, top + cell + 34, column.captions[row], _LARGE, colour, ha="center")
    for line, text in enumerate(reversed(notes)):
        write(_MARGIN, height - 22 - _LINE * line, text, _SMALL, _FAINT)
    figure.savefig(path, dpi=_DPI)
