"""The options of purify_dataset, checked before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from purifier._errors import OptionError, shown
from purifier._options import LARGE, check_fields, check_integer, check_number
from purifier.data.outputs import Format

Kind = Literal["auto", "files", "webdataset", "parquet"]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The workers of a run, each of which is an actor with a purifier of its own.

    Attributes:
        least: Number of workers at the start.
        most: The largest number. None means as many as the cluster has room for.
        cpus: CPUs of a worker.
        gpus: GPUs of a worker, such as 0.25 for four on one GPU. None means one if the cluster has GPUs.

    Raises:
        OptionError: If a number is out of its range.
    """

    least: int = 1
    most: int | None = None
    cpus: float = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        check_integer("least", self.least, low=1)
        if self.most is not None:
            check_integer("most", self.most, low=self.least)
        check_number("cpus", self.cpus, low=1e-4, high=1e6)
        if self.gpus is not None:
            check_number("gpus", self.gpus, low=0, high=1e6)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `purify_dataset`, which describes them.

    Raises:
        OptionError: If one has another type, or is out of its range.
    """

    kind: Kind
    form: Format
    image_column: str
    batch_size: int
    max_pixels: float | None
    overwrite: bool
    retry: bool
    address: str | None
    workers: Workers
    storage_options: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_fields(self)
        check_integer("batch_size", self.batch_size, low=1, high=65_536, why=LARGE)
        if self.max_pixels is not None:
            check_number("max_pixels", self.max_pixels, low=1, high=math.inf)
        if not isinstance(self.workers, Workers):
            raise OptionError(f"expected workers to be a purifier.scale.Workers, got {shown(self.workers)}")
        odd = [name for name in self.storage_options if not isinstance(name, str)]
        if odd:
            raise OptionError(f"expected storage_options with text as keys, got {shown(odd[0])}")
