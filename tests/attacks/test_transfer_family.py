"""NI-FGSM, VMI-FGSM and VNI-FGSM against closed forms; ensembles of surrogates."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier import InputError, OptionError, Purifier
from purifier.attacks import BIM, CW, MIFGSM, NIFGSM, PGD, VMIFGSM, VNIFGSM, Attack, Ensemble, Transfer
from purifier.evaluation.specs import make_threat
from tests.attacks.victims import examples, trained

WEIGHTS = torch.linspace(-1, 1, 3 * 6 * 6).double()
IMAGES = torch.full((2, 3, 6, 6), 0.5).double()


def cubic(images: Tensor) -> Tensor:
    return (images**3).flatten(1).mul(WEIGHTS).sum(1)


def slope(points: Tensor) -> Tensor:
    return 3 * points**2 * WEIGHTS.view(3, 6, 6)


def first(outputs: Tensor, targets: object) -> Tensor:
    return outputs


def unit(gradients: Tensor) -> Tensor:
    return gradients / gradients.abs().mean((1, 2, 3), keepdim=True)


def test_ni_fgsm_takes_the_gradient_where_the_momentum_leads() -> None:
    """Two steps by hand: eq. 6 to 8 of the paper, with gradients of mean absolute value 1."""
    seen = []

    def watch(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return cubic(images)

    one = unit(slope(IMAGES))
    step = IMAGES + 0.02 * one.sign()
    ahead = step + 0.02 * 0.5 * one
    expected = step + 0.02 * (0.5 * one + unit(slope(ahead))).sign()
    found = NIFGSM(eps=1.0, alpha=0.02, steps=2, decay=0.5, loss=first)(watch, IMAGES, None)
    assert torch.allclose(seen[1], ahead, atol=1e-12)
    assert torch.allclose(found, expected, atol=1e-12)


def test_the_look_ahead_has_the_size_of_a_step_in_l2() -> None:
    seen = []

    def watch(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return cubic(images)

    NIFGSM(eps=1.0, alpha=0.1, steps=2, norm="L2", loss=first)(watch, IMAGES, None)
    step = 0.1 * slope(IMAGES) / slope(IMAGES).flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    ahead = (seen[1] - IMAGES - step).flatten(1).norm(dim=1)
    assert bool(((ahead > 0.05) & (ahead < 0.2)).all())


def test_vmi_fgsm_adds_the_difference_of_the_neighbours_mean_gradient() -> None:
    """The first step is MI-FGSM's; the second adds the variance of eq. 8."""
    seen = []

    def watch(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return cubic(images)

    found = VMIFGSM(eps=0.1, alpha=0.02, steps=2, samples=3, beta=2.0, norm="L2", loss=first).seeded(0)(
        watch, IMAGES, None
    )
    assert len(seen) == 5  # the last step needs no neighbours
    assert all((near - IMAGES).flatten(1).norm(dim=1).max() <= 0.2 + 1e-9 for near in seen[1:4])
    variance = torch.stack([slope(near) for near in seen[1:4]]).mean(0) - slope(IMAGES)
    one = unit(slope(IMAGES))
    two = one + unit(slope(seen[4]) + variance)
    step = seen[4] - IMAGES + 0.02 * two / two.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(found, IMAGES + step, atol=1e-12)


def test_without_a_neighbourhood_or_momentum_they_are_the_simpler_attacks() -> None:
    victim, (images, labels) = trained().double(), examples(6)
    images = images.double()
    options: dict[str, Any] = {"eps": 0.05, "alpha": 0.01, "steps": 4}

    def same(attack: Attack, other: Attack) -> None:
        assert torch.allclose(attack(victim, images, labels), other(victim, images, labels), atol=1e-12)

    same(VMIFGSM(beta=0.0, samples=1, **options), MIFGSM(**options))
    same(NIFGSM(decay=0.0, **options), BIM(**options))
    # The look-ahead of the first step is zero, and so is its variance.
    options["steps"] = 2
    same(VNIFGSM(beta=0.0, samples=1, **options), NIFGSM(**options))


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (lambda: VMIFGSM(samples=0), "expected samples to be an integer of at least 1, got 0"),
        (lambda: VNIFGSM(beta=-1), "expected beta >= 0, got -1"),
        (lambda: NIFGSM(decay=-1), "expected decay >= 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(attack: Callable[[], Attack], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        attack()


# Ensembles.


def linear(seed: int, classes: int = 5) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, classes)).eval()


def test_an_ensemble_is_the_mean_of_logits_or_of_probabilities() -> None:
    models, images = [linear(1), linear(2)], examples(4)[0]
    logits = torch.stack([model(images) for model in models])
    assert torch.allclose(Ensemble(*models)(images), logits.mean(0))
    found = Ensemble(*models, average="probabilities")(images)
    assert torch.allclose(found.exp(), logits.softmax(2).mean(0), atol=1e-6)


def test_an_ensemble_fools_all_of_its_models() -> None:
    models, (images, labels) = [trained(), linear(3)], examples(20, seed=2)
    labels = models[1](images).argmax(1)
    found = MIFGSM(eps=0.3)(Ensemble(*models), images, labels)
    assert (models[1](found).argmax(1) == labels).sum() <= 5


def test_an_ensemble_tells_the_mode_of_its_models() -> None:
    with pytest.raises(InputError, match="expected a model in eval mode"):
        PGD(steps=1)(Ensemble(trained().train(), linear(1)), *examples(2))
    with pytest.raises(OptionError, match="expected at least one surrogate model to attack, got none"):
        Ensemble()
    with pytest.raises(OptionError, match="expected average='logits' or average='probabilities', got 'losses'"):
        Ensemble(linear(1), average="losses")


def test_a_transfer_of_mean_losses_climbs_the_mean_of_the_losses() -> None:
    """The surrogates' outputs differ in shape, so neither logits nor probabilities have a mean."""
    models, (images, labels) = [linear(1), linear(2, classes=7)], examples(4)
    threat, defended = Transfer(*models, average="losses"), Purifier.from_pretrained("gs").wrap(trained())
    found = threat(PGD(steps=1, alpha=0.02, eps=0.02, random_start=False), defended, images, labels)
    leaf = images.clone().requires_grad_(True)
    sum(F.cross_entropy(model(leaf), labels, reduction="sum") for model in models).backward()
    assert leaf.grad is not None
    assert torch.allclose(found, (images + 0.02 * leaf.grad.sign()).clamp(0, 1), atol=1e-6)


def test_a_transfer_of_mean_losses_needs_a_loss_and_models_in_eval_mode() -> None:
    defended, batch = Purifier.from_pretrained("gs").wrap(trained()), examples(2)
    with pytest.raises(OptionError, match=r"expected an attack that climbs a loss, .* got .*CW.*use average='logits'"):
        Transfer(linear(1), linear(2), average="losses")(CW(steps=2), defended, *batch)
    with pytest.raises(InputError, match="expected a model in eval mode"):
        Transfer(linear(1), trained().train(), average="losses")(PGD(steps=1), defended, *batch)


def test_the_average_of_a_transfer_can_be_named() -> None:
    models = [linear(1), linear(2)]
    assert make_threat("transfer:average=losses", surrogates=models, names=["a", "b"]).settings() == {
        "name": "transfer",
        "surrogates": ["a", "b"],
        "average": "losses",
    }
    with pytest.raises(OptionError, match="expected the options average for threat transfer, got 'samples'"):
        make_threat("transfer:samples=2", surrogates=models)
