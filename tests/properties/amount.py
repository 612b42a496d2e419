"""How many examples the property tests try: a few seconds' worth, or FUZZ times as many, at random."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_TIMES = int(os.environ.get("FUZZ", "1"))


def examples(count: int) -> settings:
    """Settings for so many examples, always the same ones unless FUZZ is set."""
    return settings(
        max_examples=count * _TIMES,
        deadline=None,
        database=None,
        derandomize=_TIMES == 1,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
