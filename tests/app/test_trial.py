"""What the page shows of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from purifier import InputError, Purifier
from purifier.app import trial
from purifier.app.trial import try_picture
from purifier.models.loading import load_model
from tests.scale.pictures import encoded


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(encoded(0, size=(80, 70)))
    return tmp_path / "a.png"


def test_a_trial_has_every_version_and_the_perturbation_times_ten(picture: Path) -> None:
    gate, purifiers = Purifier.from_pretrained("alloy-s"), {"gs": Purifier.from_pretrained("gs")}
    model = load_model("reference:demo")
    found = try_picture(picture, model, purifiers, gate, eps=4 / 255, steps=2)
    assert [view.name for view in found.views] == ["clean", "attacked", "gs"]
    clean, attacked, purified = (view.pixels.astype(int) for view in found.views)
    assert 0 < np.abs(attacked - clean).max() <= 4
    assert found.perturbation is not None
    # Both pictures are rounded to whole levels, so that ten times their difference is within ten levels.
    assert np.abs(found.perturbation - (127.5 + 10 * (attacked - clean))).max() <= 11
    expected = Purifier.from_pretrained("gs")(torch.from_numpy(attacked / 255).permute(2, 0, 1).float()[None])
    assert np.abs(purified / 255 - expected[0].permute(1, 2, 0).numpy()).max() < 2 / 255
    assert found.attack_map is not None and found.attack_map.shape == clean.shape and 0 <= found.attack_score <= 1
    assert all(0 < view.probability <= 1 and view.prediction in (model.classes or ()) for view in found.views)


def test_eps_of_zero_is_no_attack(picture: Path) -> None:
    found = try_picture(picture, load_model("reference:demo"), {}, Purifier.from_pretrained("alloy-s"), eps=0, steps=2)
    assert [view.name for view in found.views] == ["clean"] and found.perturbation is None


def test_a_picture_of_too_many_pixels_is_refused(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MOST_PIXELS", 100)
    with pytest.raises(InputError, match="megapixels"):
        try_picture(picture, load_model("reference:demo"), {}, Purifier.from_pretrained("alloy-s"), eps=0, steps=1)
