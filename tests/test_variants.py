"""Chains and dynamic inference: purifiers made of purifiers, with shared weights."""

from __future__ import annotations

import inspect

import pytest
import torch

from purifier import OptionError, Purifier
from tests.builders import pictures, small_method, small_purifier

IMAGES = pictures(2, 3, 14, 11)


def test_a_chain_applies_its_links_in_order() -> None:
    one, two = small_purifier("jpeg"), small_purifier("gs")
    assert torch.equal(Purifier.chain(one, two)(IMAGES), two(one(IMAGES)))
    assert torch.equal(Purifier.chain(two, one)(IMAGES), one(two(IMAGES)))
    assert Purifier.chain(two, one).name == "gs+jpeg"


def test_a_chain_of_names_loads_them() -> None:
    chained = Purifier.chain("gs", "bit-depth")
    one, two = Purifier.from_pretrained("gs"), Purifier.from_pretrained("bit-depth")
    assert torch.equal(chained(IMAGES), two(one(IMAGES)))


def test_values_are_clamped_between_the_links() -> None:
    wild = small_purifier("nrp")
    with torch.no_grad():
        wild.method.trunk_conv.bias.add_(5)
    assert torch.equal(
        Purifier.chain(wild, small_purifier("gs"))(IMAGES), small_purifier("gs")(torch.ones_like(IMAGES))
    )


def test_a_chain_shares_the_weights_of_its_links() -> None:
    link = small_purifier("ncis")
    chained = Purifier.chain("gs", link)
    assert {p.data_ptr() for p in chained.parameters()} == {p.data_ptr() for p in link.parameters()}


def test_a_chain_of_chains_is_a_chain(tmp_path: object) -> None:
    nested = Purifier.chain(Purifier.chain("gs", "median"), "bit-depth")
    flat = Purifier.chain("gs", "median", "bit-depth")
    assert torch.equal(nested(IMAGES), flat(IMAGES))
    nested.save_pretrained(str(tmp_path))
    assert torch.equal(Purifier.from_pretrained(str(tmp_path))(IMAGES), flat(IMAGES))


def test_names_in_a_chain_get_the_device_and_dtype_of_the_purifiers() -> None:
    chained = Purifier.chain("gs", small_purifier("ncis").to(torch.bfloat16))
    assert chained.dtype == torch.bfloat16
    assert chained(IMAGES).isfinite().all()


def test_a_chain_leaves_its_links_as_they_are_and_refuses_mixed_ones() -> None:
    single, half = small_purifier("gs"), small_purifier("ncis").to(torch.bfloat16)
    with pytest.raises(OptionError, match=r"expected purifiers on one device and in one dtype .*; move them with \.to"):
        Purifier.chain(single, half)
    assert (single.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert half(IMAGES).isfinite().all()


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(OptionError, match="expected at least one purifier to chain, got none"):
        Purifier.chain()


def test_iterations_of_a_chain_are_those_of_its_only_iterated_link() -> None:
    chained = Purifier.chain("jpeg", "gs")
    chained.iterations = 2
    assert chained.iterations == 2
    one, two = Purifier.from_pretrained("jpeg"), Purifier.from_pretrained("gs", iterations=2)
    assert torch.equal(chained(IMAGES), two(one(IMAGES)))


@pytest.mark.parametrize("names", [("gs", "gs"), ("jpeg",)])
def test_iterations_of_none_or_several_iterated_links_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match=f"with {len(names) - 1 if len(names) == 1 else 2}; set it on the purifier"):
        Purifier.chain(*names).iterations = 3


def test_dynamic_inference_adds_noise_within_eps_before_purifying() -> None:
    plain = small_purifier("gs")
    identity = Purifier.from_pretrained("gs", iterations=0).dynamic(sigma=1, eps=0.1)
    grey = torch.full((1, 3, 30, 30), 0.5)
    assert (identity(grey) - grey).abs().max() == pytest.approx(0.1, abs=1e-6)
    assert torch.equal(plain.dynamic(sigma=0)(IMAGES), plain(IMAGES))
    noisy = plain.dynamic(sigma=0.05, eps=16 / 255)
    torch.manual_seed(2)
    out = noisy(IMAGES)
    torch.manual_seed(2)
    noise = (0.05 * torch.randn(IMAGES.shape)).clamp(-16 / 255, 16 / 255)
    torch.testing.assert_close(out, plain((IMAGES + noise).clamp(0, 1)))


