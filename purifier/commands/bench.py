"""purifier bench: measures time and memory of a purifier on this machine, and compares it with a ResNet-50."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from purifier import Purifier
from purifier._errors import OptionError
from purifier._files import write_text
from purifier._identity import versions
from purifier._random import isolated_randomness
from purifier._wrapping import DEFAULT
from purifier.commands._model_options import device_option, dtype_option, given, iterations_option, loaded_name
from purifier.commands._terminal import echo
from purifier.inference.memory import in_fresh_process, peak_extra_bytes
from purifier.inference.precision import resolve_device, resolve_dtype
from purifier.inference.timing import interleave, speedup, spread

_CLASSIFIER = "ResNet-50"
_CLASSIFIER_SIZE = 224
# Side of the images of a first call, which loads the kernels before memory is measured.
_WARM_SIZE = 32


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        purifier: Name, folder or hub repository.
        options: Options of the purifier.
        size: Height and width of the purified images, in pixels.
        batch: Images in a batch.
        dtype: The dtype of the computation.
        device: The device.
        threads: Threads of torch on the CPU.
        compiled: Whether both networks are compiled with torch.compile.
    """

    purifier: str
    options: dict[str, Any]
    size: tuple[int, int]
    batch: int
    dtype: str
    device: str
    threads: int
    compiled: bool


@click.command("bench")
@click.argument("name", metavar="[PURIFIER]", default=DEFAULT)
@click.option("--size", default="224", show_default=True, help="Side in pixels, or height x width: 1080x1920.")
@click.option("--batch", default=8, show_default=True, type=click.IntRange(1), help="Images in a batch.")
@dtype_option
@device_option
@click.option("--threads", type=click.IntRange(1), help="Threads on the CPU.  [default: torch's choice]")
@iterations_option
@click.option("--compile", "compiled", is_flag=True, help="Compile both networks with torch.compile.")
@click.option("--runs", default=10, show_default=True, type=click.IntRange(1), help="Measured rounds.")
@click.option("--warmup", default=2, show_default=True, type=click.IntRange(0), help="Rounds before them.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="JSON file for the results.")
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
    """Measure the time and the memory of a purifier.

    PURIFIER is a name, a folder or a hub repository; the default is alloy-s. It is timed alternately with the forward
    pass of a ResNet-50 at 224 x 224, with the same batch size, device, threads and dtype.
    """
    place, before = resolve_device(device), torch.get_num_threads()
    setting = Setting(
        purifier=name,
        options=given(iterations=iterations),
        size=_parse_size(size),
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
    echo(_table(result))
    if file is not None:
        write_text(file, json.dumps(result, indent=2) + "\n")


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", text)
    if match is None:
        raise OptionError(f"expected --size with a side or HEIGHTxWIDTH in pixels, got {text!r}; try 224 or 1080x1920")
    return int(match[1]), int(match[2] or match[1])


def measure(setting: Setting, *, runs: int = 10, warmup: int = 2) -> dict[str, Any]:
    """Times a purifier and the ResNet-50 alternately, and measures their memory; returns JSON values.

    Args:
        setting: What is measured.
        runs: Measured rounds.
        warmup: Rounds before them.
    """
    torch.set_num_threads(setting.threads)
    shown = loaded_name(setting.purifier)
    builders = {shown: _purifier_call, _CLASSIFIER: _classifier_call}
    with torch.inference_mode():
        calls = {name: partial(build(setting), None) for name, build in builders.items()}
        seconds = interleave(calls, device=setting.device, runs=runs, warmup=warmup)
    peaks = {name: in_fresh_process(_peak, setting, name) for name in builders}
    cost = speedup(seconds[shown], seconds[_CLASSIFIER])
    return {
        **asdict(setting),
        "purifier": shown,
        "runs": runs,
        "warmup": warmup,
        "rows": {name: _row(seconds[name], setting.batch, peaks[name]) for name in builders},
        "resnet50s": cost.median,
        "resnet50s_quartiles": [cost.low, cost.high],
        "environment": _environment(setting.device),
    }


def _row(seconds: list[float], batch: int, peak: int | None) -> dict[str, Any]:
    took = spread(seconds)
    return {
        "seconds": seconds,
        "median_per_image": took.median / batch,
        "quartiles_per_image": [took.low / batch, took.high / batch],
        "peak_extra_bytes": peak,
    }


def _images(setting: Setting, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(setting.batch, 3, height, width, generator=generator).to(setting.device)


def _purifier_call(setting: Setting) -> Callable[[int | None], object]:
    """Returns a function that purifies images of the setting's size, or of the given side."""
    purifier = Purifier.from_pretrained(
        setting.purifier, device=setting.device, dtype=setting.dtype, **setting.options
    ).requires_grad_(False)
    return _called(purifier.eval(), _images(setting, *setting.size), compiled=setting.compiled)


def _classifier_call(setting: Setting) -> Callable[[int | None], object]:
    from torchvision.models import resnet50

    with isolated_randomness(seed=0):
        network = resnet50(weights=None).eval().requires_grad_(False)
    dtype = getattr(torch, setting.dtype)
    network.to(device=setting.device, dtype=dtype, memory_format=torch.channels_last)
    images = _images(setting, _CLASSIFIER_SIZE, _CLASSIFIER_SIZE)
    batch = images.to(dtype=dtype, memory_format=torch.channels_last)
    return _called(network, batch, compiled=setting.compiled)


def _called(network: nn.Module, images: Tensor, *, compiled: bool) -> Callable[[int | None], object]:
    call: Any = torch.compile(network) if compiled else network
    return lambda side: call(images if side is None else images[..., :side, :side].contiguous())


def _peak(setting: Setting, name: str) -> int | None:
    """Returns the peak extra memory of a call, in bytes; to be called in a fresh process."""
    torch.set_num_threads(setting.threads)
    with torch.inference_mode():
        call = (_classifier_call if name == _CLASSIFIER else _purifier_call)(setting)
        # Compiled code is for one size, so the first call must have that size, or the compiler's memory would count.
        side = None if setting.compiled else _WARM_SIZE
        return peak_extra_bytes(lambda: call(None), warm_up=lambda: call(side), device=setting.device)


def _environment(device: str) -> dict[str, Any]:
    import torchvision

    return {
        **versions(),
        "torchvision": torchvision.__version__,
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
        "| | size | ms per image | quartiles | ResNet-50s | extra memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        context = name == _CLASSIFIER
        shape = f"{_CLASSIFIER_SIZE} x {_CLASSIFIER_SIZE}" if context else f"{height} x {width}"
        first, last = map(_milliseconds, row["quartiles_per_image"])
        cost = "1" if context else f"{result['resnet50s']:.2f} ({low:.2f} to {high:.2f})"
        peak = "unknown" if row["peak_extra_bytes"] is None else f"{row['peak_extra_bytes'] / 1e9:.3f} GB"
        time = _milliseconds(row["median_per_image"])
        lines.append(f"| {name} | {shape} | {time} | {first} to {last} | {cost} | {peak} |")
    return "\n".join(lines)


def _milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
