"""Averages the networks of alloys of one kind, of trainings that went on from one another.

    python benchmarks/average_alloy.py OUT FOLDER=SHARE ... [--gate NAME]

Shares add up to 1. The gates of the trainings are left out; with --gate NAME the mean has the gate and the caution of
that purifier, without it none. OUT, a folder that is not there yet or holds a purifier, gets it in half precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from purifier import Purifier
from purifier.methods.alloy import Alloy

_GATE = ("gate", "caution")


def averaged(shares: Mapping[str, float], gate: str | None = None) -> Alloy:
    """The mean of the networks of purifiers, by folder or name, with the gate of another."""
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise SystemExit(f"expected shares that add up to 1, got {dict(shares)}")
    trained = {name: Purifier.from_pretrained(name).method for name in shares}
    kinds = [_without_gate(method.options) for method in trained.values()]
    if any(kind != kinds[0] for kind in kinds):
        raise SystemExit(f"expected networks of one size, got {dict(zip(trained, kinds, strict=True))}")
    state: dict[str, Tensor] = {}
    for name, method in trained.items():
        for key, weight in method.state_dict().items():
            if not key.startswith("gate."):
                state[key] = state.get(key, 0) + shares[name] * weight.float()
    options = kinds[0]
    if gate is not None:
        guard = Purifier.from_pretrained(gate).method
        options |= {key: guard.options[key] for key in _GATE}
        state |= {key: weight for key, weight in guard.state_dict().items() if key.startswith("gate.")}
    mean = Alloy(**options)
    mean.load_state_dict(state)
    return mean


def _without_gate(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _GATE}


def _share(text: str) -> tuple[str, float]:
    folder, _, share = text.rpartition("=")
    return folder, float(share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("shares", nargs="+", type=_share, metavar="FOLDER=SHARE")
    parser.add_argument("--gate", metavar="NAME", help="whose gate and caution the mean has")
    args = parser.parse_args()
    mean = averaged(dict(args.shares), args.gate)
    Purifier(mean, name=args.out.name).half().save_pretrained(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
