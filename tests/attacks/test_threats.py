"""Threat models: who calls what, exact gradients, and images that stay in [0, 1]."""

import pytest
import torch
from torch import Tensor, nn

import purifier
from purifier import InputError, OptionError, Purifier
from purifier.attacks import (
    BPDA,
    FGSM,
    PGD,
    Aware,
    Blind,
    ThreatModel,
    Transfer,
    bare_model,
    whole_model,
    worst_case,
)
from tests.builders import pictures, small_purifier, unchanged

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Counting(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner(images)

    def purify(self, images: torch.Tensor) -> torch.Tensor:
        return self(images)


def classifier(classes: int = 5, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 10 * 10, classes)).eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return pictures(6, 3, 12, 12), torch.tensor([0, 1, 2, 3, 4, 0])


def test_a_blind_attacker_never_calls_the_purifier(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model, guard = Counting(classifier()), Counting(small_purifier("gs"))
    attacked = Blind()(PGD(steps=3).seeded(0), purifier._purified_model.PurifiedModel(model, guard), *batch)
    assert (guard.calls, model.calls) == (0, 3)
    assert torch.equal(attacked, PGD(steps=3).seeded(0)(model, *batch))


def test_a_transferring_attacker_calls_neither_model_nor_purifier(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model, guard, other = Counting(classifier()), Counting(small_purifier("gs")), Counting(classifier(seed=1))
    defended = purifier._purified_model.PurifiedModel(model, guard)
    attacked = Transfer(other)(PGD(steps=3).seeded(0), defended, *batch)
    assert (guard.calls, model.calls, other.calls) == (0, 0, 3)
    assert torch.equal(attacked, PGD(steps=3).seeded(0)(other, *batch))


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_an_ensemble_is_attacked_through_the_mean_of_its_outputs(
    batch: tuple[torch.Tensor, torch.Tensor], average: str
) -> None:
    first, second = classifier(seed=1), classifier(seed=2)

    def mean(x: Tensor) -> Tensor:
        if average == "logits":
            return (first(x) + second(x)) / 2
        return ((first(x).softmax(1) + second(x).softmax(1)) / 2).log()

    defended = small_purifier("gs").wrap(classifier())
    attacked = Transfer(first, second, average=average)(FGSM(eps=0.1), defended, *batch)
    expected = FGSM(eps=0.1)(mean, *batch)
    # The sign of a gradient near zero may go either way.
    assert ((attacked - expected).abs() > 1e-6).float().mean() < 0.01


def test_surrogates_that_do_not_agree_on_classes_are_refused(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(InputError, match=r"expected surrogates with logits of one shape .* \(6, 5\), \(6, 7\)"):
        Transfer(classifier(5), classifier(7))(PGD(), small_purifier("gs").wrap(classifier()), *batch)


def test_surrogates_in_train_mode_are_refused(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    training = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 12 * 12, 5))
    with pytest.raises(InputError, match="expected a model in eval mode"):
        Transfer(classifier(5), training)(PGD(), small_purifier("gs").wrap(classifier()), *batch)


def test_an_aware_attacker_follows_the_exact_gradient_through_gs(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    defended = small_purifier("gs").wrap(classifier()).double()
    images, labels = batch[0].double()[:1] * 0.8 + 0.1, batch[1][:1]
    attack = PGD(eps=1e-3, alpha=1e-3, steps=1, norm="L2", random_start=False)
    step = ((Aware()(attack, defended, images, labels) - images) / 1e-3).flatten()

    def loss(x: Tensor) -> float:
        return nn.functional.cross_entropy(defended(x), labels).item()

    slopes = []
    for place in range(images.numel()):
        bump = torch.zeros(images.numel(), dtype=torch.double)
        bump[place] = 1e-5
        bump = bump.view_as(images)
        slopes.append((loss(images + bump) - loss(images - bump)) / 2e-5)
    expected = torch.tensor(slopes, dtype=torch.double)
    assert torch.allclose(step, expected / expected.norm(), atol=1e-4)


def test_knowing_the_purifier_helps() -> None:
    torch.manual_seed(3)
    defended, images = small_purifier("gs").wrap(classifier()), pictures(32, 3, 12, 12)
    labels = defended(images).argmax(1)
    right = {
        threat.name: (defended(threat(PGD(eps=0.02).seeded(0), defended, images, labels)).argmax(1) == labels).sum()
        for threat in (Blind(), Aware())
    }
    assert right["aware"] < right["blind"] < 32


@pytest.mark.parametrize("threat", [Blind(), Aware(), Aware(samples=2), BPDA(), BPDA(samples=2)])
def test_a_model_of_normalised_images_is_attacked_in_unit_range(
    batch: tuple[torch.Tensor, torch.Tensor], threat: ThreatModel
) -> None:
    images, labels = batch
    model = classifier()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    outside = small_purifier("gs").wrap(model, mean=MEAN, std=STD)
    inside = small_purifier("gs").wrap(lambda x: model((x - mean) / std))
    attack = PGD(eps=0.05, steps=3).seeded(0)
    attacked, expected = threat(attack, outside, images, labels), threat(attack.seeded(0), inside, images, labels)
    assert (attacked - images).abs().max() <= 0.05 + 1e-6 and attacked.min() >= 0 and attacked.max() <= 1
    assert ((attacked - expected).abs() > 1e-3).float().mean() < 0.01


def test_bare_model_and_whole_model_take_images_in_unit_range(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, _ = batch
    model = classifier()
    defended = small_purifier("gs").wrap(model, mean=MEAN, std=STD)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    assert torch.allclose(bare_model(defended)(images), model((images - mean) / std), atol=1e-5)
    assert torch.allclose(whole_model(defended)(images), defended((images - mean) / std), atol=1e-5)
    plain = small_purifier("gs").wrap(model)
    assert whole_model(plain) is plain and bare_model(plain) is model


@pytest.mark.parametrize("threat", [Blind(), Transfer(classifier(seed=1)), Aware(), Aware(samples=2), BPDA()])
def test_the_defended_model_does_not_change(batch: tuple[torch.Tensor, torch.Tensor], threat: ThreatModel) -> None:
    defended = small_purifier("ncis").wrap(classifier(), mean=MEAN, std=STD)
    with unchanged(defended):
        threat(PGD(steps=2), defended, *batch)


def test_the_worst_case_is_the_minimum_over_attacks_of_each_image(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, _ = batch
    defended = small_purifier("gs").wrap(classifier())
    labels = defended(images).argmax(1)
    labels[0] = (labels[0] + 1) % 5
    weak, other = FGSM(eps=0.01), PGD(eps=0.03).seeded(0)
    separate = [defended(Aware()(attack, defended, images, labels)).argmax(1) == labels for attack in (weak, other)]
    attacked, right = worst_case(Aware(), [weak, other.seeded(0)], defended, images, labels)
    clean = defended(images).argmax(1) == labels
    assert torch.equal(right & separate[0], right)
    assert right.sum() <= min(part.sum() for part in separate) < clean.sum()
    assert not right[0] and torch.equal(attacked[0], images[0])
    assert torch.equal(defended(attacked).argmax(1) == labels, right)


def test_settings_say_everything() -> None:
    surrogates = Transfer(classifier(), classifier(), names=["a", "b"], average="probabilities")
    assert Blind().settings() == {"name": "blind"}
    assert surrogates.settings() == {"name": "transfer", "surrogates": ["a", "b"], "average": "probabilities"}
    assert Aware(samples=3).settings() == {"name": "aware", "samples": 3, "submissions": 1, "gate_weight": 0.0}
    assert BPDA().settings() == {"name": "bpda", "substitute": None, "samples": 1, "submissions": 1}
    assert BPDA(Purifier.from_pretrained("gs")).settings()["substitute"] == "Purifier"
    assert repr(Aware(samples=3)) == "Aware(samples=3, submissions=1, gate_weight=0.0)"


@pytest.mark.parametrize("threat", [Blind(), Aware(), BPDA()])
def test_a_model_without_a_purifier_is_refused(batch: tuple[torch.Tensor, torch.Tensor], threat: ThreatModel) -> None:
    with pytest.raises(InputError, match=r"expected a model behind a purifier, got Sequential; wrap it"):
        threat(PGD(), classifier(), *batch)


def test_transfer_without_surrogates_or_with_wrong_options_is_refused() -> None:
    with pytest.raises(OptionError, match="expected at least one surrogate model to attack, got none"):
        Transfer()
    with pytest.raises(OptionError, match="expected a name for each of 1 surrogates, got 2"):
        Transfer(classifier(), names=["a", "b"])
    with pytest.raises(
        OptionError, match="expected average='logits', average='probabilities' or average='losses', got"
    ):
        Transfer(classifier(), average="votes")
    with pytest.raises(OptionError, match="expected samples to be an integer of at least 1"):
        Aware(samples=0)


def test_an_attack_on_a_model_of_normalised_images_is_refused_and_aware_normalises_for_it() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()
    defended = Purifier.from_pretrained("gs").wrap(model, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    images, labels = pictures(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"takes normalised images \(mean, std\); call attacks\.Aware"):
        PGD(eps=0.1, steps=1)(defended, images, labels)
    for inside in (torch.compile(defended, backend="eager"), nn.DataParallel(defended)):
        with pytest.raises(InputError, match="takes normalised images"):
            PGD(eps=0.1, steps=1)(inside, images, labels)
    assert Aware()(PGD(eps=0.1, steps=1), defended, images, labels).shape == images.shape


@pytest.mark.parametrize("threat", [Blind(), Aware(), BPDA(), Transfer(classifier(seed=3))], ids=lambda t: t.name)
@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "normalised"])
def test_an_attached_model_is_attacked_as_a_wrapped_one(threat: ThreatModel, normalised: bool) -> None:
    purify, options = small_purifier("gs"), {"mean": MEAN, "std": STD} if normalised else {}
    images, labels = pictures(2, 3, 12, 12), torch.tensor([0, 1])
    expected = threat(PGD(steps=2).seeded(0), purify.wrap(classifier(), **options), images, labels)
    model = classifier()
    purifier.attach(model, purify, **options)
    assert torch.equal(threat(PGD(steps=2).seeded(0), model, images, labels), expected)
    assert torch.equal(threat(PGD(steps=2).seeded(0), nn.DataParallel(model), images, labels), expected)


def test_an_attached_surrogate_is_attacked_whole_and_the_bare_model_has_no_purifier() -> None:
    model, purify, images = classifier(), small_purifier("gs"), pictures(2, 3, 12, 12)
    bare = model(images)
    purifier.attach(model, purify, mean=MEAN, std=STD)
    wrapped = purify.wrap(classifier(), mean=MEAN, std=STD)
    for surrogate in (model, wrapped):
        torch.testing.assert_close(Transfer(surrogate).surrogates[0](images), whole_model(wrapped)(images))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close(bare_model(model)(images * std + mean), bare)


def test_an_attached_model_of_normalised_images_is_not_attacked_in_their_space() -> None:
    model = classifier()
    purifier.attach(model, small_purifier("gs"), mean=MEAN, std=STD)
    with pytest.raises(InputError, match=r"takes normalised images \(mean, std\); call attacks\.Aware"):
        PGD(steps=1)(model, pictures(2, 3, 12, 12), torch.tensor([0, 1]))


def test_nested_targets_made_in_inference_mode_are_accepted() -> None:
    model = classifier()
    with torch.inference_mode():
        images, targets = pictures(1, 3, 12, 12), [{"weights": torch.rand(5)}]
        attack = PGD(steps=2, loss=lambda outputs, given: (outputs * given[0]["weights"]).sum(1))
        attacked = attack(model, images, targets)
    assert not torch.equal(attacked, images)


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "normalised"])
@pytest.mark.parametrize("way", ["wrap", "attach"])
def test_a_model_of_bgr_images_is_attacked_as_the_same_model_of_rgb_images(normalised: bool, way: str) -> None:
    options = {"mean": MEAN, "std": STD} if normalised else {}
    plain, images, labels = classifier(), pictures(2, 3, 12, 12), torch.tensor([0, 1])
    flipped = nn.Sequential(Flip(), classifier())
    purify = small_purifier("ncis")
    rgb = purify.wrap(plain, **options)
    bgr = purify.wrap(flipped, channels="BGR", **options) if way == "wrap" else flipped
    if way == "attach":
        purifier.attach(flipped, purify, channels="BGR", **options)
    torch.testing.assert_close(bare_model(bgr)(images), bare_model(rgb)(images))
    torch.testing.assert_close(whole_model(bgr)(images), whole_model(rgb)(images))
    for threat in (Blind(), Aware()):
        attacked = [threat(PGD(steps=2).seeded(0), model, images, labels) for model in (bgr, rgb)]
        torch.testing.assert_close(*attacked)


class Flip(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flip(-3)


@pytest.mark.parametrize("attack", [[1], None, Blind(), "PGD"], ids=["list", "none", "threat", "name"])
@pytest.mark.parametrize("threat", [Blind(), Aware(), BPDA(), Transfer(nn.Identity())])
def test_only_an_attack_is_run(threat: ThreatModel, attack: object) -> None:
    defended = small_purifier("gs").wrap(nn.Flatten())
    with pytest.raises(OptionError, match=r"expected an attack, such as purifier\.attacks\.PGD"):
        threat(attack, defended, pictures(1, 3, 4, 4), torch.tensor([0]))  # type: ignore[arg-type]