def test_dynamic_inference_follows_its_generator() -> None:
    generator = torch.Generator().manual_seed(5)
    dynamic = small_purifier("gs").dynamic(generator=generator)
    first, second = dynamic(IMAGES), dynamic(IMAGES)
    generator.manual_seed(5)
    assert torch.equal(dynamic(IMAGES), first)
    assert not torch.equal(first, second)


def test_dynamic_inference_says_that_it_is_random_and_shares_weights() -> None:
    plain = small_purifier("ncis")
    dynamic = plain.dynamic()
    assert (plain.random, dynamic.random) == (False, True)
    assert dynamic.name == "ncis-dynamic"
    assert {p.data_ptr() for p in dynamic.parameters()} == {p.data_ptr() for p in plain.parameters()}


@pytest.mark.parametrize(("option", "value"), [("sigma", -0.1), ("eps", 16), ("sigma", "much")])
def test_wrong_options_of_dynamic_inference_are_refused(option: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"expected {option} to be a number from 0 to 1, got"):
        small_purifier("gs").dynamic(**{option: value})  # type: ignore[arg-type]


def test_variants_of_the_same_weights_keep_the_card_and_a_chain_has_none() -> None:
    plain = small_purifier("ncis")
    plain.card = "# measured"
    assert (plain.tiled(16).card, plain.dynamic().card) == ("# measured", "# measured")
    assert Purifier.chain(plain, "gs").card is None


def test_a_link_that_is_not_a_purifier_is_refused() -> None:
    with pytest.raises(OptionError, match=r"expected a purifier, or the name, .*, got NoneType; give one of"):
        Purifier.chain("gs", None)  # type: ignore[arg-type]


def test_a_variant_follows_the_weights_that_it_shares() -> None:
    plain = small_purifier("ncis")
    variants = [plain.tiled(16), plain.dynamic(), Purifier.chain("gs", plain)]
    plain.to(torch.bfloat16)
    for variant in variants:
        assert variant.dtype == torch.bfloat16
        assert variant(IMAGES).isfinite().all()


def test_differentiable_is_false_if_one_link_is_not() -> None:
    assert Purifier.chain("gs", "median").differentiable
    assert not Purifier.chain("gs", "jpeg").differentiable


def gated_alloy(**options: object) -> Purifier:
    return Purifier(small_method("alloy", **{"gate": 3, "gate_bias": 0.4, **options}), name="mine")


def test_repr_shows_the_options_of_every_method() -> None:
    shown = repr(Purifier.chain("jpeg", Purifier.from_pretrained("gs", iterations=2).gated(gated_alloy())))
    for part in ("JPEG(quality=90)", "iterations=2", "gate_bias=0.4"):
        assert part in shown


def test_a_list_of_purifiers_is_refused_with_advice() -> None:
    with pytest.raises(OptionError, match=r"got list; give several to chain one by one: Purifier\.chain"):
        Purifier.chain(["gs", "jpeg"])  # type: ignore[arg-type]


def test_a_gated_purifier_weighs_by_the_gate_of_an_alloy() -> None:
    plain, alloy = small_purifier("ncis"), gated_alloy()
    gated = plain.gated(alloy)
    weights = alloy.method.gate(IMAGES, 0.4)
    torch.testing.assert_close(gated(IMAGES), IMAGES + weights * (plain(IMAGES) - IMAGES))
    assert gated.name == "ncis-gated" and "purifier ncis behind the gate of mine" in gated.card
    assert (
        gated.method.options["gate_bias"] == 0.4 and plain.gated(alloy, gate_bias=-3).method.options["gate_bias"] == -3
    )


def test_a_gated_purifier_shares_the_weights_of_the_purifier_and_copies_the_gate() -> None:
    plain, alloy = small_purifier("ncis"), gated_alloy()
    gated = plain.gated(alloy).to(torch.bfloat16)
    assert {p.data_ptr() for p in plain.parameters()} <= {p.data_ptr() for p in gated.parameters()}
    assert (plain.dtype, alloy.dtype) == (torch.bfloat16, torch.float32)


def test_a_gated_purifier_goes_where_the_purifier_is_and_keeps_its_tiles() -> None:
    gated = small_purifier("ncis").to(torch.bfloat16).tiled(16).gated(gated_alloy())
    assert {p.dtype for p in gated.parameters()} == {torch.bfloat16} and "tile=16" in repr(gated)
    whole, images = small_purifier("ncis").gated(gated_alloy()), pictures(1, 3, 40, 50)
    assert (gated(images) - whole(images)).abs().max() < 0.02


