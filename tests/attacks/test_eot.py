"""EOT: the mean over a model's randomness, in closed form where it is known."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import InputError, OptionError, Purifier, PurifierWarning
from purifier.attacks import APGD, BIM, CW, EOT, PGD, Attack, Aware
from purifier.attacks.base import Loss
from purifier.attacks.eot import averaged
from tests.builders import pictures, unchanged


class NoisyLinear(nn.Module):
    """Scores (w + noise) . x, whose gradient is w + noise."""

    def __init__(self, spread: float, seed: int = 0) -> None:
        super().__init__()
        self.weights = torch.linspace(-1, 1, 3 * 4 * 4).view(3, 4, 4)
        self.spread = spread
        self.generator = torch.Generator().manual_seed(seed)
        self.calls = 0
        self.gradients: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        weights = self.weights + self.spread * torch.randn(self.weights.shape, generator=self.generator)
        self.gradients.append(weights)
        return (images * weights).flatten(1).sum(1)


def score(outputs: torch.Tensor, targets: None) -> torch.Tensor:
    return outputs


def seen_gradient(samples: int, model: nn.Module, loss: Loss = score, **options: Any) -> torch.Tensor:
    """The gradient that an L2 step of size 1 follows, of unit length."""
    images = torch.full((2, 3, 4, 4), 0.5)
    attack = EOT(BIM(eps=1e-3, alpha=1e-3, steps=1, norm="L2", loss=loss, **options), samples=samples)
    return (attack(model, images, None) - images) / 1e-3


def test_the_step_follows_the_mean_of_the_gradients_of_the_calls() -> None:
    model = NoisyLinear(spread=1.0)
    step = seen_gradient(7, model)
    assert model.calls == 7
    mean = torch.stack(model.gradients).mean(0)
    assert torch.allclose(step, (mean / mean.norm()).expand_as(step), atol=1e-3)


def test_the_mean_comes_closer_to_the_expectation_with_more_samples() -> None:
    model = NoisyLinear(spread=1.0)
    truth = model.weights / model.weights.norm()
    agreement = [(seen_gradient(samples, model)[0] * truth).sum().item() for samples in (1, 400)]
    # Of the estimate's squared length, all but spread^2 * 48 / samples = 0.12 against 16.7 is the truth's.
    assert agreement[1] > 0.99 > 0.9 > agreement[0]


def test_the_loss_is_averaged_and_not_the_output() -> None:
    def squared(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.square()

    model = NoisyLinear(spread=1.0)
    step = seen_gradient(5, model, loss=squared)
    images = torch.full((3, 4, 4), 0.5)
    mean = torch.stack([2 * (w * images).sum() * w for w in model.gradients]).mean(0)
    assert torch.allclose(step[0], mean / mean.norm(), atol=1e-3)


def test_restarts_compare_mean_losses() -> None:
    model = NoisyLinear(spread=0.1)
    attack = EOT(PGD(eps=0.1, steps=1, restarts=3, loss=score).seeded(0), samples=4)
    attack(model, torch.rand(2, 3, 4, 4), None)
    assert model.calls == 3 * (1 + 1) * 4


def test_a_scalar_loss_and_a_targeted_attack_go_the_right_way() -> None:
    model = NoisyLinear(spread=0.0)
    up = seen_gradient(3, model, loss=lambda outputs, targets: outputs.mean())
    down = seen_gradient(3, model, targeted=True)
    assert torch.allclose(up, -down, atol=1e-3) and (up * model.weights).sum() > 0


@pytest.fixture
def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)).eval()


@pytest.mark.parametrize("attack", [PGD(eps=0.05), APGD(eps=0.05, steps=10), APGD(eps=0.05, steps=10, loss="dlr")])
def test_on_a_model_without_randomness_it_is_the_attack_itself(classifier: nn.Module, attack: Attack) -> None:
    images = pictures(6, 3, 8, 8)
    labels = classifier(images).argmax(1)
    plain = attack.seeded(3)(classifier, images, labels)
    eot = EOT(attack, samples=3).seeded(3)(classifier, images, labels)
    fooled = [classifier(attacked).argmax(1) != labels for attacked in (plain, eot)]
    assert fooled[0].sum() > 0 and torch.equal(*fooled)
    if isinstance(attack, PGD):
        assert torch.allclose(plain, eot, atol=1e-6)


def test_attacks_that_look_at_outputs_see_the_mean_output(classifier: nn.Module) -> None:
    images = pictures(4, 3, 8, 8)
    labels = classifier(images).argmax(1)
    calls = 0

    def noisy(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return classifier(x) + (-1.0) ** calls

    attack = CW(steps=20, search=3)
    assert torch.allclose(EOT(attack, samples=2)(noisy, images, labels), attack(classifier, images, labels), atol=1e-5)


def test_outputs_that_are_no_tensors_cannot_be_averaged(classifier: nn.Module) -> None:
    with pytest.raises(InputError, match="expected a model whose outputs are tensors to average for CW, got dict"):
        EOT(CW(steps=2), samples=2)(lambda x: {"out": classifier(x)}, pictures(1, 3, 8, 8), torch.tensor([0]))


def test_it_beats_the_plain_attack_on_dynamic_inference() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 10 * 10, 5)).eval()
    purifier = Purifier.from_pretrained("gs", iterations=1).dynamic(sigma=0.2, eps=0.5)
    defended, images = purifier.wrap(model), pictures(16, 3, 12, 12)
    labels = model(images).argmax(1)

    def loss_under(samples: int) -> Tensor:
        attacked = Aware(samples=samples)(PGD(eps=0.01, alpha=0.01, steps=1).seeded(0), defended, images, labels)
        calls = [nn.functional.cross_entropy(defended(attacked), labels) for _ in range(200)]
        return torch.stack(calls).mean()

    with pytest.warns(PurifierWarning, match=r"'gs-dynamic' is random; use Aware\(samples=10\)"):
        plain = loss_under(1)
    assert loss_under(40) > plain


def test_it_stays_in_the_ball_and_the_model_does_not_change(classifier: nn.Module) -> None:
    images, labels = pictures(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    with unchanged(classifier):
        attacked = EOT(PGD(eps=0.03, steps=3), samples=3)(classifier, images, labels)
    assert (attacked - images).abs().max() <= 0.03 + 1e-6 and attacked.min() >= 0 and attacked.max() <= 1


def test_it_has_the_options_of_the_attack_inside() -> None:
    attack = EOT(PGD(eps=0.1, alpha=0.02, norm="L2"), samples=8)
    half = attack.with_eps(0.05)
    assert (attack.name, attack.eps, attack.norm, attack.steps) == ("PGD-EOT8", 0.1, "L2", 10)
    assert (half.eps, half.attack.eps, half.alpha, half.samples) == (0.05, 0.05, pytest.approx(0.01), 8)
    assert attack.eps == 0.1
    assert attack.settings()["attack"]["steps"] == 10 and attack.settings()["samples"] == 8
    assert not EOT(CW(), samples=2).bounded
    assert EOT(PGD(), samples=2).seeded(4).settings()["seed"] == 4


def test_samples_of_eot_within_eot_multiply(classifier: nn.Module) -> None:
    model = NoisyLinear(spread=0.1)
    EOT(EOT(BIM(steps=1, loss=score), samples=2), samples=3)(model, torch.rand(2, 3, 4, 4), None)
    assert model.calls == 6
    attack = averaged(EOT(PGD(), samples=2), 5)
    assert attack.samples == 10 and isinstance(attack.attack, PGD)


def test_a_loss_that_is_neither_per_image_nor_a_scalar_is_refused(classifier: nn.Module) -> None:
    attack = EOT(PGD(loss=lambda outputs, targets: outputs), samples=2)
    with pytest.raises(InputError, match=r"expected a loss per image, \(2,\), or a scalar, got shape \(2, 5\)"):
        attack(classifier, pictures(2, 3, 8, 8), None)


def test_memory_does_not_hold_the_graphs_of_all_the_calls(classifier: nn.Module) -> None:
    alive, most = 0, 0

    class Held(torch.autograd.Function):
        """Counts the graphs that are alive by what they save."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            nonlocal alive
            alive -= 1
            return gradient

    EOT(PGD(steps=2), samples=5)(lambda x: classifier(Held.apply(x)), pictures(2, 3, 8, 8), torch.tensor([0, 1]))
    assert (most, alive) == (1, 0)


def test_one_sample_is_the_attack_itself() -> None:
    attack = PGD()
    assert averaged(attack, 1) is attack


@pytest.mark.parametrize("samples", [0, 2.5, True])
def test_numbers_of_samples_out_of_range_are_refused(samples: object) -> None:
    with pytest.raises(OptionError, match="expected samples to be an integer of at least 1"):
        EOT(PGD(), samples=samples)


def test_objects_that_are_not_attacks_are_refused() -> None:
    with pytest.raises(OptionError, match="expected an attack, got the class PGD; make one first"):
        EOT(PGD, samples=2)
