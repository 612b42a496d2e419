"""Gated: the method where the gate detects an attack, the unchanged image elsewhere."""

from __future__ import annotations

import json

import pytest
import torch

from purifier import OptionError, WeightsError
from purifier.methods import build, describe, innermost
from purifier.methods.chain import Chain
from purifier.methods.gated import Gated
from tests.builders import pictures, small_method

IMAGES = pictures(2, 3, 24, 40)


def test_the_output_is_a_mean_of_image_and_clamped_method_weighted_by_the_gate() -> None:
    method = small_method("nrp-resg")
    with torch.no_grad():
        method.conv_last.bias.add_(0.6)
    gated = Gated(method, gate=3, gate_bias=0.7)
    purified, weights = method(IMAGES), gated.gate(IMAGES, 0.7)
    assert purified.max() > 1 and weights.std() > 0
    expected = weights * purified.clamp(0, 1) + (1 - weights) * IMAGES
    torch.testing.assert_close(gated(IMAGES), expected)


@pytest.mark.parametrize(("gate_bias", "open"), [(20.0, True), (-20.0, False)])
def test_gate_bias_opens_and_closes_the_gate(gate_bias: float, open: bool) -> None:
    method = small_method("ncis")
    gated = Gated(method, gate=3, gate_bias=gate_bias)
    torch.testing.assert_close(gated(IMAGES), method(IMAGES).clamp(0, 1) if open else IMAGES, rtol=0, atol=1e-5)


def test_the_halo_is_at_least_the_sum_of_the_methods_halos() -> None:
    near, far = small_method("gs", iterations=1), small_method("ncis", iterations=9, layers=4)
    (stage,) = Gated(near, gate=3).stages()
    assert stage.halo == Gated(near, gate=3).gate.halo and stage.align == 8
    (stage,) = Gated(far, gate=3).stages()
    assert stage.halo == sum(one.halo for one in far.stages()) > Gated(near, gate=3).gate.halo
    (stage,) = Gated(small_method("resize-pad"), gate=3).stages()
    assert stage.halo is None


def test_innermost_finds_the_methods_behind_nested_gates_and_chains() -> None:
    inner = [small_method("gs"), small_method("jpeg"), small_method("median")]
    nested = Chain([inner[0], Gated(Chain([Gated(inner[1], gate=3), inner[2]]), gate=3)])
    assert innermost(nested) == inner


def test_nested_composites_are_described_and_built() -> None:
    nested = Chain(
        [small_method("gs"), Gated(Chain([Gated(small_method("ncis"), gate=3), small_method("median")]), gate=2)]
    )
    description = json.loads(json.dumps(describe(nested)))
    built = build(description)
    built.load_state_dict(nested.state_dict())
    assert torch.equal(built(IMAGES), nested(IMAGES))
    assert description["options"]["links"][1]["options"]["method"]["options"]["links"][1]["method"] == "median"


@pytest.mark.parametrize(
    ("option", "value"), [("gate", 0), ("gate_blocks", -1), ("gate_bias", 21.0), ("gate_bias", "much")]
)
def test_wrong_options_are_refused(option: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"expected {option} to be"):
        Gated(small_method("gs"), **{"gate": 3, option: value})


@pytest.mark.parametrize("inner", [None, {"method": "gs"}, {"method": "sg", "options": {}}, ["gs"]])
def test_a_configuration_without_a_method_behind_the_gate_is_refused(inner: object) -> None:
    with pytest.raises(WeightsError, match=r"expected (a configuration with a method|options of method 'gated')"):
        build({"method": "gated", "options": {"method": inner, "gate": 3}})
