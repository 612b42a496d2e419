"""Low-frequency PGD: the projection, its closed form, and what it leaves out."""

import pytest
import torch

from purifier import OptionError
from purifier.attacks import PGD, LowFrequencyPGD
from purifier.attacks.frequency import low_pass
from tests.attacks.victims import examples, sizes, trained


def test_the_projection_keeps_low_waves_and_removes_high_ones() -> None:
    places = torch.arange(16).double()
    low, high = (torch.cos(torch.pi * (places + 0.5) * k / 16) for k in (3, 4))
    for wave, kept in ((low, 1), (high, 0)):
        for values in (wave.view(1, 1, 1, 16).expand(1, 1, 10, 16), wave.view(1, 1, 16, 1).expand(1, 1, 16, 10)):
            assert torch.allclose(low_pass(values, 0.25), kept * values, atol=1e-12)


def test_the_projection_repeats_itself_and_keeps_constants() -> None:
    values = torch.rand(2, 3, 9, 14, dtype=torch.double)
    once = low_pass(values, 0.3)
    assert torch.allclose(low_pass(once, 0.3), once, atol=1e-12)
    assert torch.allclose(once.mean((2, 3)), values.mean((2, 3)), atol=1e-12)
    assert torch.equal(low_pass(values, 1), values)


def test_all_frequencies_give_pgd() -> None:
    victim, batch = trained(), examples(6)
    found = LowFrequencyPGD(share=1, steps=4).seeded(0)(victim, *batch)
    assert torch.equal(found, PGD(steps=4).seeded(0)(victim, *batch))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_perturbations_have_low_frequencies_only_where_nothing_is_clipped(norm: str) -> None:
    victim, (images, labels) = trained(), examples(4)
    images = images * 0.2 + 0.4
    attack = LowFrequencyPGD(eps=0.4, alpha=0.01, steps=5, share=0.3, norm=norm, random_start=False)
    delta = attack(victim, images, labels) - images
    assert delta.abs().max() > 1e-4
    assert torch.allclose(low_pass(delta, 0.3), delta, atol=1e-6)


def test_the_loss_rises() -> None:
    victim, (images, labels) = trained(), examples(20, seed=2)
    found = LowFrequencyPGD(eps=0.1, share=0.3).seeded(0)(victim, images, labels)
    loss = torch.nn.CrossEntropyLoss()
    assert loss(victim(found), labels) > 2 * loss(victim(images), labels)
    assert sizes(found, images, "Linf").max() <= 0.1 + 1e-6


@pytest.mark.parametrize("share", [0, 1.5, -0.1])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(OptionError, match=rf"expected share in \(0, 1\], got {share}"):
        LowFrequencyPGD(share=share)
