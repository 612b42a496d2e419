"""What each purifier costs beside a ResNet-50's forward pass, all in one run, in turn.

    python -m benchmarks.speed.cost            # writes benchmarks/results/cost_cpu.json

Weights do not change the time, so the ResNet-50 has random ones. Each form is timed once a round; the ratio is the
median of the rounds' ratios. Batches of 8 images of 224 x 224 pixels, float32, no gradients. Times are those of the
processor on one thread, to which other programs on the machine add little. `nrp` has no weights of its own, and is left
out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torchvision
from torch import Tensor
from tqdm import tqdm

from benchmarks.kit import environment, write_result
from benchmarks.markdown import table
from purifier import Purifier, list_purifiers


def seconds(call: Callable[[Tensor], Any], images: Tensor, clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one call."""
    start = clock()
    call(images)
    return clock() - start


def measure(names: tuple[str, ...], *, rounds: int, batch: int, size: int) -> dict[str, Any]:
    """Returns, for each purifier, the median seconds of a batch and the median ratio to ResNet-50's."""
    resnet = torchvision.models.resnet50(weights=None).eval().to(memory_format=torch.channels_last)
    forms: dict[str, Callable[[Tensor], Any]] = {"resnet50": resnet}
    forms |= {name: Purifier.from_pretrained(name) for name in names}
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=torch.channels_last)
    found: dict[str, list[float]] = {name: [] for name in forms}
    with torch.inference_mode():
        for number in tqdm(range(rounds + 1), desc="rounds"):
            for name, call in forms.items():
                took = seconds(call, images, time.process_time)
                if number:  # the first round warms up
                    found[name].append(took)
    ratios = {name: [a / b for a, b in zip(times, found["resnet50"], strict=True)] for name, times in found.items()}
    return {name: {"seconds": median(found[name]), "resnet50s": median(ratios[name])} for name in forms}


def markdown(found: dict[str, Any]) -> str:
    """The table of the result file."""
    batch = found["settings"]["batch"]
    rows = sorted(found["rows"].items(), key=lambda entry: entry[1]["seconds"])
    lines = [
        ["ResNet-50 forward" if name == "resnet50" else f"`{name}`", f"{1000 * row['seconds'] / batch:.1f}",
         f"{row['resnet50s']:.2f}"]
        for name, row in rows
    ]  # fmt: skip
    return table(["", "ms an image", "ResNet-50s"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = tuple(name for name in list_purifiers() if name != "nrp")
    rows = measure(names, rounds=args.rounds, batch=args.batch, size=args.size)
    for name, row in rows.items():
        print(f"{name}: {row['seconds']:.3f} s, {row['resnet50s']:.2f} ResNet-50s")
    write_result("cost_cpu", {"settings": vars(args), "rows": rows, "environment": environment()})


if __name__ == "__main__":
    main()
