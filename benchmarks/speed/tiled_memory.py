"""Measures the peak extra memory of a tiled purifier for a large image, on the CPU.

    python -m benchmarks.speed.tiled_memory

Extra memory is the rise of the process's peak resident size during the call, output included. This holds for inference
only; gradients keep every tile's activations.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from benchmarks.kit import environment, write_result
from purifier import Purifier


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--purifier", default="ncis")
    parser.add_argument("--side", type=int, default=4096, help="height and width of the image")
    parser.add_argument("--iterations", type=int, default=2, help="number of iterations; does not change the memory")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    purifier = Purifier.from_pretrained(args.purifier, dtype=args.dtype, iterations=args.iterations).tiled(args.tile)
    image = torch.rand(3, args.side, args.side)
    with torch.inference_mode():
        purifier(image[:, : args.tile, : args.tile])  # loads the kernels
        before, start = peak_bytes(), time.perf_counter()
        out = purifier(image)
        seconds = time.perf_counter() - start
    assert out.shape == image.shape
    extra = peak_bytes() - before
    result = {**vars(args), "extra_bytes": extra, "seconds": seconds, "environment": environment()}
    write_result(f"tiled_memory_{args.purifier}", result)
    size = f"{args.side} x {args.side}"
    how = f"{args.iterations} iterations, tiles of {args.tile}, {args.dtype}"
    print(f"{args.purifier}, {size}, {how}: {extra / 2**30:.2f} GiB extra, {seconds:.0f} s")


if __name__ == "__main__":
    main()
