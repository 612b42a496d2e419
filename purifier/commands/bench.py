"""purifier bench: what a purifier costs on this machine, beside a ResNet-50."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from purifier._errors import OptionError
from purifier._files import write_text
from purifier._version import __version__
from purifier.commands._model_options import loaded_name

if TYPE_CHECKING:
    from torch import Tensor, nn

_CLASSIFIER = "ResNet-50"
_CLASSIFIER_SIZE = 224
# Side of the picture that loads the kernels before memory is measured.
_WARM_SIZE = 32


@dataclass(frozen=True)
class Setting:
    """What is measured, and where.

    Attributes:
        name: The purifier.
        options: Changes to its options.
        height: Of the purified images, in pixels.
        width: Of the purified images, in pixels.
        batch: Images at once.
        dtype: What is computed in.
        device: Where it is computed.
        threads: Of torch, on the CPU.
        compiled: Whether through torch.compile.
    """

    name: str
    options: dict[str, Any]
    height: int
    width: int
    batch: int
    dtype: str
    device: str
    threads: int
    compiled: bool


@click.command("bench")
@click.argument("name", metavar="[PURIFIER]", default="ncis")
@click.option("--size", default="224", show_default=True, help="Side in pixels, or height x width: 1080x1920.")
@click.option("--batch", default=8, show_default=True, type=click.IntRange(1), help="Images at once.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--threads", type=click.IntRange(1), help="Threads on the CPU; torch's own choice where not given.")
@click.option("--iterations", type=int, help="How often the method is applied (gs, ncis and alloy).")
@click.option("--compile", "compiled", is_flag=True, help="Run both through torch.compile.")
@click.option("--runs", default=10, show_default=True, type=click.IntRange(1), help="Rounds that count.")
@click.option("--warmup", default=2, show_default=True, type=click.IntRange(0), help="Rounds before them.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here too.")
def command(
    name: str,
    size: str,
    batch: int,
    dtype: str,
    device: str,
    threads: int | None,
    iterations: int | None,
    compiled: bool,
    runs: int,
    warmup: int,
    file: Path | None,
) -> None:
    """Measure what a purifier costs.

    PURIFIER is a name, a folder or a hub repository; ncis where not given. It is timed in turn with the forward pass
    of a ResNet-50 at 224 x 224, on the same batch, device, threads and dtype.
    """
    import torch

    from purifier.inference.precision import resolve_device, resolve_dtype

    height, width = _parse_size(size)
    place = resolve_device(device)
    before = torch.get_num_threads()
    setting = Setting(
        name=name,
        options={} if iterations is None else {"iterations": iterations},
        height=height,
        width=width,
        batch=batch,
        dtype=str(resolve_dtype(dtype, place)).removeprefix("torch."),
        device=str(place),
        threads=threads or before,
        compiled=compiled,
    )
    try:
        result = measure(setting, runs=runs, warmup=warmup)
    finally:
        torch.set_num_threads(before)
    click.echo(_table(result))
    if file is not None:
        write_text(file, json.dumps(result, indent=2) + "\n")


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if match is None:
        raise OptionError(f"expected --size with a side or HEIGHTxWIDTH in pixels, got {text!r}; try 224 or 1080x1920")
    return int(match[1]), int(match[2] or match[1])


def measure(setting: Setting, *, runs: int = 10, warmup: int = 2) -> dict[str, Any]:
    """Times a purifier and the ResNet-50 in turn; JSON values.

    Args:
        setting: What and where.
        runs: Rounds that count.
        warmup: Rounds before them.
    """
    import torch

    from purifier.inference.memory import in_fresh_process
    from purifier.inference.timing import interleave, speedup

    torch.set_num_threads(setting.threads)
    shown = loaded_name(setting.name)
    builders = {shown: _purifier_call, _CLASSIFIER: _classifier_call}
    # First, so that a purifier that does not load says so here.
    with torch.inference_mode():
        calls = {name: build(setting) for name, build in builders.items()}
        seconds = interleave(
            {name: partial(call, None) for name, call in calls.items()},
            device=setting.device,
            runs=runs,
            warmup=warmup,
        )
    peaks = {name: in_fresh_process(_peak, setting, name) for name in builders}
    cost = speedup(seconds[shown], seconds[_CLASSIFIER])
    return {
        "purifier": shown,
        "options": setting.options,
        "size": [setting.height, setting.width],
        "batch": setting.batch,
        "dtype": setting.dtype,
        "device": setting.device,
        "threads": setting.threads,
        "compiled": setting.compiled,
        "runs": runs,
        "warmup": warmup,
        "rows": {name: _row(seconds[name], setting.batch, peaks[name]) for name in builders},
        "resnet50s": cost.median,
        "resnet50s_quartiles": [cost.low, cost.high],
        "environment": _environment(setting.device),
    }


def _row(seconds: list[float], batch: int, peak: int | None) -> dict[str, Any]:
    from purifier.inference.timing import spread

    took = spread(seconds)
    return {
        "seconds": seconds,
        "median_per_image": took.median / batch,
        "quartiles_per_image": [took.low / batch, took.high / batch],
        "peak_extra_bytes": peak,
    }


def _images(setting: Setting, height: int, width: int) -> Tensor:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.rand(setting.batch, 3, height, width, generator=generator).to(setting.device)


def _purifier_call(setting: Setting) -> Callable[[int | None], object]:
    """Returns a call on images of the setting's size, or of the given side."""
    from purifier import Purifier

    purifier = Purifier.from_pretrained(
        setting.name, device=setting.device, dtype=setting.dtype, **setting.options
    ).requires_grad_(False)
    images = _images(setting, setting.height, setting.width)
    return _called(purifier.eval(), images, compiled=setting.compiled)


