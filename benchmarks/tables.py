"""Writes the measured figures from benchmarks/results into README.md and the model cards.

    python benchmarks/tables.py          # rewrites the blocks
    python benchmarks/tables.py --check  # fails where a block is not what the results say

A block stands between `<!-- measured: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"(<!-- measured: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def blind_pgd() -> dict[str, dict[str, Any]]:
    """Rows of each classifier that benchmarks/blind_pgd.py has measured."""
    names = ("resnet50", "mobilenet_v2")
    return {name: result(f"blind_pgd_{name}")["rows"] for name in names}


def _percent(value: float, spread: list[float] | None = None) -> str:
    return f"{100 * value:.1f}" + (f" ({100 * max(0, spread[0]):.0f}-{100 * spread[1]:.0f})" if spread else "")


def _aware(row: dict[str, Any]) -> str:
    aware = row.get("aware")
    return f"{_percent(aware['robust'], aware['robust_interval'])}, n={aware['images']}" if aware else "not measured"


def accuracy(rows: Callable[[str], bool]) -> str:
    """A table of the chosen rows of the purifier-blind PGD benchmark, both classifiers."""
    out = [
        "| classifier | purifier | standard | purifier-blind PGD | mean of the two | purifier-aware PGD |",
        "|---|---|---|---|---|---|",
    ]
    for model, table in blind_pgd().items():
        for row, r in table.items():
            if rows(row):
                standard = _percent(r["standard"], r["standard_interval"])
                blind = _percent(r["robust"], r["robust_interval"])
                aware = blind if row == "none" else _aware(r)
                out.append(f"| {model} | {row} | {standard} | {blind} | {_percent(r['mean'])} | {aware} |")
    return "\n".join(out)


def best_rows() -> str:
    """No defence, the baselines, and the best gs and ncis of each classifier."""
    best = set()
    for model, table in blind_pgd().items():
        for kind in ("gs", "ncis"):
            best.add((model, max((r for r in table if r.startswith(f"{kind} ")), key=lambda r: table[r]["mean"])))
    lines = accuracy(lambda row: True).splitlines()

    def kept(line: str) -> bool:
        model, row = (cell.strip() for cell in line.split("|")[1:3])
        return not row.startswith(("gs", "ncis")) or (model, row) in best

    return "\n".join(lines[:2] + [line for line in lines[2:] if kept(line)])


def demo_classifier() -> str:
    r = result("demo_classifier")
    return (
        f"Top-1 on the {r['images']} test pictures: {_percent(r['clean_accuracy'])} % clean, "
        f"{_percent(r['robust_accuracy'])} % under PGD (Linf, eps 8/255, alpha 2/255, 10 steps, random start)."
    )


def tiled_memory() -> str:
    r = result("tiled_memory_ncis")
    return (
        f"A {r['side']} x {r['side']} image through `ncis` in tiles of {r['tile']}, {r['iterations']} iterations, "
        f"{r['dtype']}, on a CPU: "
        f"{r['extra_bytes'] / 2**30:.2f} GiB of extra memory (`python benchmarks/tiled_memory.py`)."
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "best": best_rows,
    "demo classifier": demo_classifier,
    "tiled memory": tiled_memory,
    **{
        name: (lambda prefix=name: accuracy(lambda row: row == "none" or row.split()[0] == prefix))
        for name in ("gs", "ncis", "jpeg", "bit-depth", "median", "tvm", "resize-pad")
    },
}


def render(text: str) -> str:
    """Returns the text with every block filled in."""
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path in (ROOT / "README.md", *sorted((ROOT / "weights").glob("*/README.md"))):
        text = path.read_text()
        rendered = render(text)
        if check and rendered != text:
            raise SystemExit(f"{path} does not say what the results say; run python benchmarks/tables.py")
        path.write_text(rendered)


if __name__ == "__main__":
    main()
