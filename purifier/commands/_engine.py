"""The options of commands that can work on Ray, and the run there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from purifier._errors import OptionError
from purifier.commands._terminal import echo, echo_error

if TYPE_CHECKING:
    from purifier import Purifier

# Number of failed parts that are shown.
_SHOWN = 20


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of `purifier purify --engine ray`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--engine", default="local", show_default=True, type=click.Choice(["local", "ray"]), help="Where to work."
    ),
    click.option("--address", help="Ray: address of the cluster, such as auto.  [default: this machine]"),
    click.option(
        "--workers", metavar="MIN[:MAX]", help="Ray: number of workers.  [default: 1 to what there is room for]"
    ),
    click.option("--cpus-per-worker", type=click.FloatRange(0, min_open=True), help="Ray.  [default: 1]"),
    click.option("--gpus-per-worker", type=click.FloatRange(0), help="Ray.  [default: 1 if the cluster has GPUs]"),
    click.option(
        "--kind",
        type=click.Choice(["files", "webdataset", "parquet"]),
        help="Ray: what SRC holds.  [default: the first that is there]",
    ),
    click.option("--image-column", metavar="NAME", help="Ray: column or field of the pictures.  [default: image]"),
    click.option("--retry", is_flag=True, help="Ray: do parts with pictures that failed again."),
)


def check_engine(engine: str, ray: Mapping[str, Any], device: str) -> None:
    """Checks that options are those of the engine.

    Raises:
        OptionError: If one of them is not.
    """
    given = [name.replace("_", "-") for name, value in ray.items() if value]
    if engine == "local" and given:
        raise OptionError(f"expected --{given[0]} with --engine ray only, got it without; add --engine ray")
    if engine == "ray" and device != "auto":
        raise OptionError("expected --gpus-per-worker with --engine ray, got --device; use 0 for the CPU")


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
    from purifier.scale import Workers, purify_dataset

    least, most = _range(workers)
    totals = purify_dataset(
        source,
        target,
        purifier,
        kind=kind or "auto",
        image_column=image_column or "image",
        address=address,
        workers=Workers(least=least, most=most, cpus=cpus_per_worker or 1, gpus=gpus_per_worker),
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
