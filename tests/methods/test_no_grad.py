"""Work in place and in chunks, without gradients, changes neither the outputs nor the inputs of modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.builders import pictures, small_method, unchanged

networks = pytest.mark.parametrize("name", ["ncis", "nrp", "nrp-resg"])


@networks
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_a_gradient_the_output_is_the_same(name: str, dtype: torch.dtype) -> None:
    method, images = small_method(name).to(dtype), pictures(3, 3, 17, 22).to(dtype)
    expected = method(images)
    assert expected.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(method(images), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 0.02)
    with torch.inference_mode(), unchanged(method):
        torch.testing.assert_close(method(images), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 0.02)


@networks
def test_no_module_overwrites_its_input(name: str) -> None:
    method, given = small_method(name), []

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        given.append((module, arguments[0], arguments[0].clone()))

    blocks = [part for part in method.modules() if type(part).__module__.startswith("purifier.methods")]
    for part in blocks:
        part.register_forward_pre_hook(keep)
    with torch.no_grad():
        method(pictures(1, 3, 9, 8))
    assert len(given) >= 3
    assert not {type(module).__name__ for module, now, before in given if not torch.equal(now, before)}


@networks
def test_a_large_batch_is_processed_in_chunks_with_the_same_output(name: str) -> None:
    method, images, batches = small_method(name), pictures(5, 3, 160, 224), []
    whole = method(images).detach()
    first = next(part for part in method.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, arguments: batches.append(len(arguments[0])))
    with torch.no_grad():
        torch.testing.assert_close(method(images), whole, rtol=0, atol=1e-6)
    assert max(batches) < len(images)


@pytest.mark.parametrize("name", ["ncis", "nrp-resg"])
def test_compiled_code_gives_the_same_output_and_gradient(name: str) -> None:
    small = {"iterations": 1, "layers": 3} if name == "ncis" else {"blocks": 1}
    method, images = small_method(name, **small), pictures(2, 3, 16, 12)
    torch._dynamo.reset()
    compiled = torch.compile(method, backend="eager", fullgraph=True)
    leaves = [images.clone().requires_grad_() for _ in range(2)]
    outs = [call(leaf) for call, leaf in zip((compiled, method), leaves, strict=True)]
    torch.testing.assert_close(*outs, rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad(out.square().sum(), leaf)[0] for out, leaf in zip(outs, leaves, strict=True)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)
