"""The options of commands that can work on Ray, and the runs there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from purifier._errors import OptionError
from purifier.commands._terminal import echo, echo_error

if TYPE_CHECKING:
    from purifier import Purifier
    from purifier.scale import Workers

# The options of Ray that all of these commands have, as Python names.
RAY = ("address", "workers", "cpus_per_worker", "gpus_per_worker")
# Number of failed parts that are shown.
_SHOWN = 20


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of `--engine ray` that all of these commands have."""
    for option in reversed(_ENGINE):
        command = option(command)
    return command


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds those about data sets."""
    for option in reversed(_DATA):
        command = option(command)
    return command


_ENGINE = (
    click.option(
        "--engine", default="local", show_default=True, type=click.Choice(["local", "ray"]), help="Where to work."
    ),
    click.option("--address", help="Ray: address of the cluster, such as auto.  [default: this machine]"),
    click.option(
        "--workers", metavar="MIN[:MAX]", help="Ray: number of workers.  [default: 1 to what there is room for]"
    ),
    click.option("--cpus-per-worker", type=click.FloatRange(0, min_open=True), help="Ray.  [default: 1]"),
    click.option("--gpus-per-worker", type=click.FloatRange(0), help="Ray.  [default: 1 if the cluster has GPUs]"),
)
_DATA = (
    click.option(
        "--kind",
        type=click.Choice(["files", "webdataset", "parquet"]),
        help="Ray: what SRC holds.  [default: the first that is there]",
    ),
    click.option("--image-column", metavar="NAME", help="Ray: column or field of the pictures.  [default: image]"),
    click.option("--retry", is_flag=True, help="Ray: do parts with pictures that failed again."),
)


def check_engine(engine: str, ray: Mapping[str, Any]) -> None:
    """Checks that options of Ray are given with --engine ray only.

    Raises:
        OptionError: If one of them is given without.
    """
    given = [name.replace("_", "-") for name, value in ray.items() if value]
    if engine == "local" and given:
        raise OptionError(f"expected --{given[0]} with --engine ray only, got it without; add --engine ray")


def run_on_ray(
    source: str,
    target: str,
    purifier: Purifier,
    *,
    address: str | None,
    workers: str | None,
    cpus_per_worker: float | None,
    gpus_per_worker: float | None,
    kind: Any,
    image_column: str | None,
    retry: bool,
    **options: Any,
) -> None:
    """Purifies a data set on Ray, prints the totals, and ends with exit code 1 if a picture or a part failed."""
    from purifier.scale import purify_dataset

    totals = purify_dataset(
        source,
        target,
        purifier,
        kind=kind or "auto",
        image_column=image_column or "image",
        address=address,
        workers=_workers(workers, cpus_per_worker, gpus_per_worker),
        retry=retry,
        **options,
    )
    for _, reason in totals.errors[:_SHOWN]:
        echo_error(reason)
    echo(
        f"purified {totals.written}, failed {totals.failed}; parts done before {totals.skipped}, parts that failed "
        f"{len(totals.errors)}; the manifest is in {totals.manifest}"
    )
    if totals.failed or totals.errors:
        raise click.exceptions.Exit(1)


def evaluation_engine(
    engine: str, address: str | None, workers: str | None, cpus_per_worker: float | None, gpus_per_worker: float | None
) -> dict[str, Any]:
    """Returns the argument of `evaluate` that the options of --engine state."""
    if engine == "local":
        return {}
    from purifier.scale import OnRay

    return {"engine": OnRay(address, _workers(workers, cpus_per_worker, gpus_per_worker))}


def _workers(workers: str | None, cpus: float | None, gpus: float | None) -> Workers:
    from purifier.scale import Workers

    least, most = _range(workers)
    return Workers(least=least, most=most, cpus=cpus or 1, gpus=gpus)


def _range(text: str | None) -> tuple[int, int | None]:
    """Returns the least and the largest number of workers that "4" or "2:8" states."""
    least, _, most = (text or "1:0").partition(":")
    try:
        low, high = int(least), int(most or least)
    except ValueError:
        low, high = 0, 0
    if text is not None and not 1 <= low <= high:
        raise OptionError(f"expected --workers such as 4 or 2:8, got {text!r}")
    return low, high or None
