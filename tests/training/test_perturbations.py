"""Sources: probabilities, strengths within their range, and attacks that move their targets."""

from __future__ import annotations

import pytest
import torch

from purifier import OptionError
from purifier.training.alloy import AlloyTraining
from purifier.training.alloy.recipe import relative_distance
from purifier.training.extractors import Extractor, load_extractors, read_extractors
from purifier.training.label_free import divergence
from purifier.training.perturbations import Source, Sources, Strength, read_sources, resolve_sources
from tests.training.alloy.builders import TINY

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TINY_ONE, CLASSIFIER = load_extractors(read_extractors(TINY["extractors"]))
PROBE = torch.rand(1, 3, 16, 16)
CLASSIFIERS = [one for one in (TINY_ONE, CLASSIFIER) if one.classifies(PROBE)]


def made(*lines: str, **changes: object) -> Sources:
    config = AlloyTraining(**changes)  # type: ignore[arg-type]
    return Sources(Strength(config.eps_low, config.eps, config.attack_alpha), resolved(*lines))


def resolved(*lines: str) -> list[Source]:
    return resolve_sources(read_sources(lines), [TINY_ONE, CLASSIFIER], CLASSIFIERS)


def test_a_star_splits_its_share_evenly_among_the_possible_extractors() -> None:
    found = resolved("ssp:*:0.6:2", "kl:*:0.3:1-4", "none:0.1")
    assert [(line.kind, extractor, line.share, line.steps) for line, extractor in found] == [
        ("ssp", TINY_ONE, 0.3, (2, 2)),
        ("ssp", CLASSIFIER, 0.3, (2, 2)),
        ("kl", CLASSIFIER, 0.3, (1, 4)),
        ("none", None, 0.1, (0, 0)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "ssp:clasifier:1:2",
            r"one of the extractors \(tiny, classifier\), got ssp:clasifier; did you mean 'classifier'\?",
        ),
        ("kl:tiny:1:2", r"extractors with logits \(N, K\), as kl attacks them \(classifier\), got kl:tiny"),
    ],
)
def test_an_unknown_extractor_or_one_that_does_not_classify_is_refused(line: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        resolved(line)


def test_a_star_is_refused_if_no_extractor_classifies() -> None:
    with pytest.raises(OptionError, match=r"\(none here\), got kl:\*; change it or leave it out"):
        resolve_sources(read_sources(["kl:*:1:2"]), [TINY_ONE], [])


def test_sources_are_drawn_as_often_as_their_shares_say() -> None:
    # The shares sum to 2, because they are relative.
    sources = made("ssp:tiny:0.6:1", "kl:classifier:0.8:1", "gaussian:0.4", "sign:0", "none:0.2")
    counts = dict.fromkeys(("ssp", "kl", "gaussian", "sign", "none"), 0)
    for _ in range(4000):
        counts[sources.draw()[0].kind] += 1
    for kind, share in {"ssp": 0.3, "kl": 0.4, "gaussian": 0.2, "sign": 0.0, "none": 0.1}.items():
        # Four standard deviations.
        assert abs(counts[kind] / 4000 - share) <= 4 * (share * (1 - share) / 4000) ** 0.5


LINES = [
    "ssp:tiny:1:2",
    "ssp:classifier:1:2",
    "kl:classifier:1:2",
    "mi:classifier:1:2",
    "di:classifier:1:2",
    "square:classifier:1:2",
]


@pytest.mark.parametrize("line", [*LINES, "gaussian:1", "sign:1"])
def test_perturbed_images_stay_in_the_ball_and_in_range(line: str) -> None:
    sources = made(line, eps=8 / 255, eps_low=8 / 255)
    perturbed = sources.perturb(IMAGES, *sources.draw())
    assert perturbed.shape == IMAGES.shape and perturbed.min() >= 0 and perturbed.max() <= 1
    reach = (perturbed - IMAGES).abs().flatten(1).amax(1)
    assert torch.allclose(reach, torch.full((4,), 8 / 255), atol=1e-5)
    assert not perturbed.requires_grad


def test_l2_attacks_have_the_length_of_eps_at_every_value() -> None:
    sources = made("l2:classifier:1:4", eps=8 / 255, eps_low=8 / 255)
    grey = torch.full_like(IMAGES, 0.5)
    moves = sources.perturb(grey, *sources.draw()) - grey
    assert torch.allclose(moves.square().mean((1, 2, 3)).sqrt(), torch.tensor(8 / 255), rtol=0.01)
    assert moves.abs().max() > 9 / 255


def test_the_source_none_leaves_images_clean() -> None:
    sources = made("none:1")
    assert torch.equal(sources.perturb(IMAGES, *sources.draw()), IMAGES)


def test_sign_noise_is_of_one_size_and_of_both_signs() -> None:
    grey, sources = torch.full((1, 3, 32, 32), 0.5), made("sign:1", eps=0.1, eps_low=0.1)
    noise = sources.perturb(grey, *sources.draw()) - grey
    assert torch.allclose(noise.abs(), torch.tensor(0.1)) and abs(noise.mean()) < 0.01


def test_each_draw_has_a_strength_between_the_two() -> None:
    grey, sources = torch.full((1, 3, 8, 8), 0.5), made("sign:1", eps=18 / 255, eps_low=4 / 255)
    found = torch.stack([(sources.perturb(grey, *sources.draw()) - grey).abs().max() for _ in range(60)])
    assert found.min() >= 4 / 255 - 1e-6 and found.max() <= 18 / 255 + 1e-6
    assert found.min() < 6 / 255 and found.max() > 16 / 255


@pytest.mark.parametrize(("steps", "largest", "least"), [("1", 0.75, 0.75), ("2-4", 0.75, 1.0), ("4", 0.3, 1.0)])
def test_steps_are_long_enough_to_reach_eps(steps: str, largest: float, least: float) -> None:
    # MI-FGSM starts at the clean image, so that its longest move is the sum of its steps, at most eps.
    sources = made(f"mi:classifier:1:{steps}", attack_alpha=largest, eps=8 / 255, eps_low=8 / 255)
    grey = torch.full_like(IMAGES[:1], 0.5)
    for _ in range(20):
        reach = (sources.perturb(grey, *sources.draw()) - grey).abs().max().item()
        assert reach == pytest.approx(least * 8 / 255, rel=1e-4)


def moved(extractor: Extractor, images: torch.Tensor) -> float:
    return relative_distance(extractor.features(images), extractor.features(IMAGES)).item()


def divergence_of(images: torch.Tensor) -> float:
    return divergence(CLASSIFIER(images), CLASSIFIER(IMAGES).softmax(1)).mean().item()


ON_PREDICTIONS = (
    "kl:classifier:1:4",
    "l2:classifier:1:4",
    "mi:classifier:1:4",
    "di:classifier:1:4",
    "square:classifier:1:20",
)


def test_attacks_change_their_target_more_than_noise_of_the_same_size() -> None:
    strength = {"eps": 0.06, "eps_low": 0.06}
    perturbed = {
        line: (sources := made(line, **strength)).perturb(IMAGES, *sources.draw())
        for line in ("ssp:tiny:1:4", "ssp:classifier:1:4", *ON_PREDICTIONS, "sign:1")
    }
    assert moved(TINY_ONE, perturbed["ssp:tiny:1:4"]) > 1.5 * moved(TINY_ONE, perturbed["sign:1"])
    assert moved(CLASSIFIER, perturbed["ssp:classifier:1:4"]) > 1.5 * moved(CLASSIFIER, perturbed["sign:1"])
    for line in ON_PREDICTIONS:
        assert divergence_of(perturbed[line]) > 1.5 * divergence_of(perturbed["sign:1"]), line


def test_equal_seeds_give_equal_images() -> None:
    sources = made("ssp:*:1:1-3", "kl:classifier:1:2", "gaussian:1", "sign:1")

    def once() -> torch.Tensor:
        torch.manual_seed(11)
        return torch.cat([sources.perturb(IMAGES, *sources.draw()) for _ in range(6)])

    assert torch.equal(once(), once())
