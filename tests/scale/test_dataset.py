"""Data sets on a Ray cluster of two nodes: the same bytes, and nothing lost where a driver or a node is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
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
DRIVER = """
import sys
from purifier import Purifier
from purifier.scale import Workers, purify_dataset
from tests.scale.test_dataset import slow
purify_dataset(sys.argv[1], sys.argv[2], slow(), batch_size=1, address=sys.argv[3], workers=Workers(least=2, most=2))
"""


def slow() -> Purifier:
    """A purifier that takes long enough to be killed at work."""
    return Purifier.from_pretrained("gs", iterations=300)


@pytest.fixture
def connected(cluster: Any) -> Any:
    if not ray.is_initialized():
        ray.init(address=cluster.address, log_to_driver=False)
    return cluster


def rows(target: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.read_table(target / ".purifier" / "manifest").to_pylist()
    return found


def on_ray(source: Path | str, target: Path | str, purifier: Purifier | str = "gs", **options: Any) -> Totals:
    return purify_dataset(source, target, purifier, batch_size=BATCH, workers=Workers(least=2, most=2), **options)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def parts_done(target: Path) -> int:
    return len(list((target / ".purifier" / "manifest").glob("*.parquet")))


def test_a_data_set_has_the_bytes_of_the_one_machine_command(connected: Any, tmp_path: Path) -> None:
    source, purifier = folder(tmp_path / "in", 100), Purifier.from_pretrained("gs")
    expected = made_here(source, tmp_path / "here", purifier, BATCH)
    totals = on_ray(source, tmp_path / "out", purifier)
    assert (totals.written, totals.failed, totals.skipped, totals.errors) == (100, 1, 0, [])
    assert contents(tmp_path / "out") == expected
    found = {row["key"]: row for row in rows(tmp_path / "out")}
    assert len(found) == 101 and {row["status"] for row in found.values()} == {"written", "failed"}
    assert "cannot be read" in found["damaged.png"]["error"]
    # Another run does nothing, the one-machine command resumes it, and other settings are refused.
    assert on_ray(source, tmp_path / "out", purifier).skipped == 4
    assert made_here(source, tmp_path / "out", purifier, BATCH) == expected
    with pytest.raises(OptionError, match="got others"):
        on_ray(source, tmp_path / "out", Purifier.from_pretrained("gs", iterations=2))


def test_a_killed_driver_resumes_without_doing_again_what_is_done(connected: Any, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 190)
    arguments = [str(source), str(tmp_path / "out"), connected.address]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], start_new_session=True)
    until(lambda: parts_done(tmp_path / "out") >= 2, "the driver did nothing")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(1)  # Ray ends the driver's actors
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".purifier" / "manifest").glob("*")}
    assert 2 <= len(times) < 6, "it was killed half way"
    totals = on_ray(source, tmp_path / "out", slow())
    assert totals.skipped == len(times) and all(path.stat().st_mtime_ns == was for path, was in times.items())
    assert contents(tmp_path / "out") == made_here(source, tmp_path / "here", slow(), BATCH)
    assert len(rows(tmp_path / "out")) == 191


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
    totals = on_ray("s3://pictures/in", "s3://pictures/out", storage_options=options)
    assert (totals.written, totals.failed, totals.errors) == (9, 1, [])
    system.get("pictures/out/", f"{tmp_path / 'out'}/", recursive=True)
    assert contents(tmp_path / "out") == made_here(source, tmp_path / "here", Purifier.from_pretrained("gs"), BATCH)
    assert on_ray("s3://pictures/in", "s3://pictures/out", storage_options=options).skipped == 1


def test_a_lost_node_costs_nothing_but_time(connected: Any, tmp_path: Path) -> None:
    from threading import Thread

    source, found = folder(tmp_path / "in", 190), list[Totals]()
    run = Thread(target=lambda: found.append(on_ray(source, tmp_path / "out", slow())))
    run.start()
    until(lambda: parts_done(tmp_path / "out") >= 2, "nothing was done")
    (node,) = connected.worker_nodes
    connected.remove_node(node, allow_graceful=False)
    assert parts_done(tmp_path / "out") < 6, "it was killed half way"
    connected.add_node(num_cpus=1, object_store_memory=80 << 20)
    run.join(120)
    assert found and (found[0].written, found[0].failed, found[0].errors) == (190, 1, [])
    assert contents(tmp_path / "out") == made_here(source, tmp_path / "here", slow(), BATCH)
    assert len(rows(tmp_path / "out")) == 191
