"""Evaluations whose batches are measured by many workers on Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from purifier._errors import OptionError, PurifierError, shown
from purifier._extras import require_extra
from purifier._files import replacing, writing
from purifier._walking import make_folders
from purifier.evaluation.cells import CellRunner, Job
from purifier.scale.clusters import connected, finishing
from purifier.scale.options import Workers

# A worker's node may be lost this often.
_RETRIES = 3
# What a worker returns of a batch: the records, and the pictures by their path; or the error.
_Found = tuple[list[dict[str, Any]], dict[str, bytes]] | PurifierError


@dataclass(frozen=True)
class OnRay:
    """Measures the batches of an evaluation on a Ray cluster: `evaluate(..., engine=OnRay())`.

    Every batch has random numbers of its own, so records and figures are those of one process. This process writes the
    records, in the same order. Workers compute with as many threads as they have CPUs; another number of threads can
    change last bits of the model's outputs.

    Attributes:
        address: Address of a Ray cluster, such as "auto". None means the one that is connected, or this machine.
        workers: Their number and resources. `most` workers are started, or as many as there is room for.

    Raises:
        OptionError: If an option has another type.
    """

    address: str | None = None
    workers: Workers = field(default_factory=Workers)

    def __post_init__(self) -> None:
        if not (self.address is None or isinstance(self.address, str)) or not isinstance(self.workers, Workers):
            raise OptionError(f"expected an address and purifier.scale.Workers, got {shown(self)}")

    def __call__(self, runner: CellRunner, jobs: Sequence[Job]) -> Iterator[list[dict[str, Any]]]:
        """Yields the records of each batch, in the order of the batches.

        Raises:
            OptionError: If the model or the data cannot be sent to workers, or there is no such cluster.
            PurifierError: If Ray is not installed, a batch cannot be measured, or the run ends early.
        """
        require_extra("ray", extra="scale", what="an evaluation on Ray")
        if not jobs:
            return
        with connected(self.address), finishing():
            for found in self._found(runner, jobs):
                if isinstance(found, PurifierError):
                    raise found
                records, pictures = found
                for path, content in pictures.items():
                    _write(runner.pictures / path, content)
                yield records

    def _found(self, runner: CellRunner, jobs: Sequence[Job]) -> Iterator[_Found]:
        import ray
        from ray.util import ActorPool

        resources = ray.cluster_resources()
        gpus = self.workers.gpus if self.workers.gpus is not None else float(runner.defences.device.type == "cuda")
        room = resources.get("CPU", 1) // self.workers.cpus
        if gpus:
            room = min(room, resources.get("GPU", 0) // gpus)
        number = int(max(self.workers.least, min(room, self.workers.most or room, len(jobs))))
        try:
            sent = ray.put(runner)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise OptionError(
                f"expected a model and data that can be pickled for the workers, got {shown(error)}; define their "
                "classes and functions in a module"
            ) from error
        worker = ray.remote(_Worker).options(
            num_cpus=self.workers.cpus, num_gpus=gpus, max_restarts=_RETRIES, max_task_retries=_RETRIES
        )
        threads = max(1, int(self.workers.cpus))
        pool: Any = ActorPool([worker.remote(sent, threads) for _ in range(number)])
        yield from pool.map(lambda actor, job: actor.measure.remote(job), jobs)


def _write(path: Path, content: bytes) -> None:
    with writing(path):
        make_folders(path.parent)
        with replacing(path) as draft:
            draft.write_bytes(content)


class _Worker:
    """An actor that measures one batch after another."""

    def __init__(self, runner: CellRunner, threads: int) -> None:
        torch.set_num_threads(threads)
        self.runner = runner

    def measure(self, job: Job) -> _Found:
        # This process may have another file system than the one that writes.
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                records = replace(self.runner, pictures=folder).measure(job)
            except PurifierError as error:
                return error
            files = (path for path in folder.rglob("*") if path.is_file())
            return records, {str(path.relative_to(folder)): path.read_bytes() for path in files}
