"""The forms that compare.py measures, as calls on a batch, and their peak memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed.reference_forms import form_names, reference
from benchmarks.speed.table import RESNET
from purifier import Purifier, _hub
from purifier.inference.compiling import Compiler
from purifier.inference.memory import in_fresh_process, peak_extra_bytes
from purifier.methods import METHODS, Method

OPTIONS: dict[str, dict[str, Any]] = {
    "gs": {"kernel_size": 5, "iterations": 7},
    "ncis": {"iterations": 7},
    "nrp-resg": {},
    "nrp": {},
}
COPY, MATMUL = "copy of the batch", "bfloat16 matrix product"
_WARM_SIZE = 32


@dataclass(frozen=True)
class Form:
    """One row of the table.

    Attributes:
        method: The purifier, "gs" and so on.
        kind: "reference", "ours" or "context".
        name: Name of the form.
        dtype: Dtype that it computes in.
        compile: "none", or a mode of `Purifier.from_pretrained(compile=...)`: "default" for True, "reduce-overhead".
        iterations: Number of iterations; None means that of OPTIONS.
    """

    method: str
    kind: str
    name: str
    dtype: str = "float32"
    compile: str = "none"
    iterations: int | None = None

    @property
    def key(self) -> str:
        """Identifies it among the forms of its method."""
        extra = f" i={self.iterations}" if self.iterations is not None else ""
        return f"{self.name}{extra}, {self.dtype}, compile {self.compile}"


@dataclass(frozen=True)
class Place:
    """The device and the images that a form is measured with.

    Attributes:
        device: "cpu", "cuda", ...
        threads: Threads of torch on the CPU.
        batch: Batch size.
        height: In pixels.
        width: In pixels.
        matmul: Side of the matrices whose product gives the device's rate.
        tf32: Whether float32 convolutions on CUDA may use TF32, as is PyTorch's default.
    """

    device: str
    threads: int
    batch: int
    height: int
    width: int
    matmul: int
    tf32: bool


def set_up(place: Place) -> None:
    """Sets the threads and precisions of this process."""
    torch.set_num_threads(place.threads)
    allow_tf32(place.tf32)


def allow_tf32(allowed: bool) -> None:
    """Sets whether float32 convolutions on CUDA may use TF32; matrix products never do, as is PyTorch's default."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = False


def pictures(batch: int, height: int, width: int) -> Tensor:
    """Returns seeded pictures (N, 3, H, W) with structure at several scales, each pixel perturbed by 8/255."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(batch, 3, height, width)
    for cells, weight in ((3, 0.5), (11, 0.3), (41, 0.2)):
        coarse = torch.rand(batch, 3, cells, cells, generator=generator)
        images += weight * F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    signs = torch.randint(0, 2, images.shape, generator=generator) * 2 - 1
    return (images + signs * (8 / 255)).clamp(0, 1)


@functools.cache
def method(name: str) -> tuple[Method, str]:
    """Returns a method in float32 on the CPU, and the kind of its weights."""
    config = _hub.bundled_config(name)
    if config.get("trained", True):
        trained = Purifier.from_pretrained(name, **OPTIONS[name]).method
        return trained, "trained" if list(trained.parameters()) else "none"
    torch.manual_seed(0)
    network = METHODS[name](**{**config["options"], **OPTIONS[name]})
    _shape_output(network)
    return network, "random, seed 0"


def _shape_output(network: Method) -> None:
    """Scales random weights so that outputs have the mean and spread of a picture and can be compared."""
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    with torch.no_grad():
        for conv in convolutions:
            nn.init.zeros_(conv.bias)
        out = network(pictures(1, 48, 48))
        convolutions[-1].weight.mul_(0.2 / out.std())
        convolutions[-1].bias.add_(0.5 - out.mean() * 0.2 / out.std())


def build(form: Form, place: Place, images: Tensor) -> Callable[..., Tensor]:
    """Returns a call of no arguments that runs the form on the images, which are on the device.

    Purifiers and their references also take other images.
    """
    if form.kind == "context":
        return _context(form, place, images)
    ours, _ = method(form.method)
    if form.kind == "reference":
        plain = reference(ours, form.name).to(place.device)
        return lambda batch=images: plain(batch)
    twin = METHODS[form.method](**ours.options)
    twin.load_state_dict(ours.state_dict())
    purifier = Purifier(twin, name=form.method).eval().requires_grad_(False)
    purifier.to(device=place.device, dtype=getattr(torch, form.dtype))
    if form.iterations is not None:
        purifier.iterations = form.iterations
    purifier._compiler = None if form.compile == "none" else Compiler(form.compile)
    return lambda batch=images: purifier(batch)


def _context(form: Form, place: Place, images: Tensor) -> Callable[..., Tensor]:
    dtype = getattr(torch, form.dtype)
    if form.name == COPY:
        target = torch.empty_like(images)
        return lambda: target.copy_(images)
    if form.name == MATMUL:
        left, right = (torch.randn(place.matmul, place.matmul, device=place.device).to(dtype) for _ in range(2))
        return lambda: left @ right
    from torchvision.models import resnet50

    torch.manual_seed(0)
    network = resnet50(weights=None).eval().requires_grad_(False)
    network.to(device=place.device, dtype=dtype, memory_format=torch.channels_last)
    side = min(224, place.height, place.width)
    batch = images[..., :side, :side].to(dtype=dtype, memory_format=torch.channels_last)
    return lambda: network(batch)


def operations(form: Form, place: Place) -> int:
    """Returns the floating-point operations of a call in convolutions or matrix products; 0 if not counted."""
    if form.name == MATMUL:
        return 2 * place.matmul**3
    if form.method not in ("nrp", "nrp-resg") or form.kind == "context":
        return 0
    weights = sum(part.weight.numel() for part in method(form.method)[0].modules() if isinstance(part, nn.Conv2d))
    return 2 * weights * place.batch * place.height * place.width


def forms(name: str, *, dtypes: list[str], compiles: list[str], flat: bool, context: list[str]) -> list[Form]:
    """Returns the forms of a method: its references, ours in every dtype and mode, and the context calls.

    With `flat`, gs is also measured at other numbers of iterations; `context` holds any of `RESNET`, `COPY`, `MATMUL`.
    """
    rows = [Form(name, "reference", form) for form in form_names(name)]
    rows += [Form(name, "ours", "ours", dtype, mode) for dtype in dtypes for mode in compiles]
    if flat and name == "gs":
        rows += [Form(name, "ours", "ours", dtypes[0], compiles[0], iterations=count) for count in (1, 14)]
    if RESNET in context:
        rows += [Form(name, "context", RESNET, dtype) for dtype in dtypes]
    if COPY in context and name == "gs":
        rows.append(Form(name, "context", COPY))
    if MATMUL in context and name == "nrp":
        rows.append(Form(name, "context", MATMUL, "bfloat16"))
    return rows


def peak_bytes(form: Form, place: Place) -> int | None:
    """Measures the peak extra memory of a form on one image, in a fresh process."""
    return in_fresh_process(_peak_here, form, replace(place, batch=1))


def _peak_here(form: Form, place: Place) -> int | None:
    set_up(place)
    with torch.inference_mode():
        images = pictures(1, place.height, place.width).to(place.device)
        call = build(form, place, images)
        if form.compile == "none":
            small = images[..., :_WARM_SIZE, :_WARM_SIZE].contiguous()
            return peak_extra_bytes(call, warm_up=lambda: call(small), device=place.device)
        # Compiled code has one size, and compiling is not part of the call.
        return peak_extra_bytes(call, warm_up=lambda: [call() for _ in range(3)], device=place.device)