def _classifier_call(setting: Setting) -> Callable[[int | None], object]:
    import torch
    from torchvision.models import resnet50

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = resnet50(weights=None).eval().requires_grad_(False)
    dtype = getattr(torch, setting.dtype)
    network.to(device=setting.device, dtype=dtype, memory_format=torch.channels_last)
    images = _images(setting, _CLASSIFIER_SIZE, _CLASSIFIER_SIZE)
    batch = images.to(dtype=dtype, memory_format=torch.channels_last)
    return _called(network, batch, compiled=setting.compiled)


def _called(network: nn.Module, images: Tensor, *, compiled: bool) -> Callable[[int | None], object]:
    import torch

    call: Any = torch.compile(network) if compiled else network
    return lambda side: call(images if side is None else images[..., :side, :side].contiguous())


def _peak(setting: Setting, name: str) -> int | None:
    """Peak extra memory of a call; in a process of its own."""
    import torch

    from purifier.inference.memory import peak_extra_bytes

    torch.set_num_threads(setting.threads)
    with torch.inference_mode():
        call = (_classifier_call if name == _CLASSIFIER else _purifier_call)(setting)
        # Compiled code is of one size, and its compiler is no part of what a call needs.
        side = None if setting.compiled else _WARM_SIZE
        return peak_extra_bytes(lambda: call(None), warm_up=lambda: call(side), device=setting.device)


def _environment(device: str) -> dict[str, Any]:
    import torch
    import torchvision

    return {
        "purifier": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor(),
    }


def _table(result: dict[str, Any]) -> str:
    height, width = result["size"]
    where = f"{result['threads']} threads" if result["device"] == "cpu" else result["environment"]["device_name"]
    low, high = result["resnet50s_quartiles"]
    lines = [
        f"Batches of {result['batch']}, {result['dtype']}, {'compiled, ' if result['compiled'] else ''}"
        f"{result['device']} ({where}), torch {result['environment']['torch']}; median of {result['runs']} rounds.",
        "",
        "| | size | ms an image | middle half | ResNet-50s | extra memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        context = name == _CLASSIFIER
        shape = f"{_CLASSIFIER_SIZE} x {_CLASSIFIER_SIZE}" if context else f"{height} x {width}"
        first, last = map(_milliseconds, row["quartiles_per_image"])
        cost = "1" if context else f"{result['resnet50s']:.2f} ({low:.2f} to {high:.2f})"
        peak = "not known" if row["peak_extra_bytes"] is None else f"{row['peak_extra_bytes'] / 1e9:.3f} GB"
        time = _milliseconds(row["median_per_image"])
        lines.append(f"| {name} | {shape} | {time} | {first} to {last} | {cost} | {peak} |")
    return "\n".join(lines)


def _milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
