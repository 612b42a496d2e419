"""A data set on Ray beside the one-machine command: the same bytes, the throughput, the overhead, and after kills.

    python -m benchmarks.scale.dataset --work WORK

Small pictures are purified by the one-machine command with one thread, and on a local Ray cluster of two nodes with one
CPU each, by one worker and by two. Then one data set is purified while drivers and nodes are killed at random moments,
five times each, and resumed. Every output is compared byte by byte with that of the command. The memory of the workers
is sampled five times a second.

Results: benchmarks/results/scale_dataset.json.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import psutil
import ray
from PIL import Image
from ray.cluster_utils import Cluster

from benchmarks import kit
from benchmarks.scale.dataset_table import NAME, markdown
from purifier import Purifier
from purifier.scale import Totals, Workers, purify_dataset

COMMAND = "import sys; from benchmarks.scale.dataset import on_ray; on_ray(*sys.argv[1:4], 2, sys.argv[4])"
MEMORY = 100 << 20


def pictures(folder: Path, count: int, size: int) -> None:
    """Writes pictures: smooth ones with noise, so that PNG files are neither tiny nor as large as they can be."""
    for number in range(count):
        path = folder / f"{number % 10}" / f"{number:06d}.{'png' if number % 2 else 'jpg'}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(number)
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((size, size))
            noise = rng.integers(0, 16, (size, size, 3))
            Image.fromarray((np.asarray(coarse) * 0.9 + noise).astype(np.uint8)).save(path)


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the pictures below a folder by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def here(source: str, target: str, purifier: str) -> float:
    """Runs the one-machine command in a process of its own; returns the seconds of its work, without its start."""
    script = (
        "import sys, time, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from purifier import Purifier; from purifier.data.outputs import plan\n"
        "from purifier.commands.purify import run\n"
        "p = Purifier.from_pretrained(sys.argv[3], device='cpu'); jobs = plan(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "start = time.perf_counter(); run(jobs, p); print(time.perf_counter() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, source, target, purifier], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def on_ray(source: str, target: str, purifier: str, workers: int, address: str | None = None) -> Totals:
    """Purifies on the cluster with a number of workers."""
    options: Any = {"address": address, "workers": Workers(least=workers, most=workers)}
    return purify_dataset(source, target, purifier, **options)


@contextmanager
def memory() -> Iterator[list[int]]:
    """Samples the memory of the workers; the list gets the largest of any."""
    largest, end = [0], Event()

    def sample() -> None:
        while not end.wait(0.2):
            for process in psutil.process_iter(["cmdline", "memory_info"]):
                title = " ".join(process.info["cmdline"] or ())
                if title.startswith("ray::") and "_Worker" in title and process.info["memory_info"]:
                    largest[0] = max(largest[0], process.info["memory_info"].rss)

    thread = Thread(target=sample)
    thread.start()
    try:
        yield largest
    finally:
        end.set()
        thread.join()


def timed(work: Path, name: str, purifier: str, workers: int) -> dict[str, Any]:
    """Purifies on Ray; returns the seconds until the first part, and the pictures a second after that."""
    target, marks = work / name, list[tuple[float, int]]()
    start, end = time.perf_counter(), Event()

    def watch() -> None:
        while not end.wait(0.05):
            marks.append((time.perf_counter() - start, parts_done(target)))

    thread = Thread(target=watch)
    thread.start()
    try:
        with memory() as largest:
            totals = on_ray(str(work / "in"), str(target), purifier, workers)
    finally:
        end.set()
        thread.join()
    seconds = time.perf_counter() - start
    first, count = next((at, count) for at, count in marks if count)
    last, most = next((at, count) for at, count in marks if count == marks[-1][1])
    return {
        "seconds": seconds,
        "seconds_to_first_part": first,
        "images_per_second": 256 * (most - count) / (last - first),
        "written": totals.written,
        "peak_worker_mb": largest[0] / 1e6,
    }


def parts_done(target: Path) -> int:
    """Returns the number of parts in a manifest."""
    return len(list((target / ".purifier" / "manifest").glob("*.parquet")))


def wait(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Waits for a condition or the end of a process."""
    while not condition() and process.poll() is None:
        time.sleep(0.02)


def killed(work: Path, purifier: str, cluster: Any, kills: int) -> list[dict[str, Any]]:
    """Purifies a data set while drivers and nodes are killed in turn; returns what was done at each kill."""
    rng, target, rows = random.Random(0), work / "killed", list[dict[str, Any]]()
    arguments = [sys.executable, "-c", COMMAND, str(work / "in"), str(target), purifier, cluster.address]
    driver: subprocess.Popen[bytes] | None = None
    for number in range(kills):
        before = parts_done(target)
        driver = driver or subprocess.Popen(arguments, start_new_session=True)
        running = driver
        # A third of the kills hit the start of a run, before its first part.
        if rng.random() < 2 / 3:
            wait(lambda: parts_done(target) > before, running)  # noqa: B023
        time.sleep(rng.uniform(0, 1.5))
        row = {"killed": "node" if number % 2 else "driver", "parts_before": parts_done(target)}
        if number % 2:
            cluster.remove_node(rng.choice(sorted(cluster.worker_nodes, key=id)), allow_graceful=False)
            cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        else:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            driver = None
        rows.append(row)
    if driver is not None:
        driver.wait()
    return rows


def same(work: Path, name: str) -> bool:
    """Whether a run's outputs are those of the one-machine command."""
    return contents(work / name) == contents(work / "here")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the pictures; must not have outputs")
    parser.add_argument("--purifier", default="alloy-s")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--kills", type=int, default=10)
    args = parser.parse_args(arguments)
    pictures(args.work / "in", args.images, args.size)
    settings = {key: value for key, value in vars(args).items() if key != "work"}
    found: dict[str, Any] = {"settings": settings, "ray": {}, "same_bytes": {}}
    seconds = here(str(args.work / "in"), str(args.work / "here"), args.purifier)
    found["here"] = {"seconds": seconds, "images_per_second": args.images / seconds}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    ray.init(address=cluster.address, log_to_driver=False)
    for workers in (1, 2):
        found["ray"][f"{workers}"] = timed(args.work, f"ray{workers}", args.purifier, workers)
        found["same_bytes"][f"{workers} workers"] = same(args.work, f"ray{workers}")
    found["kills"] = killed(args.work, args.purifier, cluster, args.kills)
    last = on_ray(str(args.work / "in"), str(args.work / "killed"), args.purifier, 2)
    found["after_kills"] = {"parts_done_before": last.skipped, "failed": last.failed, "errors": last.errors}
    found["same_bytes"]["after kills"] = same(args.work, "killed")
    ray.shutdown()
    cluster.shutdown()
    found["weights"] = kit.weights_of({args.purifier: Purifier.from_pretrained(args.purifier)})
    found["environment"] = kit.environment()
    kit.write_result(NAME, found)
    print(markdown(found))
    print(f"same bytes: {found['same_bytes']}; kills: {found['kills']}")


if __name__ == "__main__":
    main()
