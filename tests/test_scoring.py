"""Attack scores and maps of purifiers with a gate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from purifier import InputError, OptionError, Purifier
from purifier.methods.gated import gate_of
from tests.builders import pictures, small_method, small_purifier

IMAGES = torch.cat((pictures(1, 3, 45, 66), 0.5 * pictures(1, 3, 45, 66, seed=1)))


def alloy(**options: object) -> Purifier:
    method = small_method("alloy", **{"iterations": 1, "gate": 3, **options})
    with torch.no_grad():
        method.gate.layers[-1].weight.mul_(5)
    return Purifier(method.requires_grad_(False), name="small")


def cells_of(purifier: Purifier, images: Tensor) -> Tensor:
    gate = gate_of(purifier.method)
    assert gate is not None
    return gate.logits(images).sigmoid()


def test_the_map_is_the_probability_of_the_gate_and_the_score_its_mean() -> None:
    purifier = alloy()
    scores, places = purifier.attack_score(IMAGES), purifier.attack_map(IMAGES)
    assert scores.shape == (2,) and places.shape == (2, 1, 45, 66)
    assert places.std() > 0.001 and scores[0] != scores[1]
    torch.testing.assert_close(scores, cells_of(purifier, IMAGES).mean((1, 2, 3)))
    torch.testing.assert_close(places[..., 4:45:8, 4:66:8], purifier.method.gate(IMAGES)[..., 4:45:8, 4:66:8])
    whole = IMAGES[..., :40, :64]
    torch.testing.assert_close(purifier.attack_score(whole), purifier.attack_map(whole).mean((1, 2, 3)))


def test_scores_depend_on_neither_gate_bias_nor_gate_floor_nor_gate_threshold() -> None:
    assert torch.equal(
        alloy(gate_bias=3.0, gate_floor=0.5, gate_threshold=0.5).attack_score(IMAGES), alloy().attack_score(IMAGES)
    )
    assert torch.equal(
        alloy(gate_bias=3.0, gate_floor=0.5, gate_threshold=0.5).attack_map(IMAGES), alloy().attack_map(IMAGES)
    )


def test_one_image_has_one_score_and_one_map() -> None:
    purifier = alloy()
    score, places = purifier.attack_score(IMAGES[1]), purifier.attack_map(IMAGES[1])
    assert score.shape == () and places.shape == (1, 45, 66)
    torch.testing.assert_close(score, purifier.attack_score(IMAGES)[1])
    torch.testing.assert_close(places, purifier.attack_map(IMAGES)[1])


def test_leading_dimensions_are_kept_and_no_image_has_no_score() -> None:
    purifier = alloy()
    video = IMAGES.expand(2, 2, 3, 45, 66)
    assert purifier.attack_score(video).shape == (2, 2) and purifier.attack_map(video).shape == (2, 2, 1, 45, 66)
    assert purifier.attack_score(IMAGES[:0]).shape == (0,)
    assert purifier.attack_map(IMAGES[:0]).shape == (0, 1, 45, 66)
    scores = purifier.attack_score(IMAGES.to("meta"))
    assert scores.shape == (2,) and scores.is_meta


@pytest.mark.parametrize("size", [16, 24, 64])
def test_tiles_change_no_score(size: int) -> None:
    purifier, images = alloy(), pictures(2, 3, 150, 131)
    torch.testing.assert_close(purifier.tiled(size).attack_score(images), purifier.attack_score(images))
    torch.testing.assert_close(purifier.tiled(size).attack_map(images), purifier.attack_map(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_scores_a_little(dtype: torch.dtype) -> None:
    exact = alloy().attack_score(IMAGES)
    half = alloy().to(dtype=dtype).attack_score(IMAGES.to(dtype))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0, atol=0.05)


def test_gradients_of_scores_are_exact() -> None:
    purifier, image = alloy().double(), IMAGES[:1, :, :16, :16].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: purifier.attack_score(x), (image,), atol=1e-6)


def test_a_chain_scores_what_reaches_its_gate() -> None:
    first = small_purifier("gs")
    chain = Purifier.chain(first, alloy(), small_purifier("median"))
    torch.testing.assert_close(chain.attack_score(IMAGES), alloy().attack_score(first(IMAGES)))
    torch.testing.assert_close(chain.attack_map(IMAGES), alloy().attack_map(first(IMAGES)))
    torch.testing.assert_close(chain.tiled(24).attack_score(IMAGES), chain.attack_score(IMAGES))


def test_any_purifier_behind_a_gate_has_scores() -> None:
    gated = small_purifier("ncis").gated(alloy())
    assert torch.equal(gated.attack_score(IMAGES), alloy().attack_score(IMAGES))


def test_without_a_gate_or_with_two_the_error_says_what_to_do() -> None:
    with pytest.raises(OptionError, match=r"got 'gs' with none; put one in front: purifier\.gated\(\)"):
        small_purifier("gs").attack_score(IMAGES)
    with pytest.raises(OptionError, match=r"got 'small\+small' with 2; use one of those purifiers alone"):
        Purifier.chain(alloy(), alloy()).attack_map(IMAGES)


def test_wrong_images_are_refused() -> None:
    with pytest.raises(InputError, match="expected images of shape"):
        alloy().attack_score(IMAGES[0, 0])
    with pytest.raises(InputError, match="divide by 255"):
        alloy().attack_map(255 * IMAGES)


@pytest.mark.parametrize("tile", [None, 24])
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_purifying_and_scoring_at_once_equals_both_apart(iterations: int, tile: int | None) -> None:
    purifier = alloy(iterations=iterations, gate_floor=0.2)
    purifier = purifier if tile is None else purifier.tiled(tile)
    purified, scores = purifier.purify_and_score(IMAGES)
    assert torch.equal(purified, purifier(IMAGES))
    torch.testing.assert_close(scores, purifier.attack_score(IMAGES))
    one, score = purifier.purify_and_score(IMAGES[0])
    assert one.shape == IMAGES[0].shape and score.shape == ()


def test_purifying_and_scoring_at_once_computes_the_gate_once() -> None:
    purifier, calls = alloy(), []
    purifier.method.gate.layers.register_forward_hook(lambda *_: calls.append(1))
    purifier.purify_and_score(IMAGES)
    assert len(calls) == 1
    purifier(IMAGES), purifier.attack_score(IMAGES)
    assert len(calls) == 3


def test_scores_beside_purified_images_have_no_gradient() -> None:
    purified, scores = alloy().purify_and_score(IMAGES.clone().requires_grad_())
    assert purified.requires_grad and not scores.requires_grad
