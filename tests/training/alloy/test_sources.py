"""Sources: drawn by their shares, strengths within their range, attacks that do what they say."""

from __future__ import annotations

import pytest
import torch

from purifier import OptionError
from purifier.training._divergence import divergence
from purifier.training.alloy import AlloyTraining
from purifier.training.alloy import _sources as module
from purifier.training.alloy._extractors import Extractor, load_extractors
from purifier.training.alloy._lines import read_extractors, read_sources
from purifier.training.alloy._losses import relative_distance
from purifier.training.alloy._sources import Source, Sources, resolve_sources
from tests.training.alloy.builders import TINY

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TINY_ONE, JUDGE = load_extractors(read_extractors(TINY["extractors"]))
PROBE = torch.rand(1, 3, 16, 16)
CLASSIFIERS = [one for one in (TINY_ONE, JUDGE) if one.classifies(PROBE)]


def same(images: torch.Tensor) -> torch.Tensor:
    return images


def made(*lines: str, purify=same, **changes: object) -> Sources:
    config = AlloyTraining(**changes)  # type: ignore[arg-type]
    return Sources(config, resolve_sources(read_sources(lines), [TINY_ONE, JUDGE], CLASSIFIERS), purify)


def resolved(*lines: str) -> list[Source]:
    return resolve_sources(read_sources(lines), [TINY_ONE, JUDGE], CLASSIFIERS)


def test_a_star_shares_evenly_among_the_extractors_that_can_be_attacked_so():
    found = resolved("ssp:*:0.6:2", "kl:*:0.3:1-4", "none:0.1")
    assert [(one.kind, one.extractor, one.share, one.steps) for one in found] == [
        ("ssp", TINY_ONE, 0.3, (2, 2)),
        ("ssp", JUDGE, 0.3, (2, 2)),
        ("kl", JUDGE, 0.3, (1, 4)),
        ("none", None, 0.1, (0, 0)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ssp:juge:1:2", r"one of the extractors \(tiny, judge\), got ssp:juge; did you mean 'judge'\?"),
        ("kl:tiny:1:2", r"extractors with logits \(N, K\), as kl attacks them \(judge\), got kl:tiny"),
    ],
)
def test_an_extractor_that_there_is_not_or_that_is_no_classifier_is_refused(line, message):
    with pytest.raises(OptionError, match=message):
        resolved(line)


def test_a_star_that_stands_for_no_classifier_is_refused():
    with pytest.raises(OptionError, match=r"\(none here\), got kl:\*; change it or leave it out"):
        resolve_sources(read_sources(["kl:*:1:2"]), [TINY_ONE], [])


def test_sources_are_drawn_as_often_as_their_shares_say():
    # Twice 1, so that shares are relative.
    sources = made("ssp:tiny:0.6:1", "kl:judge:0.8:1", "gaussian:0.4", "sign:0", "none:0.2")
    counts = dict.fromkeys(("ssp", "kl", "gaussian", "sign", "none"), 0)
    for _ in range(4000):
        counts[sources.draw().kind] += 1
    for kind, share in {"ssp": 0.3, "kl": 0.4, "gaussian": 0.2, "sign": 0.0, "none": 0.1}.items():
        # Four standard deviations.
        assert abs(counts[kind] / 4000 - share) <= 4 * (share * (1 - share) / 4000) ** 0.5


LINES = ["ssp:tiny:1:2", "ssp:judge:1:2", "kl:judge:1:2", "mi:judge:1:2", "di:judge:1:2", "square:judge:1:2"]


@pytest.mark.parametrize("line", [*LINES, "gaussian:1", "sign:1"])
def test_spoilt_images_stay_in_the_ball_and_in_range(line):
    sources = made(line, eps=8 / 255, eps_low=8 / 255)
    spoilt = sources.spoil(IMAGES, sources.draw())
    assert spoilt.shape == IMAGES.shape and spoilt.min() >= 0 and spoilt.max() <= 1
    reach = (spoilt - IMAGES).abs().flatten(1).amax(1)
    assert torch.allclose(reach, torch.full((4,), 8 / 255), atol=1e-5)
    assert not spoilt.requires_grad


def test_in_l2_images_are_spoilt_as_far_as_eps_at_every_value_goes():
    sources = made("l2:judge:1:4", eps=8 / 255, eps_low=8 / 255)
    grey = torch.full_like(IMAGES, 0.5)
    moves = sources.spoil(grey, sources.draw()) - grey
    assert torch.allclose(moves.square().mean((1, 2, 3)).sqrt(), torch.tensor(8 / 255), rtol=0.01)
    assert moves.abs().max() > 9 / 255


