"""The picture of GAD's trainings, from made-up histories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.recipes import gad_plot


def history(final: float) -> list[dict[str, float]]:
    bare = {"clean_bare": 0.8, "attacked_bare": 0.3}
    return [{"step": 100 * n, "clean": 0.75, "attacked": final * n / 3, **bare} for n in (1, 2, 3)]


def test_each_training_has_a_panel_that_shows_its_figures(tmp_path: Path) -> None:
    pictures = []
    for final in (0.6, 0.3):
        one = {"settings": {"batch_size": 8}, "history": history(final)}
        gad_plot.draw({"gad_camvid": one, "mine": one}, tmp_path / "picture.png")
        with Image.open(tmp_path / "picture.png") as picture:
            pictures.append(np.asarray(picture.convert("RGB")))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()
    assert list(tmp_path.iterdir()) == [tmp_path / "picture.png"]
