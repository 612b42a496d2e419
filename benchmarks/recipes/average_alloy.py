"""Averages the networks of alloys of one size, and gives the mean a gate.

    python -m benchmarks.recipes.average_alloy OUT FOLDER=SHARE ... [--gate NAME [--sharpen S]] [--set OPTION=VALUE ...]

The shares add up to 1; a network with a share of 1 stays as it is. The networks' own gates are left out. With --gate,
the mean gets the gate and gate_bias of that purifier, with logits multiplied by S; without it, it has no gate. --set
changes options that the weights do not depend on, such as gate_bias and blur. OUT is a new folder or one with a
purifier; it gets the mean in half precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from purifier import Purifier
from purifier.evaluation.specs import parse_value
from purifier.methods.alloy import Alloy

_GATE = ("gate", "gate_blocks", "gate_bias", "gate_floor", "gate_threshold")


def averaged(shares: Mapping[str, float], gate: str | None = None, sharpen: float = 1.0, **changes: Any) -> Alloy:
    """Returns the mean of the networks of purifiers, with the gate of another and changed options."""
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise SystemExit(f"expected shares that add up to 1, got {dict(shares)}")
    trained = {name: Purifier.from_pretrained(name).method for name in shares}
    kinds = [{k: v for k, v in method.options.items() if k not in _GATE} for method in trained.values()]
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
    if not changes.keys() <= options.keys():
        raise SystemExit(f"expected options of alloy ({', '.join(options)}), got {', '.join(changes)}")
    mean = Alloy(**options | changes)
    mean.load_state_dict(state)
    if mean.gate is not None:
        for value in mean.gate.layers[-1].parameters():
            value.data *= sharpen
    return mean


def _share(text: str) -> tuple[str, float]:
    folder, _, share = text.rpartition("=")
    return folder, float(share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("shares", nargs="+", type=_share, metavar="FOLDER=SHARE")
    parser.add_argument("--gate", metavar="NAME", help="purifier whose gate and gate_bias the mean gets")
    parser.add_argument("--sharpen", type=float, default=1.0, help="factor of the gate's logits")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="change an option")
    args = parser.parse_args()
    if args.sharpen != 1 and args.gate is None:
        parser.error("expected --gate beside --sharpen")
    changes = {name: parse_value(value) for name, _, value in (text.partition("=") for text in args.set)}
    mean = averaged(dict(args.shares), args.gate, args.sharpen, **changes)
    Purifier(mean, name=args.out.name).half().save_pretrained(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
