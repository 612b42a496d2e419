"""BPDA: exact forward, borrowed backward, and success where the exact gradient is zero."""

import pytest
import torch
from torch import nn

from purifier import InputError, OptionError, Purifier, PurifierWarning
from purifier._purified_model import PurifiedModel
from purifier.attacks import BPDA, FGSM, PGD, Aware, Blind
from purifier.attacks.bpda import StraightThrough, straight_through, through_floors
from tests.builders import pictures, small_method, small_purifier, unchanged

ATTACK = PGD(eps=0.1, alpha=0.02, steps=15, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 5)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return pictures(8, 3, 16, 16, low=0.2, high=0.8)


@pytest.mark.parametrize("name", ["jpeg", "bit-depth"])
def test_succeeds_where_the_exact_gradient_is_zero(model: nn.Module, images: torch.Tensor, name: str) -> None:
    defended = Purifier.from_pretrained(name).wrap(model)
    labels = defended(images).argmax(1)
    with pytest.warns(PurifierWarning, match=f"may not be robust: '{name}' has an exact gradient of zero .*BPDA"):
        exact = Aware()(ATTACK.seeded(1), defended, images, labels)
        random = Aware()(PGD(eps=0.1, steps=1).seeded(1), defended, images, labels)
    bypassed = BPDA()(ATTACK.seeded(1), defended, images, labels)
    # Exact gradients are zero: PGD stays at its random start.
    assert torch.equal(exact, random)
    assert (defended(bypassed).argmax(1) == labels).sum() <= 1
    assert (defended(exact).argmax(1) == labels).sum() >= 6


@pytest.mark.parametrize("name", ["jpeg", "median", "chain"])
def test_the_forward_pass_does_not_change(model: nn.Module, images: torch.Tensor, name: str) -> None:
    defended = small_purifier(name).wrap(model)
    images.requires_grad_(True)
    assert torch.equal(straight_through(defended)(images), defended(images))
    with torch.no_grad():
        assert torch.equal(straight_through(defended)(images), defended(images))


def test_the_backward_pass_is_the_identity(images: torch.Tensor) -> None:
    purifier = StraightThrough(Purifier.from_pretrained("jpeg"))
    images.requires_grad_(True)
    weights = torch.randn_like(images)
    (gradient,) = torch.autograd.grad((purifier(images) * weights).sum(), images)
    assert torch.equal(gradient, weights)


def test_the_backward_pass_is_that_of_the_substitute(images: torch.Tensor) -> None:
    smooth = Purifier.from_pretrained("gs", iterations=1)
    images.requires_grad_(True)
    weights = torch.randn_like(images)
    purified = StraightThrough(Purifier.from_pretrained("jpeg"), smooth)(images)
    (gradient,) = torch.autograd.grad((purified * weights).sum(), images)
    (expected,) = torch.autograd.grad((smooth(images) * weights).sum(), images)
    assert torch.equal(gradient, expected)
    assert torch.equal(purified, Purifier.from_pretrained("jpeg")(images))


def test_a_chain_of_purifiers_is_replaced_as_a_whole(model: nn.Module, images: torch.Tensor) -> None:
    defended = Purifier.chain("gs", "bit-depth").wrap(model)
    labels = defended(images).argmax(1)
    bypassed = BPDA(Purifier.from_pretrained("gs"))(ATTACK.seeded(1), defended, images, labels)
    assert (defended(bypassed).argmax(1) == labels).sum() < 4


def test_purifier_and_model_do_not_change(model: nn.Module, images: torch.Tensor) -> None:
    defended = small_purifier("ncis").wrap(model)
    with unchanged(defended):
        BPDA()(PGD(steps=2), defended, images, torch.zeros(8, dtype=torch.long))


def test_a_substitute_of_another_shape_is_refused(model: nn.Module, images: torch.Tensor) -> None:
    defended = Purifier.from_pretrained("jpeg").wrap(model)
    with pytest.raises(InputError, match=r"expected a substitute that keeps the shape \(8, 3, 16, 16\)"):
        BPDA(lambda x: x[..., 1:])(ATTACK, defended, images, torch.zeros(8, dtype=torch.long))


def test_a_substitute_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(OptionError, match="expected a substitute that maps images to images, got str"):
        BPDA("gs")


def floored(model: nn.Module) -> PurifiedModel:
    """A model behind a purifier whose gate is closed, because its weights of about 0.5 are below its floor."""
    return Purifier(small_method("alloy", iterations=1, gate=3, gate_floor=0.9)).wrap(model)


def test_a_gate_below_its_floor_misleads_no_aware_attacker(model: nn.Module, images: torch.Tensor) -> None:
    defended = floored(model)
    assert torch.equal(defended.purifier(images), images)
    labels = defended(images).argmax(1)
    attack = FGSM(eps=0.01)
    blind = Blind()(attack, defended, images, labels)
    assert torch.equal(attack(defended, images, labels), blind)
    with unchanged(defended):
        aware = Aware()(attack, defended, images, labels)
    open_gate = through_floors(defended)
    assert not torch.equal(aware, blind) and torch.equal(aware, attack(open_gate, images, labels))


def test_the_gradient_without_a_floor_has_the_outputs_and_weights_of_the_purifier_with_it(
    model: nn.Module, images: torch.Tensor
) -> None:
    defended = floored(model)
    other = through_floors(defended)
    assert torch.equal(other(images), defended(images))
    pairs = zip(other.purifier.parameters(), defended.purifier.parameters(), strict=True)
    assert all(one is two for one, two in pairs) and other.model is model
    image = images[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(other.purifier(image).sum(), image)
    assert not torch.equal(gradient, torch.ones_like(image))


def test_without_a_floor_the_defended_model_itself_is_attacked(model: nn.Module) -> None:
    defended = Purifier(small_method("alloy", iterations=1, gate=3)).wrap(model)
    assert through_floors(defended) is defended
