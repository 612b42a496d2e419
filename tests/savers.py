"""Processes that save into one folder and are killed: `python -m tests.savers FOLDER KILLS SEED`.

Prints how often the folder held each version, and "None" if it held a mixture.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from purifier import Purifier, _format
from tests.builders import small_purifier


def versions() -> list[Purifier]:
    """Two purifiers of one architecture with different weights, and one without weights."""
    first, second = small_purifier("ncis"), small_purifier("ncis")
    second.method.load_state_dict({key: value * 0.5 for key, value in first.method.state_dict().items()})
    return [first, second, small_purifier("gs")]


def which(purifier: Purifier, known: list[Purifier]) -> int | None:
    """The number of the version whose weights a purifier has, bit by bit; None if it is a mixture."""
    state = purifier.method.state_dict()
    return next((number for number, one in enumerate(known) if _equal(state, one.method.state_dict())), None)


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def kill_savers(folder: Path, kills: int, seed: int) -> Counter[int | None]:
    """Kills processes while they save, and counts what the folder holds after each kill."""
    known, times, found = versions(), random.Random(seed), Counter[int | None]()
    known[0].save_pretrained(folder)
    for _ in range(kills):
        process = os.fork()
        if process == 0:
            for one in itertools.cycle(known):
                one.save_pretrained(folder)
        time.sleep(times.uniform(0.0, 0.2))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        found[which(Purifier.from_pretrained(folder), known)] += 1
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    _format.SHARD_BYTES = 4000
    print(sorted(kill_savers(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])).items()))  # noqa: T201
