"""Trainings in processes of their own: killed and going on, and two at a time.

Their source is a script that trains on the data at `sys.argv[1]` into the folder at `sys.argv[2]`, and waits
`sys.argv[3]` seconds before each step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.scale.services import free_port
from purifier.training.checkpoints import load_checkpoint

ROOT = Path(__file__).parents[2]
# Seconds that a slow machine may take.
LIMIT = 480
# Each process keeps to a core, where the threads that talk to the other process run when Python does not: they are
# still busy with the last exchange when the training is over.
STARVED = """
import os, torch
if hasattr(os, "SCHED_IDLE"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["RANK"]) % len(cores)]})
    start = torch.distributed.init_process_group
    def starve(*args, **settings):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        start(*args, **settings)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    torch.distributed.init_process_group = starve
"""


def killed_and_resumed(source: str, data: Path, folder: Path, *, pause: float = 0.5) -> dict[str, Any]:
    """Trains into folder/"unbroken", and into folder/"killed" in two goes.

    Returns:
        The checkpoint that the kill left.
    """
    unbroken, killed = folder / "unbroken", folder / "killed"
    _finish(_start(source, data, unbroken, 0), unbroken)
    process = _start(source, data, killed, pause)
    deadline = time.monotonic() + LIMIT
    while not (killed / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    halfway = load_checkpoint(killed / "checkpoint.pt")
    assert halfway is not None, killed.with_suffix(".log").read_text()
    _finish(_start(source, data, killed, 0), killed)
    return halfway


def train_in_two(source: str, data: Path, out: Path) -> None:
    """Trains in two processes, as on two hosts, and sees both leave in peace although they share cores.

    The first one writes to `out`. The second one has a folder of its own, without a checkpoint or weights.
    """
    other = out.with_name(f"{out.name}-other")
    for process in start_hosts(STARVED + source, [data, data], [out, other]):
        assert process.wait(LIMIT) == 0, "\n".join(one.with_suffix(".log").read_text()[-3000:] for one in (out, other))
    assert not [path for path in other.rglob("*") if path.name == "checkpoint.pt" or path.suffix == ".safetensors"]


def start_hosts(
    source: str, data: list[Path], outs: list[Path], *, pause: float = 0, accelerate: bool = False
) -> list[subprocess.Popen[bytes]]:
    """Starts a training on the CPUs of two hosts, which are processes here; each has a launcher of its own."""
    started, port = [], free_port()
    for rank, (photos, out) in enumerate(zip(data, outs, strict=True)):
        script = out.with_suffix(".py")
        script.write_text(source)
        torchrun = [
            "torch.distributed.run", "--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1",
            "--master_addr=127.0.0.1", f"--master_port={port}",
        ]  # fmt: skip
        launch = [
            "accelerate.commands.launch", "--config_file", str(ROOT / "examples" / "accelerate.yaml"),
            "--num_processes=2", f"--machine_rank={rank}", "--main_process_ip=127.0.0.1", f"--main_process_port={port}",
        ]  # fmt: skip
        command = [sys.executable, "-m", *(launch if accelerate else torchrun), *map(str, (script, photos, out, pause))]
        variables = {**_environment(), "ACCELERATE_USE_CPU": "true"}
        with out.with_suffix(".log").open("ab") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=variables))
    return started


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _start(source: str, data: Path, out: Path, pause: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", source, str(data), str(out), str(pause)]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=_environment())


def _finish(process: subprocess.Popen[bytes], out: Path) -> None:
    assert process.wait(LIMIT) == 0, out.with_suffix(".log").read_text()
