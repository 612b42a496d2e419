"""Writes the measured figures from benchmarks/results into README.md, docs and the model cards.

    python -m benchmarks.tables          # rewrites the blocks
    python -m benchmarks.tables --check  # fails where a block is not what the results say

A block stands between `<!-- measured: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks.accuracy.alloy_tables import alloy_ablation, alloy_generality, gate_accuracy, gate_biases, gate_weights
from benchmarks.accuracy.gad_tables import cifar10_targets, gad_accuracy, gad_targets, gad_task, gad_task_targets
from benchmarks.markdown import column, grid, holds, percent, task_checks
from benchmarks.speed.art_table import markdown as art_markdown
from benchmarks.speed.table import markdown

ROOT = Path(__file__).resolve().parent.parent
# What rows of one table must have in common.
_SHARED = ("model", "data", "images", "size", "batch_size", "seed", "attacks", "threats")
_BLOCK = re.compile(r"(<!-- measured: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def measured(name: str) -> bool:
    return (ROOT / "benchmarks" / "results" / f"{name}.json").exists()


def blind_pgd() -> dict[str, dict[str, Any]]:
    """Rows of each classifier that benchmarks/accuracy/blind_pgd.py has measured."""
    names = ("resnet50", "mobilenet_v2")
    return {name: result(f"blind_pgd_{name}")["rows"] for name in names}


def _aware(row: dict[str, Any]) -> str:
    aware = row.get("aware")
    return f"{percent(aware['robust'], aware['robust_interval'])}, n={aware['images']}" if aware else "not measured"


def accuracy(rows: Callable[[str], bool]) -> str:
    """A table of the chosen rows of the purifier-blind PGD benchmark, both classifiers."""
    out = [
        "| classifier | purifier | standard | purifier-blind PGD | mean of the two | purifier-aware PGD |",
        "|---|---|---|---|---|---|",
    ]
    for model, table in blind_pgd().items():
        for row, r in table.items():
            if rows(row):
                standard = percent(r["standard"], r["standard_interval"])
                blind = percent(r["robust"], r["robust_interval"])
                aware = blind if row == "none" else _aware(r)
                out.append(f"| {model} | {row} | {standard} | {blind} | {percent(r['mean'])} | {aware} |")
    return "\n".join(out)


def best_rows() -> str:
    """No defence, the baselines, and the best number of iterations of each iterated purifier, for each classifier."""
    best = {
        (model, best_of(table, kind))
        for model, table in blind_pgd().items()
        for kind in {row.split()[0] for row in table if " i=" in row}
    }
    lines = accuracy(lambda row: True).splitlines()

    def kept(line: str) -> bool:
        model, row = (cell.strip() for cell in line.split("|")[1:3])
        return " i=" not in row or (model, row) in best

    return "\n".join(lines[:2] + [line for line in lines[2:] if kept(line)])


def best_of(table: dict[str, Any], kind: str) -> str:
    """The row with the best mean of standard and robust accuracy."""
    return max((row for row in table if row.startswith(f"{kind} i=")), key=lambda row: table[row]["mean"])


def alloy_targets(name: str, mean: float) -> str:
    """What alloy and alloy-s are held to on ResNet-50, at their own number of iterations."""
    table, config = blind_pgd()["resnet50"], ROOT / "weights" / name / "config.json"
    default = f"i={json.loads(config.read_text())['options']['iterations']}" if config.exists() else ""
    if f"{name} {default}" not in table:
        return "Not measured yet."
    ours, ncis, gs = (table[row] for row in (f"{name} {default}", best_of(table, "ncis"), best_of(table, "gs")))
    targets = [("mean of standard and purifier-blind accuracy", mean, 100 * ours["mean"])]
    if name == "alloy":
        ahead = 100 * (ours["mean"] - max(ncis["mean"], gs["mean"]))
        targets.append(("mean, points above the best of ncis and gs", 10.0, ahead))
        targets.append(("standard accuracy, of ncis at its best", 100 * ncis["standard"], 100 * ours["standard"]))
    return holds(f"target, ResNet-50, {default}", [(text, least, got, got >= least) for text, least, got in targets])


def alloy_tasks(name: str) -> str:
    """What alloy and alloy-s are held to in front of detectors and segmenters."""
    tasks = {"YOLOX-Nano": "yolox_nano", "LR-ASPP": "lraspp_camvid", "DeepLabV3": "deeplabv3_voc"}
    checks = []
    for text, model in tasks.items():
        rows, count = honest_rows(f"{model}_blind"), result(f"honest_{model}_blind")["settings"]["images"]
        if any(row["purifier"] == name for row in rows):
            checks += [(f"{text}, n={count}: {target}", *rest) for target, *rest in task_checks(rows, name)]
    return holds("target, in points", checks) if checks else "Not measured yet."


def selection() -> str:
    """The candidates that select_ncis.py compared, standard / robust rates at each number of iterations."""
    r = result("select_ncis")
    count = min(len(entry["rows"]) for entry in r["candidates"].values()) // 2
    lines = ["| weights | classifier | " + " | ".join(f"i={i}" for i in range(1, count + 1)) + " |"]
    lines.append("|" + "---|" * (count + 2))
    for entry in sorted(r["candidates"].values(), key=lambda entry: -entry["score"]):
        for model in ("resnet50", "mobilenet_v2"):
            rows = [entry["rows"][f"{model} i={i}"] for i in range(1, count + 1)]
            cells = [f"{100 * row['standard']:.1f} / {100 * row['robust']:.1f}" for row in rows]
            lines.append(f"| {entry['name']} | {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def demo_classifier() -> str:
    r = result("demo_classifier")
    return (
        f"Top-1 on the {r['images']} test pictures: {percent(r['clean_accuracy'])} % clean, "
        f"{percent(r['robust_accuracy'])} % under PGD (Linf, eps 8/255, alpha 2/255, 10 steps, random start)."
    )


def tiled_memory() -> str:
    r = result("tiled_memory_ncis")
    return (
        f"A {r['side']} x {r['side']} image through `ncis` in tiles of {r['tile']}, {r['iterations']} iterations, "
        f"{r['dtype']}, on a CPU: "
        f"{r['extra_bytes'] / 2**30:.2f} GiB of extra memory (`python -m benchmarks.speed.tiled_memory`)."
    )


def honest(name: str) -> str:
    """A table of honest_tables.py, with the purifiers that were measured alone beside the others."""
    return grid(honest_rows(name)) if measured(f"honest_{name}") else "Not measured yet."


def honest_rows(name: str) -> list[dict[str, Any]]:
    """The rows of such a table. A purifier that was measured alone later takes the place of its older rows.

    Of several files that have it, the one that names fewest purifiers counts.
    """
    base = result(f"honest_{name}")
    rows: list[dict[str, Any]] = base["rows"]
    folder = ROOT / "benchmarks" / "results"
    for path in sorted(folder.glob(f"honest_{name}+*.json"), key=lambda path: (-path.stem.count("+"), path.stem)):
        added = result(path.stem)
        differing = [key for key in _SHARED if _shared(added["settings"], key) != _shared(base["settings"], key)]
        if differing:
            raise SystemExit(f"{path} has other {', '.join(differing)} than honest_{name}.json; measure it as that was")
        alone = [row for row in added["rows"] if row["purifier"] != "none"]
        # Columns and purifiers keep the places that they have in the table.
        names, columns = ([f(row) for row in rows + alone] for f in (itemgetter("purifier"), column))
        newer = {row["purifier"] for row in alone}
        rows = [row for row in rows if row["purifier"] not in newer] + alone
        rows.sort(key=lambda row: (columns.index(column(row)), names.index(row["purifier"])))
    return rows


def _shared(settings: dict[str, Any], key: str) -> Any:
    """A setting as it took effect: no batch is larger than all images together."""
    return min(settings[key], settings["images"]) if key == "batch_size" else settings[key]


def crosscheck() -> str:
    """The table of benchmarks/accuracy/crosscheck_attacks.py."""
    lines = [
        "| attack | images | robust accuracy, ours | theirs | mean L2 of what fooled, ours | theirs |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result("crosscheck_attacks")["rows"].items():
        ours, theirs = row["ours"], row["theirs"]
        lines.append(
            f"| {name} | {row['images']} | {percent(ours['robust_accuracy'], ours['interval'])} | "
            f"{percent(theirs['robust_accuracy'], theirs['interval'])}, {row['other']['package']} "
            f"{row['other']['version']} | {ours['mean_l2_of_fooled']:.3f} | {theirs['mean_l2_of_fooled']:.3f} |"
        )
    return "\n".join(lines)


def nrp_accuracy(classifier: str) -> str:
    """A classifier's table of benchmarks/accuracy/nrp_acceptance.py."""
    if not measured("nrp_acceptance"):
        return "Not measured yet."
    r = result("nrp_acceptance")
    rows = r["rows"][classifier]
    heads = list(rows["none"])
    lines = [f"{classifier}, n = {r['settings']['images']}.", "", "| purifier | " + " | ".join(heads) + " |"]
    lines.append("|" + "---|" * (len(heads) + 1))
    for purifier, row in rows.items():
        cells = [percent(row[head]["accuracy"], row[head]["interval"]) for head in heads]
        lines.append(f"| {purifier} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def nrp_targets() -> str:
    """What benchmarks/accuracy/nrp_acceptance.py holds NRP to."""
    if not measured("nrp_acceptance"):
        return "Not measured yet."
    lines = ["| purifier | classifier | target, in points | wanted | measured | holds |", "|---|---|---|---|---|---|"]
    for r in result("nrp_acceptance")["targets"]:
        lines.append(
            f"| {r['purifier']} | {r['classifier']} | {r['target']} | {r['wanted']:.1f} | {r['measured']:.1f} | "
            f"{'yes' if r['holds'] else 'no'} |"
        )
    return "\n".join(lines)


def speed(name: str) -> str:
    """The table of benchmarks/speed/compare.py."""
    path = ROOT / "benchmarks" / "results" / f"speed_{name}.json"
    return markdown(json.loads(path.read_text())) if path.exists() else "Not measured yet."


def half_precision(r: dict[str, Any]) -> str:
    """The table of benchmarks/accuracy/half_precision.py, and the most that a figure moved."""
    lines = ["| classifier | purifier | standard, float32 | bfloat16 | purifier-blind PGD, float32 | bfloat16 |"]
    lines.append("|---|---|---|---|---|---|")
    moved = []
    for row in r["rows"]:
        exact, half = row["float32"], row["bfloat16"]
        cells = [percent(one[key]) for key in ("standard", "robust") for one in (exact, half)]
        lines.append(f"| {row['classifier']} | {row['purifier']} | " + " | ".join(cells) + " |")
        moved += [abs(exact[key] - half[key]) for key in ("standard", "robust")]
    lines += ["", f"n = {r['settings']['images']}; the most that a figure moved: {percent(max(moved))}."]
    return "\n".join(lines)


def detail(r: dict[str, Any]) -> str:
    """The table of benchmarks/accuracy/detail.py."""
    keys = [key for key in r["rows"][0] if key not in ("purifier", "attack")]
    lines = ["| purifier | attack | " + " | ".join(keys) + " |", "|" + "---|" * (len(keys) + 2)]
    for row in r["rows"]:
        lines.append(f"| {row['purifier']} | {row['attack']} | " + " | ".join(f"{row[key]:.1f}" for key in keys) + " |")
    return "\n".join(lines)


def art_context() -> str:
    """The table of benchmarks/speed/art_context.py."""
    return art_markdown(result("art_context")) if measured("art_context") else "Not measured yet."


BLOCKS: dict[str, Callable[[], str]] = {
    **{
        f"honest {model} {part}": (lambda name=f"{model}_{part}": honest(name))
        for model in ("resnet50", "mobilenet_v2")
        for part in ("blind", "ssp", "transfer", "square", "surrogate", "aware", "dynamic")
    },
    **{
        f"honest {model} {part}": (lambda name=f"{model}_{part}": honest(name))
        for model in ("lraspp_camvid", "deeplabv3_voc", "yolox_nano")
        for part in ("blind", "aware")
    },
    "nrp resnet50": lambda: nrp_accuracy("resnet50"),
    "nrp mobilenet_v2": lambda: nrp_accuracy("mobilenet_v2"),
    "nrp targets": nrp_targets,
    "alloy targets": lambda: alloy_targets("alloy", 65.0),
    "alloy-s targets": lambda: alloy_targets("alloy-s", 58.0),
    "alloy tasks": lambda: alloy_tasks("alloy"),
    "alloy-s tasks": lambda: alloy_tasks("alloy-s"),
    "alloy ablation": alloy_ablation,
    "alloy generality": alloy_generality,
    "alloy gate": lambda: gate_accuracy(result("alloy_gate")),
    "alloy gate cautions": lambda: gate_biases(result("alloy_gate")),
    "alloy gate weights": lambda: gate_weights(result("alloy_gate")),
    "detail": lambda: detail(result("detail")),
    "gad resnet20": lambda: gad_accuracy("resnet20"),
    "gad resnet20 targets": lambda: gad_targets("resnet20"),
    "gad vgg8": lambda: gad_accuracy("vgg8"),
    "gad camvid": lambda: gad_task("camvid"),
    "gad camvid targets": lambda: gad_task_targets("camvid"),
    "gad yolox": lambda: gad_task("yolox"),
    "gad yolox targets": lambda: gad_task_targets("yolox"),
    "cifar10 classifiers": cifar10_targets,
    "speed cpu gs": lambda: speed("cpu_gs"),
    "speed cpu networks": lambda: speed("cpu_networks"),
    "speed cpu nrp": lambda: speed("cpu_nrp"),
    "speed gpu networks": lambda: speed("gpu_networks"),
    "speed gpu nrp": lambda: speed("gpu_nrp"),
    "half precision": lambda: (
        half_precision(result("half_precision")) if measured("half_precision") else "Not measured yet."
    ),
    "art context": art_context,
    "best": best_rows,
    "demo classifier": demo_classifier,
    "tiled memory": tiled_memory,
    "ncis selection": selection,
    "crosscheck": crosscheck,
    **{
        name: (lambda prefix=name: accuracy(lambda row: row == "none" or row.split()[0] == prefix))
        for name in ("gs", "ncis", "alloy", "alloy-s", "jpeg", "bit-depth", "median", "tvm", "resize-pad")
    },
}


def render(text: str) -> str:
    """Returns the text with every block filled in."""
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("weights/*/README.md"))):
        text = path.read_text()
        rendered = render(text)
        if check and rendered != text:
            raise SystemExit(f"{path} does not say what the results say; run python -m benchmarks.tables")
        path.write_text(rendered)


if __name__ == "__main__":
    main()
