"""Times the purifiers beside the plain forms of their methods, in turn, in one process.

    python -m benchmarks.speed.compare --preset cpu --work WORK      # 2 threads, batch 8, 224, as on a small server
    python -m benchmarks.speed.compare --preset gpu --work WORK      # one GPU, batch 64, 224, bfloat16 and compiled
    python -m benchmarks.speed.compare --size 64 --batch 1 --methods gs ncis --runs 3 --out FILE.json

Prints the table and the targets, and writes benchmarks/results/speed_<preset>.json at the end; with other settings than
the preset's it writes the file that --out names. benchmarks/README.md defines the method. A run that was stopped
resumes with the same --work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.kit import RESULTS, environment
from benchmarks.speed.forms import (
    COPY,
    MATMUL,
    OPTIONS,
    Form,
    Place,
    allow_tf32,
    build,
    forms,
    method,
    operations,
    peak_bytes,
    pictures,
    set_up,
)
from benchmarks.speed.table import RESNET, markdown, ratio_targets
from purifier._errors import PurifierError
from purifier._files import write_text
from purifier.inference.precision import resolve_device
from purifier.inference.timing import interleave, speedup, spread

_SETTINGS = ("device", "threads", "batch", "size", "large", "dtype", "compile", "methods", "matmul", "tf32")
_CPU: dict[str, Any] = {
    "device": "cpu",
    "threads": 2,
    "batch": 8,
    "size": 224,
    "large": "1080x1920",
    "dtype": ["float32", "bfloat16"],
    "compile": ["none"],
    "methods": list(OPTIONS),
    "matmul": 2048,
    "tf32": "default",
}
_GPU = {
    "device": "cuda",
    "batch": 64,
    "large": "none",
    "compile": ["none", "default", "reduce-overhead"],
    "matmul": 8192,
}
PRESETS = {"cpu": _CPU, "gpu": _CPU | _GPU}


@dataclass(frozen=True)
class Case:
    """The forms of one method that are compared, and the place."""

    method: str
    place: Place
    forms: tuple[Form, ...]


def main() -> None:
    args = _parser().parse_args()
    preset = PRESETS[args.preset]
    chosen = {name: getattr(args, name) if getattr(args, name) is not None else preset[name] for name in _SETTINGS}
    own = chosen == preset
    out = args.out or (RESULTS / f"speed_{args.preset}.json" if own else None)
    try:
        resolve_device(chosen["device"])
    except PurifierError as error:
        raise SystemExit(f"{error} or another --device") from None
    rows: list[dict[str, Any]] = []
    started = {**_environment(chosen["device"]), "threads": chosen["threads"]}
    for case in _cases(chosen, args.preset):
        print(f"# {case.method}, {case.place.batch} x {case.place.height} x {case.place.width}", flush=True)
        rows += _measured(case, args, started)
    result = {
        "preset": args.preset,
        "as_the_preset_says": own,
        "settings": {**chosen, "runs": args.runs, "warmup": args.warmup, "seconds": args.seconds},
        "environment": started,
        "rows": rows,
    }
    result["targets"] = ratio_targets(result)
    print(markdown(result))
    if out is None:
        print(f"\nNot written: these are not the settings of the preset {args.preset!r}; --out FILE writes it there.")
    else:
        _write(Path(out), result)
        print(f"\nWritten: {out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu", help="default of the settings below")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, help="threads of torch on the CPU")
    parser.add_argument("--batch", type=int, help="batch size")
    parser.add_argument("--size", type=int, help="height and width")
    parser.add_argument("--large", metavar="HxW|none", help="size of the large picture for gs")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16", "float16"], help="dtypes of ours")
    parser.add_argument("--compile", nargs="+", choices=["none", "default", "reduce-overhead"])
    parser.add_argument("--methods", nargs="+", choices=list(OPTIONS))
    parser.add_argument("--matmul", type=int, help="side of the matrices whose product gives the device's rate")
    parser.add_argument("--tf32", choices=["default", "off"], help="float32 convolutions on CUDA: as PyTorch, or exact")
    parser.add_argument("--runs", type=int, default=10, help="timed rounds")
    parser.add_argument("--warmup", type=int, default=2, help="rounds before them")
    parser.add_argument("--seconds", type=float, default=600, help="after this time and 3 rounds, no more")
    parser.add_argument("--work", type=Path, help="folder of finished rows, to resume from")
    parser.add_argument("--out", type=Path, help="result file; benchmarks/results/speed_<preset>.json for the preset's")
    return parser


def _cases(chosen: dict[str, Any], preset: str) -> list[Case]:
    threads, size = chosen["threads"], chosen["size"]
    tf32 = chosen["tf32"] == "default"
    place = Place(chosen["device"], threads, chosen["batch"], size, size, chosen["matmul"], tf32)
    cases = []
    for name in chosen["methods"]:
        context = [RESNET] + [MATMUL] * ("bfloat16" in chosen["dtype"]) + [COPY] * (preset == "gpu")
        rows = forms(name, dtypes=chosen["dtype"], compiles=chosen["compile"], flat=True, context=context)
        cases.append(Case(name, place, tuple(rows)))
        if name == "gs" and chosen["large"] != "none":
            height, width = map(int, chosen["large"].split("x"))
            rows = forms(name, dtypes=chosen["dtype"], compiles=chosen["compile"], flat=False, context=[])
            cases.append(Case(name, replace(place, batch=1, height=height, width=width), tuple(rows)))
    return cases


def _measured(case: Case, args: argparse.Namespace, started: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of a case; those in the work folder are not measured again."""
    how = {"runs": args.runs, "warmup": args.warmup, "seconds": args.seconds}
    asked = {"case": asdict(case), "how": how, "environment": started}
    times = _cached(args.work, f"{case.method}-times", asked, lambda: _times(case, how))
    rows = []
    for form in case.forms:
        asked = {"form": asdict(form), "place": {**asdict(case.place), "batch": 1}, "environment": started}
        peak = None
        if form.kind != "context":
            peak = _cached(args.work, f"{case.method}-memory", asked, lambda form=form: peak_bytes(form, case.place))
        rows.append(_row(form, case, times, peak))
    return rows


