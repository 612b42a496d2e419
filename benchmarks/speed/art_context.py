"""Our purifiers beside the preprocessors of adversarial-robustness-toolbox, on the same images.

    python -m venv .venv-art && .venv-art/bin/pip install adversarial-robustness-toolbox torch kornia packaging pillow
    PURIFIER_KIT=<folder> python -m benchmarks.speed.art_context --art-python .venv-art/bin/python --images 100

For each: milliseconds per image, the ratio to the time of ResNet-50's own forward pass, standard accuracy, and robust
accuracy under PGD on the bare ResNet-50 (Linf, eps 8/255, alpha 2/255, 10 steps, random start). Images are 224 x 224.
The toolbox is not a dependency, so it runs in an environment of its own; its calls take turns with ours and with the
ResNet-50's, and passing files is not timed. (Its spatial smoothing needs kornia; it imports packaging and pillow
without requiring them.) Prints one table and writes benchmarks/results/art_context.json.

Ours have their shipped options. Theirs have their defaults, except two options that are set to ours: bit depth, whose
default does nothing to 8-bit pictures, and JPEG's quality.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.kit import correct, environment, imagenet, model, weights_of, write_result
from benchmarks.speed.table import RESNET, art_context
from purifier import Purifier
from purifier.attacks import PGD
from purifier.evaluation.metrics.classification import interval
from purifier.inference.timing import speedup, spread

OURS = ("gs", "ncis", "nrp-resg", "jpeg", "bit-depth", "median", "tvm")
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "ART spatial smoothing, numpy": ("SpatialSmoothing", {}),
    "ART spatial smoothing, PyTorch": ("SpatialSmoothingPyTorch", {}),
    "ART JPEG": ("JpegCompression", {"quality": 90}),
    "ART bit depth": ("FeatureSqueezing", {"bit_depth": 4}),
    "ART total variation": ("TotalVarMin", {}),
}
ATTACK = {"norm": "Linf", "eps": 8 / 255, "alpha": 2 / 255, "steps": 10}
_BATCH = 10


class Toolbox:
    """The worker process, in the toolbox's environment."""

    def __init__(self, python: str, folder: Path, threads: int) -> None:
        self.folder = folder
        self.files: dict[int, tuple[Tensor, Path]] = {}
        try:
            self.process = subprocess.Popen(
                [python, str(Path(__file__).with_name("art_worker.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""},
            )
        except OSError as error:
            raise SystemExit(
                f"expected --art-python with a Python that has the toolbox, got {python!r}: {error}"
            ) from None
        self.versions = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the process."""
        self.process.kill()
        self.process.communicate()

    def seconds(self, name: str, images: Tensor) -> float:
        """Runs a preprocessor; returns the seconds of the call alone."""
        return self._run(name, self._file(images), None)

    def purified(self, name: str, images: Tensor) -> Tensor:
        """Runs a preprocessor; returns its output."""
        out = self.folder / "out.npy"
        self._run(name, self._file(images), out)
        return torch.from_numpy(np.load(out))

    def _file(self, images: Tensor) -> Path:
        # Keep the tensor, so that no other one gets its id.
        if id(images) not in self.files:
            path = self.folder / f"images-{len(self.files)}.npy"
            np.save(path, images.contiguous().numpy())
            self.files[id(images)] = images, path
        return self.files[id(images)][1]

    def _run(self, name: str, images: Path, out: Path | None) -> float:
        kind, options = THEIRS[name]
        task = {"kind": kind, "options": options, "images": str(images), "out": str(out) if out else None}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit(
                "expected an answer from the toolbox's environment, got none; --art-python must have torch, kornia and "
                "adversarial-robustness-toolbox, as at the top of this script"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"expected the toolbox to run, got {answer['error']}")
        return answer


def timed(calls: dict[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Runs each call once per round, in reverse order in every other round; the first round does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-1, runs):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            seconds = calls[name]()
            if number >= 0:
                taken[name].append(seconds)
    return taken


def clocked(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def attacked(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    pgd = PGD(**ATTACK, generator=torch.Generator().manual_seed(0))
    return torch.cat([pgd(network, *pair) for pair in zip(images.split(_BATCH), labels.split(_BATCH), strict=True)])


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Any]:
    right = correct(network, images, labels, _BATCH)
    return {"accuracy": right / len(labels), "interval": interval(right, len(labels))}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Returns times and accuracies of everything, ready for JSON."""
    torch.set_num_threads(args.threads)
    images, labels = imagenet(args.images)
    network = model("resnet50")
    hostile = attacked(network, images, labels)
    purifiers = {name: Purifier.from_pretrained(name).eval().requires_grad_(False) for name in args.ours}
    batch = images[: args.batch].contiguous()
    with tempfile.TemporaryDirectory() as folder, Toolbox(args.art_python, Path(folder), args.threads) as toolbox:
        calls: dict[str, Callable[[], float]] = {RESNET: lambda: clocked(lambda: network(batch))}
        calls |= {name: lambda p=p: clocked(lambda: p(batch)) for name, p in purifiers.items()}
        calls |= {name: lambda name=name: toolbox.seconds(name, batch) for name in args.theirs}
        with torch.inference_mode():
            seconds = timed(calls, args.runs)
        outputs: dict[str, Callable[[Tensor], Tensor]] = {RESNET: lambda x: x}
        outputs |= {name: lambda x, p=p: batched(p, x) for name, p in purifiers.items()}
        outputs |= {name: lambda x, name=name: toolbox.purified(name, x) for name in args.theirs}
        rows = {
            name: {
                **_cost(seconds[name], seconds[RESNET], len(batch)),
                "standard": accuracy(network, output(images), labels),
                "robust": accuracy(network, output(hostile), labels),
            }
            for name, output in outputs.items()
        }
        versions = toolbox.versions
    options = {name: p.method.options for name, p in purifiers.items()}
    options |= {name: THEIRS[name][1] for name in args.theirs}
    return {
        "attack": {**ATTACK, "model": "resnet50", "knows the purifier": False},
        "images": len(images),
        "size": [224, 224],
        "batch": len(batch),
        "runs": args.runs,
        "options": options,
        "weights": weights_of(purifiers),
        "rows": rows,
        "environment": {**environment(), "toolbox": versions},
    }


@torch.inference_mode()
def batched(purifier: Purifier, images: Tensor) -> Tensor:
    return torch.cat([purifier(part) for part in images.split(_BATCH)])


def _cost(seconds: list[float], resnet: list[float], images: int) -> dict[str, Any]:
    ratio = speedup(seconds, resnet)
    return {
        "seconds": seconds,
        "ms_per_image": 1e3 * spread(seconds).median / images,
        "resnet50s": ratio.median,
        "resnet50s_quartiles": [ratio.low, ratio.high],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--art-python", required=True, help="Python of the toolbox's environment")
    parser.add_argument("--images", type=int, default=100, help="number of images that accuracy is measured on")
    parser.add_argument("--batch", type=int, default=8, help="batch size that time is measured with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="timed rounds")
    parser.add_argument("--ours", nargs="*", choices=OURS, default=OURS)
    parser.add_argument("--theirs", nargs="*", choices=list(THEIRS), default=list(THEIRS))
    parser.add_argument("--name", default="art_context", help="name of the result file")
    args = parser.parse_args()
    result = measure(args)
    write_result(args.name, result)
    print(art_context(result))


if __name__ == "__main__":
    main()
