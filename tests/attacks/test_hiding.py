"""Attacks that know the gate: they fool the model behind the purifier, and the score does not show them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError, Purifier, reference_model
from purifier.attacks import APGD, CW, PGD, Aware, Blind, DetectionAttack
from tests.builders import pictures, small_purifier

EPS = 8 / 255


@pytest.fixture
def purifier() -> Purifier:
    return Purifier.from_pretrained("alloy-s")


@pytest.fixture
def images() -> Tensor:
    """Smooth images, whose score is low."""
    return nn.functional.interpolate(pictures(4, 3, 6, 6), (48, 48), mode="bicubic").clamp(0.1, 0.9)


@pytest.fixture
def model() -> Any:
    return reference_model("demo").eval()


# 5 % of clean pictures have scores above 0.7.
@pytest.mark.parametrize(("threshold", "unsuspicious"), [(0.0, 0.1), (0.25, 0.7)])
@pytest.mark.parametrize("attack", [PGD(eps=EPS, steps=20), APGD(eps=EPS, steps=20)], ids=["PGD", "APGD"])
def test_the_score_does_not_show_who_knows_the_gate(
    attack: PGD | APGD, threshold: float, unsuspicious: float, images: Tensor, model: Any
) -> None:
    purifier = Purifier.from_pretrained("alloy-s", gate_threshold=threshold)
    defended = purifier.wrap(model)
    with torch.no_grad():
        labels = defended(images).argmax(1)
    seen = Blind()(attack.seeded(0), defended, images, labels)
    hidden = Aware(gate_weight=1.0)(attack.seeded(0), defended, images, labels)
    assert (hidden - images).abs().max() <= EPS + 1e-6
    clean, scores, low = (purifier.attack_score(batch).max() for batch in (images, seen, hidden))
    assert clean < 0.1 and scores > 0.9 and low < unsuspicious
    with torch.no_grad():
        assert not (defended(hidden).argmax(1) == labels).any()


def test_a_targeted_attack_hides_too(purifier: Purifier, images: Tensor, model: Any) -> None:
    defended, labels = purifier.wrap(model), torch.full((4,), 3)
    attack = PGD(eps=EPS, steps=20, targeted=True).seeded(0)
    hidden = Aware(gate_weight=1.0)(attack, defended, images, labels)
    assert purifier.attack_score(hidden).max() < 0.1
    with torch.no_grad():
        assert (defended(hidden).argmax(1) == labels).all()


@pytest.mark.parametrize(
    ("name", "attack", "message"),
    [
        ("gs", PGD(steps=1), "expected a purifier with one gate"),
        ("alloy-s", CW(steps=1), "expected an attack that climbs a loss, such as PGD"),
        ("alloy-s", DetectionAttack(PGD(steps=1)), "expected an attack that climbs a loss"),
    ],
)
def test_what_has_no_gate_or_no_loss_is_refused(
    name: str, attack: Any, message: str, images: Tensor, model: Any
) -> None:
    with pytest.raises(OptionError, match=message):
        Aware(gate_weight=0.5)(attack, Purifier.from_pretrained(name).wrap(model), images, torch.zeros(4).long())


def test_a_function_in_the_place_of_a_purifier_is_refused(images: Tensor, model: Any) -> None:
    from purifier._purified_model import PurifiedModel

    defended = PurifiedModel(model, nn.Identity())
    with pytest.raises(OptionError, match="expected a purifier with a gate"):
        Aware(gate_weight=0.5)(PGD(steps=1), defended, images, torch.zeros(4).long())


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_out_of_range_are_refused(weight: float) -> None:
    with pytest.raises(OptionError, match="gate_weight"):
        Aware(gate_weight=weight)


def test_images_in_another_convention_reach_the_gate_in_its_own(images: Tensor, model: Any) -> None:
    purifier, labels = small_purifier("ncis").gated(Purifier.from_pretrained("alloy-s")), torch.zeros(4).long()
    normalised = nn.Sequential(Shift(), model).eval()
    plain = Aware(gate_weight=1.0)(PGD(steps=3).seeded(0), purifier.wrap(model), images, labels)
    shifted = purifier.wrap(normalised, mean=(0.5,) * 3, std=(0.5,) * 3)
    torch.testing.assert_close(Aware(gate_weight=1.0)(PGD(steps=3).seeded(0), shifted, images, labels), plain)


class Shift(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images * 0.5 + 0.5
