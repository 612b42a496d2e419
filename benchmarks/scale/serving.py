"""The example services with and without a purifier: latency, throughput, and memory over many requests.

    python -m benchmarks.scale.serving

Each service runs on this machine and classifies JPEG pictures of one size with the bundled classifier, which is small,
so that the purifier is most of the work. Clients, which are threads of this process, send one request after another.
Bare and purified are measured one after the other for each service. Then the purified service answers many requests
while the memory of all its processes is sampled.

Results: benchmarks/results/scale_serving.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks import kit
from benchmarks.markdown import table
from benchmarks.scale.services import PROGRAMS, Client, running
from purifier import Purifier

NAME = "scale_serving"


def picture(number: int, size: int) -> bytes:
    """Returns a JPEG file of a smooth picture."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(coarse).resize((size, size)).save(file, "JPEG")
    return file.getvalue()


def load(program: str, port: int, pictures: Sequence[bytes], clients: int, requests: int) -> list[float]:
    """Sends requests from a number of clients at the same time; returns the seconds of each.

    Raises:
        RuntimeError: If an answer is an error.
    """

    def work(client: int) -> list[float]:
        seconds = []
        with closing(Client(program, port)) as connection:
            for number in range(client, requests, clients):
                start = time.perf_counter()
                status, answer = connection.post(pictures[number % len(pictures)])
                seconds.append(time.perf_counter() - start)
                if status != 200 or "class" not in answer:
                    raise RuntimeError(f"{program} answered {status}: {answer!r}")
        return seconds

    with ThreadPoolExecutor(clients) as pool:
        return [one for found in pool.map(work, range(clients)) for one in found]


def figures(program: str, port: int, pictures: Sequence[bytes], clients: int, requests: int) -> dict[str, float]:
    """Returns percentiles of the latency in milliseconds, and requests a second."""
    load(program, port, pictures, clients, 2 * clients)  # warm
    start = time.perf_counter()
    seconds = load(program, port, pictures, clients, requests)
    rate = requests / (time.perf_counter() - start)
    p50, p95, p99 = (1000 * float(one) for one in np.percentile(seconds, [50, 95, 99]))
    return {"p50": p50, "p95": p95, "p99": p99, "per_second": rate}


def megabytes(process: int) -> float:
    """Returns the memory of a process and of all that it started, each page counted once."""
    group = [psutil.Process(process)]
    group += group[0].children(recursive=True)
    return sum(one.memory_full_info().pss for one in group if one.is_running()) / 1e6


def memory(program: str, port: int, process: int, pictures: Sequence[bytes], requests: int) -> list[dict[str, float]]:
    """Returns the memory after each tenth of many requests by eight clients."""
    marks = []
    for part in range(10):
        load(program, port, pictures, 8, requests // 10)
        marks.append({"requests": (part + 1) * (requests // 10), "megabytes": megabytes(process)})
    return marks


def markdown(found: dict[str, Any]) -> str:
    """The table of the result file."""
    rows = []
    for program, clients in ((one, many) for one in found["services"] for many in found["settings"]["clients"]):
        cells = found["services"][program]
        bare, purified = (cells[name][str(clients)] for name in ("none", found["settings"]["purifier"]))
        rows.append(
            [
                program, str(clients),
                *(f"{bare[key]:.0f} / {purified[key]:.0f}" for key in ("p50", "p95", "p99", "per_second")),
                f"{purified['per_second'] / bare['per_second']:.2f}",
            ]
        )  # fmt: skip
    heads = ["service", "clients", "p50 ms", "p95 ms", "p99 ms", "requests a second", "ratio"]
    return table(heads, rows)


def memory_markdown(found: dict[str, Any]) -> str:
    """The table of the memory."""
    marks = {program: cells["memory"] for program, cells in found["services"].items()}
    chosen = [0, 4, 9]
    heads = ["service", *(f"after {next(iter(marks.values()))[index]['requests']:,.0f}" for index in chosen)]
    return table(
        heads, [[name, *(f"{one[index]['megabytes']:.0f}" for index in chosen)] for name, one in marks.items()]
    )


def measure(program: str, purifier: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measures one service with one purifier, or with "none"."""
    pictures = [picture(number, args.size) for number in range(32)]
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        running(program, Path(folder) / "log", PURIFIER=purifier, OMP_NUM_THREADS="1") as (port, process),
    ):
        for clients in args.clients:
            found[str(clients)] = figures(program, port, pictures, clients, args.requests)
        if purifier != "none" and args.memory_requests:
            found["memory"] = memory(program, port, process, pictures, args.memory_requests)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--purifier", default="alloy-s")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=500, help="requests for each figure")
    parser.add_argument("--memory-requests", type=int, default=10_000)
    args = parser.parse_args(arguments)
    found: dict[str, Any] = {"settings": vars(args), "services": {}}
    for program in PROGRAMS:
        cells = {purifier: measure(program, purifier, args) for purifier in ("none", args.purifier)}
        found["services"][program] = {**cells, "memory": cells[args.purifier].pop("memory", [])}
        print(program, found["services"][program], flush=True)
    found["weights"] = kit.weights_of({args.purifier: Purifier.from_pretrained(args.purifier)})
    found["environment"] = kit.environment()
    kit.write_result(NAME, found)
    print(markdown(found))
    print(memory_markdown(found))


if __name__ == "__main__":
    main()