def _cached(work: Path | None, name: str, asked: dict[str, Any], measure: Callable[[], Any]) -> Any:
    if work is None:
        return measure()
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    path = work / f"{name}-{key}.json"
    if path.is_file():
        return json.loads(path.read_text())
    value = measure()
    _write(path, value)
    return value


def _times(case: Case, how: dict[str, Any]) -> dict[str, Any]:
    """Returns the seconds of every form, and the difference of its output to the first reference's in float32."""
    place = case.place
    set_up(place)
    with torch.inference_mode():
        images = pictures(place.batch, place.height, place.width).to(place.device)
        calls = {form.key: build(form, place, images) for form in case.forms}
        # TF32 would change both outputs by more than they may differ.
        allow_tf32(False)
        expected = calls[case.forms[0].key]().clamp(0, 1)
        differences = {
            form.key: _difference(calls[form.key](), expected)
            for form in case.forms
            if form.kind != "context" and form.iterations is None
        }
        allow_tf32(place.tf32)
        seconds = interleave(calls, device=place.device, **how)
    return {"seconds": seconds, "differences": differences}


def _difference(output: Tensor, expected: Tensor) -> dict[str, float]:
    error = output.clamp(0, 1).double() - expected.double()
    squared = error.square().mean().item()
    # 200 dB stands for equality, as JSON has no infinity.
    psnr = min(200.0, -10 * math.log10(squared)) if squared > 0 else 200.0
    return {"max_error": error.abs().max().item(), "psnr": psnr}


def _row(form: Form, case: Case, times: dict[str, Any], peak: int | None) -> dict[str, Any]:
    place = case.place
    seconds = times["seconds"][form.key]
    took = spread(seconds)
    ratio = speedup(times["seconds"][case.forms[0].key], seconds)
    counted = operations(form, place)
    row = {
        **asdict(form),
        "iterations": form.iterations or OPTIONS[form.method].get("iterations"),
        "height": place.height,
        "width": place.width,
        "batch": place.batch,
        "device": place.device,
        "threads": place.threads,
        "weights": method(form.method)[1],
        "seconds": seconds,
        "median": took.median,
        "quartiles": [took.low, took.high],
        "ratio": ratio.median,
        "ratio_quartiles": [ratio.low, ratio.high],
        "resnet50s": _beside(times, RESNET, form, seconds),
        "copies": _beside(times, COPY, form, seconds),
        "peak_extra_bytes": peak,
        "operations_per_second": counted / took.median if counted else None,
        "share_of_matmul": None,
        **(times["differences"].get(form.key) or {"max_error": None, "psnr": None}),
    }
    products = [key for key in times["seconds"] if key.startswith(MATMUL)]
    if counted and products and form.name != MATMUL:
        rate = 2 * place.matmul**3 / spread(times["seconds"][products[0]]).median
        row["share_of_matmul"] = row["operations_per_second"] / rate
    return row


def _beside(times: dict[str, Any], context: str, form: Form, seconds: list[float]) -> float | None:
    """Returns the ratio of the times to those of a context call, of the same dtype if there is one."""
    keys = [key for key in times["seconds"] if key.startswith(context)]
    same = [key for key in keys if f", {form.dtype}," in key] or keys
    return speedup(seconds, times["seconds"][same[0]]).median if same else None


def _environment(device: str) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return {
        **environment(),
        "torchvision": version("torchvision"),
        "cuda": torch.version.cuda if device.startswith("cuda") else None,
        "cudnn": torch.backends.cudnn.version() if device.startswith("cuda") else None,
        "device_name": name,
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    """Returns the CPU's name and its half-precision instructions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    fast = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{name} ({', '.join(fast)})" if fast else name


def _write(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
