"""Data sets on a Ray cluster of two nodes: the same bytes, and nothing lost where a driver or a node is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from purifier import OptionError, Purifier
from purifier.scale import Totals, Workers, purify_dataset
from tests.scale.pictures import contents, folder, made_here

ray = pytest.importorskip("ray", reason="needs ray, of the extra scale")
pytestmark = [
    pytest.mark.slow,
    # What Ray and the services say of their own code.
    pytest.mark.filterwarnings("ignore"),
]

BATCH = 1
# Seconds that a slow machine may take.
LIMIT = 240
DRIVER = """
import sys
from purifier import Purifier
from purifier.scale import Workers, purify_dataset
from tests.scale.test_dataset import slow
purify_dataset(sys.argv[1], sys.argv[2], slow(), batch_size=1, address=sys.argv[3], workers=Workers(least=1, most=1))
"""


def slow() -> Purifier:
    """A purifier that takes long enough to be killed at work."""
    return Purifier.from_pretrained("gs", iterations=300)


@pytest.fixture(scope="module")
def connected(cluster: Any) -> Iterator[Any]:
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()


def rows(target: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.read_table(target / ".purifier" / "manifest").to_pylist()
    return found


def on_ray(
    source: Path | str, target: Path | str, purifier: Purifier | str = "gs", *, number: int, **options: Any
) -> Totals:
    workers = Workers(least=number, most=number)
    return purify_dataset(source, target, purifier, batch_size=BATCH, workers=workers, **options)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def parts_done(target: Path) -> int:
    return len(list((target / ".purifier" / "manifest").glob("*.parquet")))


def test_a_killed_driver_and_a_lost_node_cost_nothing_but_time(connected: Any, tmp_path: Path) -> None:
    source, out, found = folder(tmp_path / "in", 190), tmp_path / "out", list[Totals]()
    expected = made_here(source, tmp_path / "here", slow(), BATCH)
    with killed([str(source), str(out), connected.address]):
        until(lambda: parts_done(out) >= 1, "the driver did nothing")
    time.sleep(1)  # Ray ends the driver's actors
    times = {path: path.stat().st_mtime_ns for path in (out / ".purifier" / "manifest").glob("*")}
    already = rows(out)
    run = Thread(target=lambda: found.append(on_ray(source, out, slow(), number=2)))
    run.start()
    until(lambda: parts_done(out) > len(times), "nothing was done")
    (node,) = connected.worker_nodes
    connected.remove_node(node, allow_graceful=False)
    assert 1 <= len(times) < parts_done(out) < 6, "it was killed half way"
    connected.add_node(num_cpus=1, object_store_memory=80 << 20)
    run.join(LIMIT)
    (totals,) = found
    assert (totals.written + totals.failed, totals.skipped, totals.errors) == (191 - len(already), len(times), [])
    assert all(path.stat().st_mtime_ns == was for path, was in times.items())
    # The bytes are those of the one-machine command.
    assert contents(out) == expected
    made = {row["key"]: row for row in rows(out)}
    assert len(made) == len(rows(out)) == 191 and {row["status"] for row in made.values()} == {"written", "failed"}
    assert "cannot be read" in made["damaged.png"]["error"]
    # Another run does nothing, the one-machine command resumes it, and other settings are refused.
    assert on_ray(source, out, slow(), number=2).skipped == 6
    assert made_here(source, out, slow(), BATCH) == expected
    with pytest.raises(OptionError, match="got others"):
        on_ray(source, out, Purifier.from_pretrained("gs", iterations=2), number=2)


@contextmanager
def killed(arguments: list[str]) -> Iterator[None]:
    """Starts a driver, and kills it at the end."""
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], start_new_session=True)
    try:
        yield
        assert driver.poll() is None
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()


def test_objects_of_a_service_go_to_a_service(connected: Any, tmp_path: Path) -> None:
    pytest.importorskip("s3fs", reason="needs s3fs, of the extra scale")
    server = pytest.importorskip("moto.server", reason="needs moto").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        _s3(f"http://{host}:{port}", connected, tmp_path)
    finally:
        server.stop()


def _s3(endpoint: str, connected: Any, tmp_path: Path) -> None:
    import fsspec

    options = {"endpoint_url": endpoint, "key": "any", "secret": "any", "client_kwargs": {"region_name": "eu-west-1"}}
    system = fsspec.filesystem("s3", **options)
    system.mkdir("pictures")
    source = folder(tmp_path / "in", 9)
    system.put(f"{source}/", "pictures/in/", recursive=True)
    totals = on_ray("s3://pictures/in", "s3://pictures/out", storage_options=options, number=1)
    assert (totals.written, totals.failed, totals.errors) == (9, 1, [])
    system.get("pictures/out/", f"{tmp_path / 'out'}/", recursive=True)
    assert contents(tmp_path / "out") == made_here(source, tmp_path / "here", Purifier.from_pretrained("gs"), BATCH)
    assert on_ray("s3://pictures/in", "s3://pictures/out", storage_options=options, number=1).skipped == 1
