"""NRP in its two published sizes: the keys of the checkpoints, the arithmetic, the missing skip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from purifier import OptionError
from purifier.methods import METHODS
from purifier.methods.nrp import NRP, NRPResG
from tests.builders import pictures, small_method


def pair(*names: str) -> set[str]:
    return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


NRP_KEYS = pair("conv_first", "trunk_conv").union(
    *(pair(f"RRDB_trunk.{b}.RDB{d}.conv{c}") for b in range(23) for d in (1, 2, 3) for c in (1, 2, 3, 4, 5))
)
RESG_KEYS = pair("conv_first", "conv_last").union(
    *(pair(f"recon_trunk.{b}.conv{c}") for b in range(23) for c in (1, 2))
)


@pytest.mark.parametrize(("kind", "count"), [(NRP, 16_550_275), (NRPResG, 1_702_211)])
def test_it_has_the_published_number_of_parameters(kind: type, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in kind().parameters()) == count


@pytest.mark.parametrize(("kind", "keys"), [(NRP, NRP_KEYS), (NRPResG, RESG_KEYS)])
def test_its_keys_are_those_of_the_published_checkpoints(kind: type, keys: set[str]) -> None:
    with torch.device("meta"):
        assert set(kind().state_dict()) == keys


def conv(state: dict[str, Tensor], name: str, features: Tensor) -> Tensor:
    return F.conv2d(features, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def test_nrp_equals_a_computation_from_its_state_dict() -> None:
    method, images = small_method("nrp", blocks=1).double(), pictures(1, 3, 9, 8, dtype=torch.float64)
    state = method.state_dict()
    trunk = features = conv(state, "conv_first", images)
    for dense in (1, 2, 3):
        at = f"RRDB_trunk.0.RDB{dense}"
        grown = [features]
        for number in (1, 2, 3, 4):
            new = conv(state, f"{at}.conv{number}", torch.cat(grown, 1))
            grown.append(torch.where(new > 0, new, 0.2 * new))
        features = features + 0.2 * conv(state, f"{at}.conv5", torch.cat(grown, 1))
    expected = conv(state, "trunk_conv", trunk + 0.2 * features)
    torch.testing.assert_close(method(images), expected)


def test_resg_equals_a_computation_from_its_state_dict() -> None:
    method, images = small_method("nrp-resg", blocks=1).double(), pictures(1, 3, 9, 8, dtype=torch.float64)
    state = method.state_dict()
    first = conv(state, "conv_first", images)
    features = torch.where(first > 0, first, 0.1 * first)
    inner = conv(state, "recon_trunk.0.conv1", features).clamp_min(0)
    expected = conv(state, "conv_last", features + conv(state, "recon_trunk.0.conv2", inner))
    torch.testing.assert_close(method(images), expected)


@pytest.mark.parametrize(("name", "last"), [("nrp", "trunk_conv"), ("nrp-resg", "conv_last")])
def test_no_skip_connection_runs_from_input_to_output(name: str, last: str) -> None:
    method, images = small_method(name), pictures(1, 3, 9, 8)
    assert method(images).any()
    torch.nn.init.zeros_(getattr(method, last).weight)
    torch.nn.init.zeros_(getattr(method, last).bias)
    assert not method(images).any()


@pytest.mark.parametrize("name", ["nrp", "nrp-resg"])
def test_its_farthest_dependency_is_at_its_halo(name: str) -> None:
    method = small_method(name, blocks=1).double()
    (stage,) = method.stages()
    assert stage.halo is not None
    size = 2 * stage.halo + 5
    image = pictures(1, 3, size, size, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(method(image)[0, :, size // 2, size // 2].sum(), image)
    rows = gradient[0].abs().sum((0, 2)).nonzero().flatten()
    assert (rows.min(), rows.max()) == (size // 2 - stage.halo, size // 2 + stage.halo)


@pytest.mark.parametrize("name", ["nrp", "nrp-resg"])
def test_no_blocks_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match="expected blocks to be an integer of at least 1, got 0"):
        METHODS[name](blocks=0)
