"""Runs preprocessors of adversarial-robustness-toolbox in their own environment, for art_context.py.

    python art_worker.py

Each line of standard input is a task in JSON: {"kind": ..., "options": {...}, "images": FILE.npy, "out": FILE.npy or
null}; the images are float32 (N, 3, H, W) in [0, 1]. Each line of the output is an answer in JSON: first the versions,
then {"seconds": time of the call alone} or {"error": text} for each task. Needs numpy, torch and the toolbox only.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import sys
import time
from typing import Any

import numpy as np


def main() -> None:
    # The toolbox prints too; its lines must not mix with the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    with contextlib.redirect_stdout(sys.stderr):
        print(json.dumps(_versions()), file=answers)
        for line in sys.stdin:
            try:
                answer = _run(json.loads(line))
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers)


def _versions() -> dict[str, str]:
    import art
    import torch

    # Must precede the first call, which starts the threads.
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return {"art": art.__version__, "torch": torch.__version__, "numpy": np.__version__}


def _run(task: dict[str, Any]) -> dict[str, float]:
    call, channels_first = _preprocessor(task["kind"], json.dumps(task["options"]))
    images = _images(task["images"])
    if not channels_first:
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    np.random.seed(0)
    start = time.perf_counter()
    out, _ = call(images)
    seconds = time.perf_counter() - start
    if task["out"]:
        out = out if channels_first else out.transpose(0, 3, 1, 2)
        np.save(task["out"], np.ascontiguousarray(out, dtype=np.float32))
    return {"seconds": seconds}


@functools.cache
def _images(file: str) -> Any:
    return np.load(file)


@functools.cache
def _preprocessor(kind: str, options: str) -> tuple[Any, bool]:
    """Returns a preprocessor, and whether it takes channels first; without such an option it takes them last."""
    from art.defences import preprocessor

    made = getattr(preprocessor, kind)
    takes = inspect.signature(made).parameters
    fixed = {"channels_first": True, "clip_values": (0.0, 1.0), "apply_predict": True, "device_type": "cpu"}
    given = {name: value for name, value in fixed.items() if name in takes}
    return made(**given, **json.loads(options)), "channels_first" in takes


if __name__ == "__main__":
    main()
