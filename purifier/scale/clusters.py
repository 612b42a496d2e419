"""Connections to Ray clusters."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from purifier._errors import OptionError, PurifierError


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connects to a cluster, or starts one on this machine, unless this process is connected.

    Raises:
        OptionError: If there is no cluster at the address.
    """
    import ray

    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise OptionError(f"expected the address of a Ray cluster, got {address!r}: {error}") from error
    try:
        yield
    finally:
        if started:
            ray.shutdown()


@contextmanager
def finishing() -> Iterator[None]:
    """A context in which an error of Ray's own ends the work with one of ours.

    Raises:
        PurifierError: If the cluster does not finish the work.
    """
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        raise PurifierError(
            f"expected a cluster that finishes the work, got {type(error).__name__}: {error}; the same call resumes"
        ) from error