def test_without_spoiling_the_images_are_the_clean_ones():
    sources = made("none:1")
    assert torch.equal(sources.spoil(IMAGES, sources.draw()), IMAGES)


def test_sign_noise_is_of_one_size_and_of_both_signs():
    grey, sources = torch.full((1, 3, 32, 32), 0.5), made("sign:1", eps=0.1, eps_low=0.1)
    noise = sources.spoil(grey, sources.draw()) - grey
    assert torch.allclose(noise.abs(), torch.tensor(0.1)) and abs(noise.mean()) < 0.01


def test_each_draw_has_a_strength_between_the_two():
    grey, sources = torch.full((1, 3, 8, 8), 0.5), made("sign:1", eps=18 / 255, eps_low=4 / 255)
    found = torch.stack([(sources.spoil(grey, sources.draw()) - grey).abs().max() for _ in range(60)])
    assert found.min() >= 4 / 255 - 1e-6 and found.max() <= 18 / 255 + 1e-6
    assert found.min() < 6 / 255 and found.max() > 16 / 255


@pytest.mark.parametrize(
    ("largest", "low"), [(0.75, {2: 1 / 2, 3: 1 / 3, 4: 1 / 4}), (0.3, {2: 0.3, 3: 0.3, 4: 1 / 4})]
)
def test_steps_are_drawn_from_their_range_and_are_long_enough_to_reach_eps(monkeypatch, largest, low):
    seen = []

    class Recorded(module.SSP):
        def __init__(self, *given, **options):
            seen.append((options["steps"], options["alpha"] / options["eps"]))
            super().__init__(*given, **options)

    monkeypatch.setattr(module, "SSP", Recorded)
    sources = made("ssp:tiny:1:2-4", attack_alpha=largest)
    for _ in range(60):
        sources.spoil(IMAGES[:1], sources.draw())
    assert {steps for steps, _ in seen} == {2, 3, 4}
    for number, least in low.items():
        shares = [share for steps, share in seen if steps == number]
        assert least - 1e-9 <= min(shares) and max(shares) <= largest + 1e-9
        assert least == largest or max(shares) - min(shares) > (largest - least) / 2


def moved(extractor: Extractor, images: torch.Tensor) -> float:
    return relative_distance(extractor.features(images), extractor.features(IMAGES)).item()


def beliefs_lost(images: torch.Tensor) -> float:
    return divergence(JUDGE(images), JUDGE(IMAGES).softmax(1)).mean().item()


ON_BELIEFS = ("kl:judge:1:4", "l2:judge:1:4", "mi:judge:1:4", "di:judge:1:4", "square:judge:1:20")


def test_attacks_do_more_to_what_they_attack_than_noise_of_the_same_size():
    strength = {"eps": 0.06, "eps_low": 0.06}
    spoilt = {
        line: (sources := made(line, **strength)).spoil(IMAGES, sources.draw())
        for line in ("ssp:tiny:1:4", "ssp:judge:1:4", *ON_BELIEFS, "sign:1")
    }
    assert moved(TINY_ONE, spoilt["ssp:tiny:1:4"]) > 1.5 * moved(TINY_ONE, spoilt["sign:1"])
    assert moved(JUDGE, spoilt["ssp:judge:1:4"]) > 1.5 * moved(JUDGE, spoilt["sign:1"])
    for line in ON_BELIEFS:
        assert beliefs_lost(spoilt[line]) > 1.5 * beliefs_lost(spoilt["sign:1"]), line


@pytest.mark.parametrize("line", ["ssp:tiny:1:2", "kl:judge:1:2", "mi:judge:1:2"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_only_aware_attacks_go_through_the_purifier(line, share):
    calls = []

    def purify(images: torch.Tensor) -> torch.Tensor:
        calls.append(images.requires_grad)
        return images * 0.5 + 0.2

    sources = made(line, purify=purify, aware_share=share)
    spoilt = sources.spoil(IMAGES, sources.draw())
    assert any(calls) == bool(share)
    assert (spoilt - IMAGES).abs().max() <= 18 / 255 + 1e-6 and not torch.equal(spoilt, IMAGES)


def test_equal_seeds_give_equal_images():
    sources = made("ssp:*:1:1-3", "kl:judge:1:2", "gaussian:1", "sign:1")

    def once() -> torch.Tensor:
        torch.manual_seed(11)
        return torch.cat([sources.spoil(IMAGES, sources.draw()) for _ in range(6)])

    assert torch.equal(once(), once())
