"""No value inside a purifier overflows float16, whose largest number is 65504."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from purifier import Purifier

_EDGE = torch.tensor([0.0, 1.0])
EXTREMES = {
    "black": torch.zeros(1, 3, 32, 32),
    "white": torch.ones(1, 3, 32, 32),
    "pure red": torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32),
    "checkerboard": _EDGE.repeat(16).add(_EDGE.repeat(16)[:, None]).remainder(2).expand(1, 3, 32, 32),
    "half black, half white": _EDGE.repeat_interleave(16).expand(1, 3, 32, 32),
    "one white pixel": nn.functional.pad(torch.ones(1, 3, 1, 1), (16, 15, 16, 15)),
    "random black and white": torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).round(),
}


@pytest.mark.parametrize("name", ["alloy", "gs", "ncis", "nrp-resg"])
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_extreme_images_overflow_nowhere_in_float16(name: str, compile: bool, device: str) -> None:
    if compile and device == "cpu":
        pytest.skip("needs a CUDA device")
    purify = Purifier.from_pretrained(name, device=device, dtype=torch.float16, compile=compile)
    images = torch.cat([*EXTREMES.values(), -0.04 * torch.ones(1, 3, 32, 32), 1.04 * torch.ones(1, 3, 32, 32)])
    worst: dict[str, float] = {}

    def watch(layer: str, out: Tensor) -> None:
        worst[layer] = float(out.float().abs().max())

    if not compile:
        for layer, part in purify.method.named_modules():
            part.register_forward_hook(lambda module, arguments, out, layer=layer: watch(layer, out))
    with torch.inference_mode():
        out = purify(images.to(device))
        exact = Purifier.from_pretrained(name, device=device)(images.to(device))
    assert out.isfinite().all()
    # Room to spare, so that other images do not overflow either; not a number compares as false.
    assert {layer for layer, value in worst.items() if not value < 65504 / 8} == set()
    torch.testing.assert_close(out, exact, rtol=0, atol=0.02)


def test_the_check_detects_an_overflow() -> None:
    purify = Purifier.from_pretrained("nrp-resg", dtype=torch.float16)
    with torch.no_grad():
        purify.method.conv_first.weight.mul_(3e4)
        purify.method.recon_trunk[0].conv1.weight.mul_(3e4)
    with torch.inference_mode():
        assert not purify.method(EXTREMES["white"].half()).isfinite().all()
