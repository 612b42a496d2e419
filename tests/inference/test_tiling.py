"""Tiles give the output and the gradient of the whole image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from purifier import OptionError, Purifier
from purifier.methods import Stage
from tests.builders import pictures, small_method, small_purifier

CASES = {
    "alloy": {"blocks": 1},
    "alloy with large patches": {"blocks": 1, "patch": 3},
    "alloy with blur": {"blocks": 1, "patch": 3, "blur": 2},
    "alloy with a gate": {"blocks": 1, "patch": 3, "iterations": 1, "gate": 3},
    "alloy with a deep gate": {"blocks": 1, "patch": 3, "iterations": 1, "gate": 3, "gate_blocks": 1},
    "alloy with scales": {"blocks": 1, "levels": 2, "iterations": 1},
    "bit-depth": {},
    "gated": {},
    "gated with large patches": {"method": small_method("alloy", blocks=1, patch=3, iterations=2)},
    "gs": {"kernel_size": 5, "iterations": 7},
    "jpeg": {"quality": 60},
    "median": {"kernel_size": 5},
    "ncis": {"iterations": 3},
    "ncis with an odd halo": {"iterations": 2, "layers": 2, "kernel_size": 23},
    "nrp": {"blocks": 1},
    "nrp-resg": {"blocks": 2},
}
SIZES = [(64, 96), (65, 97), (71, 33), (16, 130), (129, 17), (1, 70), (40, 40)]


def pair(name: str, size: int) -> tuple[Purifier, Purifier]:
    whole = small_purifier("chain") if name == "chain" else Purifier(small_method(name.split()[0], **CASES[name]))
    return whole, whole.tiled(size)


@pytest.mark.parametrize("name", [*CASES, "chain"])
@pytest.mark.parametrize("size", [16, 32, 41])
@pytest.mark.parametrize("shape", SIZES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_tiles_give_the_output_of_the_whole_image(name: str, size: int, shape: tuple[int, int]) -> None:
    whole, tiled = pair(name, size)
    images = pictures(2, 3, *shape)
    torch.testing.assert_close(tiled(images), whole(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [*CASES, "chain"])
def test_tiles_give_the_gradient_of_the_whole_image(name: str) -> None:
    whole, tiled = pair(name, 16)
    images, weights = pictures(1, 3, 45, 38), pictures(1, 3, 45, 38, seed=1)

    def gradient(purify: Purifier) -> Tensor:
        leaf = images.clone().requires_grad_()
        return torch.autograd.grad((purify(leaf) * weights).sum(), leaf)[0]

    torch.testing.assert_close(gradient(tiled), gradient(whole), rtol=0, atol=1e-5)
    assert gradient(tiled).any() == whole.differentiable


def test_a_halo_that_is_too_small_changes_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, tiled = pair("gs", 16)
    (stage,) = tiled.method.stages()
    monkeypatch.setattr(type(tiled.method), "stages", lambda self: [Stage(stage.apply, halo=stage.halo - 8)])
    images = pictures(1, 3, 64, 64)
    assert (tiled(images) - whole(images)).abs().max() > 1e-5


def test_no_tile_is_larger_than_asked_for_plus_its_halo(monkeypatch: pytest.MonkeyPatch) -> None:
    _, tiled = pair("gs", 32)
    (stage,) = tiled.method.stages()
    seen = []

    def spy(images: Tensor) -> Tensor:
        seen.append(max(images.shape[-2:]))
        return stage.apply(images)

    monkeypatch.setattr(type(tiled.method), "stages", lambda self: [Stage(spy, stage.halo, stage.align)])
    tiled(pictures(1, 3, 200, 300))
    assert max(seen) == 32 + 2 * stage.halo


def test_an_image_of_one_tile_is_not_cut() -> None:
    whole, tiled = pair("ncis", 64)
    images = pictures(1, 3, 64, 50)
    assert torch.equal(tiled(images), whole(images))


def test_tiling_shares_the_weights_and_leaves_the_original_whole() -> None:
    whole, tiled = pair("ncis", 16)
    assert {p.data_ptr() for p in tiled.parameters()} == {p.data_ptr() for p in whole.parameters()}
    assert "tile=16" in repr(tiled)
    assert "tile" not in repr(whole)


def test_iterations_set_on_the_original_reach_the_tiles() -> None:
    whole, tiled = pair("ncis", 16)
    whole.iterations = 1
    images = pictures(1, 3, 40, 40)
    torch.testing.assert_close(tiled(images), whole(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["tvm", "resize-pad", "dynamic", "noise"])
def test_a_method_that_depends_on_the_whole_image_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"'.*' cannot be tiled: every output pixel depends on the whole image"):
        small_purifier(name).tiled(64)


def test_noise_before_tiles_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'gs-dynamic' cannot be tiled: .*; leave tiled\(\) out"):
        small_purifier("gs").tiled(64).dynamic()


def test_a_chain_has_the_smallest_tile_of_its_links() -> None:
    one, two = small_purifier("gs"), small_purifier("ncis")
    images = pictures(1, 3, 70, 45)
    for links in [(one.tiled(32), two), (one, two.tiled(32)), (one.tiled(64), two.tiled(32)), (one.tiled(32), "jpeg")]:
        chained = Purifier.chain(*links)
        assert "tile=32" in repr(chained)
    torch.testing.assert_close(
        Purifier.chain(one.tiled(32), two)(images), Purifier.chain(one, two)(images), rtol=0, atol=1e-5
    )
    assert "tile" not in repr(Purifier.chain(one, two))


@pytest.mark.parametrize("tiled_first", [True, False])
def test_a_chain_with_a_tiled_link_and_one_that_cannot_be_tiled_is_refused(tiled_first: bool) -> None:
    links = [small_purifier("gs").tiled(64), small_purifier("tvm")]
    with pytest.raises(OptionError, match=r"'.*\+.*' cannot be tiled: .*; leave tiled\(\) out"):
        Purifier.chain(*(links if tiled_first else reversed(links)))


@pytest.mark.parametrize("size", [0, 15, 64.0, "64"])
def test_a_wrong_tile_size_is_refused(size: object) -> None:
    with pytest.raises(OptionError, match="expected a tile size of at least 16 pixels, got"):
        small_purifier("gs").tiled(size)  # type: ignore[arg-type]