def test_iterations_differentiable_and_random_are_those_behind_the_gate() -> None:
    alloy = gated_alloy()
    gated = small_purifier("ncis").gated(alloy)
    gated.iterations = 1
    once = small_purifier("ncis")
    once.iterations = 1
    assert torch.equal(gated(IMAGES), once.gated(alloy)(IMAGES))
    assert (gated.differentiable, gated.random) == (True, False)
    assert small_purifier("dynamic").gated(alloy).random


def test_the_shipped_gate_works_with_a_shipped_purifier(tmp_path: object) -> None:
    gated = Purifier.from_pretrained("gs").gated()
    images = pictures(1, 3, 64, 64)
    gated.save_pretrained(str(tmp_path))
    assert torch.equal(Purifier.from_pretrained(str(tmp_path))(images), gated(images))
    # The gate takes noise for an attack, but not a smooth image.
    torch.testing.assert_close(gated(images), Purifier.from_pretrained("gs")(images), rtol=0, atol=0.02)
    flat = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    torch.testing.assert_close(gated(flat), flat, rtol=0, atol=1e-3)


def test_a_gate_can_come_from_a_gated_purifier_and_draws_no_random_number() -> None:
    first, plain = small_purifier("gs").gated(gated_alloy()), small_purifier("ncis")
    before = torch.get_rng_state()
    second = plain.gated(first)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(second(IMAGES), small_purifier("ncis").gated(gated_alloy())(IMAGES))


@pytest.mark.parametrize("name", ["ncis", "alloy-s", "nrp-resg", "gs"])
def test_loading_draws_no_random_number(name: str) -> None:
    before = torch.get_rng_state()
    Purifier.from_pretrained(name)
    assert torch.equal(before, torch.get_rng_state())


def test_options_of_the_purifier_behind_a_gate_can_be_changed(tmp_path: object) -> None:
    small_purifier("ncis").gated(gated_alloy()).save_pretrained(str(tmp_path))
    loaded = Purifier.from_pretrained(str(tmp_path), iterations=1, gate_bias=-2.0)
    plain = small_purifier("ncis")
    plain.iterations = 1
    assert torch.equal(loaded(IMAGES), plain.gated(gated_alloy(), gate_bias=-2.0)(IMAGES))


@pytest.mark.parametrize("name", ["alloy", "gated", "chain"])
def test_a_second_gate_is_refused(name: str) -> None:
    once = gated_alloy() if name == "alloy" else small_purifier("gs").gated(gated_alloy())
    with pytest.raises(OptionError, match=r"expected a purifier without a gate, got .* which has one"):
        (Purifier.chain(once, "gs") if name == "chain" else once).gated(gated_alloy())


@pytest.mark.parametrize("name", ["jpeg", "bit-depth"])
def test_a_gate_for_a_purifier_without_gradient_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"expected a purifier with an exact gradient to gate, got '{name}'"):
        Purifier.from_pretrained(name).gated(gated_alloy())


def test_a_source_without_a_gate_is_refused() -> None:
    for other in (gated_alloy(gate=0), small_purifier("gs"), "gs"):
        with pytest.raises(OptionError, match=r"expected a purifier with a gate, .*, got .*, without one"):
            small_purifier("ncis").gated(other)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["bit-depth", "jpeg", "median", "nrp-resg", "resize-pad", "tvm", "wavelet-sr"])
def test_a_purifier_without_iterations_has_no_such_attribute(name: str) -> None:
    purify = Purifier.from_pretrained(name)
    assert not hasattr(purify, "iterations")
    assert "name" in dict(inspect.getmembers(purify))
    with pytest.raises(OptionError, match=f"expected a purifier with one iterated method, got '{name}' with 0"):
        _ = purify.iterations


@pytest.mark.filterwarnings("ignore")
def test_a_purifier_without_iterations_is_traced() -> None:
    purify = Purifier.from_pretrained("median")
    traced = torch.jit.trace(purify.wrap(torch.nn.Identity()), (pictures(1, 3, 12, 12),))
    assert torch.equal(traced(pictures(1, 3, 12, 12)), purify(pictures(1, 3, 12, 12)))
