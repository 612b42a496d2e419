"""Trainings in processes of their own: killed, and two at a time; and trainings that break off in this one.

Their source is a script that trains on the data at `sys.argv[1]` into the folder at `sys.argv[2]`, and waits
`sys.argv[3]` seconds before each step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from benchmarks.scale.services import free_port
from purifier.training.checkpoints import load_checkpoint

ROOT = Path(__file__).parents[2]
# Seconds that a slow machine may take.
LIMIT = 480


def killed(source: str, data: Path, out: Path, *, pause: float = 0.5) -> dict[str, Any]:
    """Trains into `out`, and is killed after the first checkpoint.

    Returns:
        The checkpoint that the kill left.
    """
    command = [sys.executable, "-c", source, str(data), str(out), str(pause)]
    with out.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment())
    deadline = time.monotonic() + LIMIT
    while not (out / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, out.with_suffix(".log").read_text()
    return _left(out)


def broken_off(train: Callable[[], object], recipe: type, out: Path, *, step: int = 5) -> dict[str, Any]:
    """Trains in this process into `out`, and loses everything after the last checkpoint in the middle of a step.

    Returns:
        The checkpoint that is left.
    """

    def losses(*arguments: Any) -> Any:
        if arguments[-1] == step:
            raise _BrokenOff
        return whole(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        whole = recipe.losses  # type: ignore[attr-defined]
        patch.setattr(recipe, "losses", losses)
        with pytest.raises(_BrokenOff):
            train()
    halfway = _left(out)
    assert 0 < halfway["step"] < step
    return halfway


class _BrokenOff(BaseException):
    """What nothing handles."""


def _left(out: Path) -> dict[str, Any]:
    halfway = load_checkpoint(out / "checkpoint.pt")
    assert halfway is not None
    return halfway


def starve_threads() -> None:
    """Keeps this process to a core, where the threads that talk to other processes run when Python does not.

    They are then still busy with the last exchange when a training is over.
    """
    if not hasattr(os, "SCHED_IDLE"):
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["RANK"]) % len(cores)]})
    start = torch.distributed.init_process_group

    def starve(*arguments: Any, **settings: Any) -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        start(*arguments, **settings)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

    torch.distributed.init_process_group = starve


def start_hosts(
    source: str,
    data: list[Path],
    outs: list[Path],
    *,
    pause: float = 0,
    launcher: Literal["torchrun", "accelerate"] | None = None,
) -> list[subprocess.Popen[bytes]]:
    """Starts a training on the CPUs of two hosts, which are processes here.

    Each has a launcher of its own. None stands for the variables that a launcher sets, without its imports.
    """
    started, port = [], str(free_port())
    for rank, (photos, out) in enumerate(zip(data, outs, strict=True)):
        script = out.with_suffix(".py")
        script.write_text(source)
        launch = {
            None: [],
            "torchrun": [
                "-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1",
                "--master_addr=127.0.0.1", f"--master_port={port}",
            ],
            "accelerate": [
                "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "examples" / "accelerate.yaml"),
                "--num_processes=2", f"--machine_rank={rank}", "--main_process_ip=127.0.0.1",
                f"--main_process_port={port}",
            ],
        }[launcher]  # fmt: skip
        command = [sys.executable, *launch, *map(str, (script, photos, out, pause))]
        variables = {**_environment(), "ACCELERATE_USE_CPU": "true"}
        if launcher is None:
            places = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
            variables |= {**places, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        with out.with_suffix(".log").open("ab") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=variables))
    return started


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
