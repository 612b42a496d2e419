"""The tables of accuracy: evaluations, the blind PGD benchmark, NRP's targets, alloy's gate and others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from benchmarks.kit import read_result, result_names
from benchmarks.markdown import Target, percent, table, targets_table, yes
from purifier._hub import bundled_config
from purifier._wrapping import DEFAULT
from purifier.methods.gated import Gated

CLASSIFIERS = ("resnet50", "mobilenet_v2")
Row = dict[str, Any]
# Settings that rows of one table must share.
_SHARED = ("model", "data", "images", "size", "batch_size", "seed", "attacks", "threats")
_CLEAN = "no attack"
# Columns of honest_tables.py with the attack of blind_pgd.py through purifier and model, the stronger first, and the
# mark of their figures in other tables. Purifiers without an exact gradient have the second column only.
AWARE = {"worst case of the aware attacks, eps 16/255": "", "PGD Linf 16/255, bpda": ", BPDA"}
# The order in which purifiers that were measured alone join a table; others follow.
_ALONE = ("nrp-resg", "nrp", "alloy", "alloy-s")


# ---- evaluations: purifiers down, attacks with their threat models across ----


def measure_of(row: Row) -> tuple[float, Sequence[float] | None]:
    """Returns a row's figure and its interval: accuracy, pixel accuracy or mAP@0.5 (which has no interval)."""
    if "robust_accuracy" in row:
        return row["robust_accuracy"]["share"], row["robust_accuracy"]["interval"]
    name = next(name for name in ("pixel_accuracy", "map_50") if name in row["robust"])
    return row["robust"][name], row["robust_intervals"].get(name)


def column(row: Row) -> str:
    """Returns the heading of the column that a row belongs to."""
    settings = row["settings"]
    if row["threat"] == "worst-case":
        return f"worst case of the aware attacks, eps {row['eps'] * 255:.0f}/255"
    return f"{settings['attack_key']}, {settings['threat_key']}" if "attack_key" in settings else _CLEAN


def grid(rows: Sequence[Row]) -> str:
    """Returns the table; a column measured on fewer images than the first row says on how many."""
    count = rows[0]["images"]
    columns: dict[str, dict[str, str]] = {}
    for row in rows:
        title = column(row) + (f" (n={row['images']})" if row["images"] != count else "")
        columns.setdefault(title, {})[row["purifier"]] = _cell(row)
    lines = []
    for purifier in dict.fromkeys(row["purifier"] for row in rows):
        missing = "as blind" if purifier == "none" else "not measured"
        lines.append([purifier, *(found.get(purifier, missing) for found in columns.values())])
    return f"n = {count} images.\n\n" + table(["purifier", *columns], lines)


def _cell(row: Row) -> str:
    """Returns a row's figure; for a segmenter, the mIoU follows the pixel accuracy."""
    found = percent(*measure_of(row))
    iou = row["robust"].get("mean_iou") if isinstance(row.get("robust"), dict) else None
    return found if iou is None else f"{found}; {percent(iou)}"


def task_checks(rows: Sequence[Row], purifier: str) -> list[Target]:
    """Returns the targets on a segmenter or detector: the loss on clean images, and the share of each loss regained."""
    cells = {(row["purifier"], column(row)): 100 * measure_of(row)[0] for row in rows}
    lost = cells["none", _CLEAN] - cells[purifier, _CLEAN]
    checks = [("clean figure lost, at most", 6.0, lost, lost <= 6)]
    for attack in dict.fromkeys(title for _, title in cells if title.endswith(", blind")):
        taken = cells["none", _CLEAN] - cells["none", attack]
        back = 100 * (cells[purifier, attack] - cells["none", attack]) / taken
        checks.append((f"{attack}: % won back of what it took, at least", 50.0, back, back >= 50))
    return checks


def honest(name: str) -> str:
    """The table of a part of honest_tables.py."""
    return grid(honest_rows(name))


def honest_rows(name: str) -> list[Row]:
    """Returns the rows of a part of honest_tables.py, with those of its `+` files."""

    others = result_names(f"honest_{name}+*")
    # Of several results with a purifier, that of the fewest purifiers comes last and replaces the others' rows.
    others.sort(key=lambda other: (-other.count("+"), _place(other.split("+")[1])))
    return with_added(read_result(f"honest_{name}"), {other: read_result(other) for other in others})


def _place(purifier: str) -> int:
    return _ALONE.index(purifier) if purifier in _ALONE else len(_ALONE)


def with_added(base: Mapping[str, Any], added: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Returns a result's rows, where rows of later results replace rows of the same purifier.

    Args:
        base: The result of the whole table.
        added: Results of some purifiers alone by name, in the order in which they join.

    Raises:
        SystemExit: If a result was measured with other settings than the table.
    """
    rows: list[Row] = base["rows"]
    for name, result in added.items():
        differing = [key for key in _SHARED if _effective(result["settings"], key) != _effective(base["settings"], key)]
        if differing:
            raise SystemExit(f"{name} has other {', '.join(differing)} than the table; measure it with the same")
        alone = [row for row in result["rows"] if row["purifier"] != "none"]
        # Columns and purifiers keep their places in the table.
        names, columns = ([f(row) for row in rows + alone] for f in (itemgetter("purifier"), column))
        newer = {row["purifier"] for row in alone}
        rows = [row for row in rows if row["purifier"] not in newer] + alone
        rows.sort(key=lambda row: (columns.index(column(row)), names.index(row["purifier"])))
    return rows


def _effective(settings: Mapping[str, Any], key: str) -> Any:
    """Returns a setting as it took effect.

    A batch never has more images than there are, and earlier results state a model's normalisation in two parts, which
    are None where there is none.
    """
    if key == "model" and isinstance(settings[key], Mapping):
        return {name: value for name, value in settings[key].items() if value is not None}
    return min(settings[key], settings["images"]) if key == "batch_size" else settings[key]


# ---- blind_pgd.py ----


def blind_pgd(classifier: str) -> dict[str, Row]:
    rows: dict[str, Row] = read_result(f"blind_pgd_{classifier}")["rows"]
    return rows


def accuracy(shown: Callable[[str, Mapping[str, Row]], bool]) -> str:
    """Returns the table of some rows of both classifiers.

    Args:
        shown: Takes a row's name and all rows of its classifier; returns whether the table has that row.
    """
    heads = ["classifier", "purifier", "standard", "purifier-blind PGD", "mean of the two", "purifier-aware PGD"]
    lines = []
    for model in CLASSIFIERS:
        rows = blind_pgd(model)
        for name, r in rows.items():
            if shown(name, rows):
                standard, blind = (percent(r[key], r[f"{key}_interval"]) for key in ("standard", "robust"))
                aware = blind if name == "none" else _aware(model, name, r)
                lines.append([model, name, standard, blind, percent(r["mean"]), aware])
    return table(heads, lines)


def _aware(classifier: str, name: str, row: Row) -> str:
    """Returns the figure of blind_pgd.py, else that of the same attack in honest_tables.py."""
    if aware := row.get("aware"):
        return f"{percent(aware['robust'], aware['robust_interval'])}, n={aware['images']}"
    found = {column(one): one for one in honest_rows(f"{classifier}_aware") if one["purifier"] == name}
    for title, note in AWARE.items():
        if title in found:
            return f"{percent(*measure_of(found[title]))}, n={found[title]['images']}{note}"
    return "not measured"


def of_purifier(name: str) -> str:
    """The rows of one purifier, below those of no defence."""
    return accuracy(lambda row, _: row == "none" or row.split()[0] == name)


def best_rows() -> str:
    """All rows, but of each iterated purifier only that of its best number of iterations."""
    return accuracy(lambda row, rows: " i=" not in row or row == best_of(rows, row.split()[0]))


def choose() -> str:
    """Returns the rows of the purifiers to choose between on ResNet-50."""
    rows = blind_pgd("resnet50")
    names = {"none": "none", "jpeg": "jpeg", **{row: row for row in (best_of(rows, "gs"), best_of(rows, "ncis"))}}
    names |= {best_of(rows, name): name for name in ("alloy-s", "alloy")}
    costs = {"none": 0.0} | {name: row["resnet50s"] for name, row in read_result("cost_cpu")["rows"].items()}
    lines = []
    for row, name in names.items():
        clean, blind = (percent(rows[row][key], rows[row][f"{key}_interval"]) for key in ("standard", "robust"))
        cost = f"{costs[name.split()[0]]:.2f}"
        lines.append([name, clean, blind, blind if row == "none" else _aware("resnet50", row, rows[row]), cost])
    return table(["purifier", "clean", "blind PGD", "aware PGD", "cost"], lines)


def default() -> str:
    """Returns what the choice of the default purifier rests on, and which purifiers its rule admits."""
    costs = read_result("cost_cpu")["rows"]
    lines = []
    for name in ("jpeg", "median", "gs", "ncis", "alloy-s", "alloy"):
        figures, lost = [], []
        for classifier in CLASSIFIERS:
            rows = blind_pgd(classifier)
            row = rows[best_of(rows, name) if name not in rows else name]
            lost.append(100 * (rows["none"]["standard"] - row["standard"]))
            figures += [f"{lost[-1]:.1f}", percent(row["mean"])]
        time = costs[name]["resnet50s"]
        admitted = max(lost) <= 5 and time <= 1.1
        lines.append([name, *figures, f"{time:.2f}", yes(admitted)])
    heads = [f"{classifier}: {what}" for classifier in CLASSIFIERS for what in ("clean cost", "mean")]
    return table(["purifier", *heads, "time", "admitted"], lines)


def default_cost() -> str:
    """Returns sentences: what the default purifier costs on clean images, and in time."""
    lost = []
    for classifier in CLASSIFIERS:
        rows = blind_pgd(classifier)
        without, behind = (100 * rows[name]["standard"] for name in ("none", best_of(rows, DEFAULT)))
        lost.append(f"{without - behind:.1f} on {classifier} ({without:.1f} % to {behind:.1f} %)")
    cost = read_result("cost_cpu")["rows"][DEFAULT]["resnet50s"]
    shipped = {name: bundled_config(DEFAULT)["options"].get(name, 0.0) for name in Gated.tunable}
    gate = next(row for row in read_result("gate_cost_cpu")["rows"] if row.items() >= shipped.items())
    time = (
        f"On a CPU, it takes {cost:.2f} times the time of a ResNet-50 if the network runs. It does not run for "
        f"{100 * gate['clean_skipped']:.0f} % of clean images, so these take {gate['clean_resnet50s']:.2f} on average."
    )
    return f"On clean images, `{DEFAULT}` costs points of accuracy: {' and '.join(lost)}. {time}"


def best_of(rows: Mapping[str, Row], kind: str) -> str:
    """Returns the name of the row with the best mean of standard and robust accuracy."""
    return max((row for row in rows if row.startswith(f"{kind} i=")), key=lambda row: rows[row]["mean"])


def alloy_targets(name: str, mean: float) -> str:
    """Returns the targets of alloy or alloy-s on ResNet-50, with its own number of iterations."""
    rows = blind_pgd("resnet50")
    iterations = bundled_config(name)["options"]["iterations"]
    ours, ncis, gs = (rows[row] for row in (f"{name} i={iterations}", best_of(rows, "ncis"), best_of(rows, "gs")))
    targets = [("mean of standard and purifier-blind accuracy", mean, 100 * ours["mean"])]
    if name == "alloy":
        ahead = 100 * (ours["mean"] - max(ncis["mean"], gs["mean"]))
        targets.append(("mean, points above the best of ncis and gs", 10.0, ahead))
        targets.append(("standard accuracy, of ncis at its best", 100 * ncis["standard"], 100 * ours["standard"]))
    checks: list[Target] = [(text, least, got, got >= least) for text, least, got in targets]
    return targets_table(f"target, ResNet-50, i={iterations}", checks)


def alloy_tasks(name: str) -> str:
    """Returns the targets of alloy or alloy-s in front of detectors and segmenters."""
    checks: list[Target] = []
    for text, model in {"YOLOX-Nano": "yolox_nano", "LR-ASPP": "lraspp_camvid", "DeepLabV3": "deeplabv3_voc"}.items():
        rows = honest_rows(f"{model}_blind")
        if any(row["purifier"] == name for row in rows):
            checks += [(f"{text}, n={rows[0]['images']}: {target}", *rest) for target, *rest in task_checks(rows, name)]
    return targets_table("target, in points", checks)


# ---- others ----


def nrp_accuracy(r: Mapping[str, Any], classifier: str) -> str:
    """Returns a classifier's table of nrp_acceptance.py."""
    rows = r["rows"][classifier]
    lines = [
        [purifier, *(percent(cell["accuracy"], cell["interval"]) for cell in row.values())]
        for purifier, row in rows.items()
    ]
    return f"{classifier}, n = {r['settings']['images']}.\n\n" + table(["purifier", *rows["none"]], lines)


def nrp_targets(r: Mapping[str, Any]) -> str:
    """Returns the targets of NRP, of nrp_acceptance.py."""
    heads = ["purifier", "classifier", "target, in points", "wanted", "measured", "holds"]
    return table(
        heads,
        [
            [t["purifier"], t["classifier"], t["target"], f"{t['wanted']:.1f}", f"{t['measured']:.1f}", yes(t["holds"])]
            for t in r["targets"]
        ],
    )


def half_precision(r: Mapping[str, Any]) -> str:
    """Returns the table of half_precision.py, and the largest difference between the dtypes."""
    heads = ["classifier", "purifier", "standard, float32", "bfloat16", "purifier-blind PGD, float32", "bfloat16"]
    lines, moved = [], []
    for row in r["rows"]:
        exact, half = row["float32"], row["bfloat16"]
        cells = [percent(one[key]) for key in ("standard", "robust") for one in (exact, half)]
        lines.append([row["classifier"], row["purifier"], *cells])
        moved += [abs(exact[key] - half[key]) for key in ("standard", "robust")]
    ending = f"n = {r['settings']['images']}; the most that a figure moved: {percent(max(moved))}."
    return f"{table(heads, lines)}\n\n{ending}"


def detail(r: Mapping[str, Any]) -> str:
    """Returns the table of detail.py."""
    bands = [key for key in r["rows"][0] if key not in ("purifier", "attack")]
    lines = [[row["purifier"], row["attack"], *(f"{row[key]:.1f}" for key in bands)] for row in r["rows"]]
    return table(["purifier", "attack", *bands], lines)


def crosscheck(r: Mapping[str, Any]) -> str:
    """Returns the table of crosscheck_attacks.py."""
    heads = ["attack", "images", "robust accuracy, ours", "theirs", "mean L2 of what fooled, ours", "theirs"]
    lines = []
    for name, row in r["rows"].items():
        shares = [percent(row[who]["robust_accuracy"], row[who]["interval"]) for who in ("ours", "theirs")]
        lengths = [f"{row[who]['mean_l2_of_fooled']:.3f}" for who in ("ours", "theirs")]
        theirs = f"{shares[1]}, {row['other']['package']} {row['other']['version']}"
        lines.append([name, str(row["images"]), shares[0], theirs, *lengths])
    return table(heads, lines)


def crosscheck_cifar10(r: Mapping[str, Any]) -> str:
    """Returns the table of crosscheck_cifar10.py."""
    heads = ["attack", "images", "compared", "ours", "theirs", "other implementation"]
    lines = []
    for name, row in r["rows"].items():
        if row["compared"] == "robust accuracy":
            values = [percent(row[who]["robust_accuracy"], row[who]["interval"]) for who in ("ours", "theirs")]
        else:
            values = [f"{row[who]['median_norm_of_fooled']:.4f}" for who in ("ours", "theirs")]
        other = f"{row['other']['package']} {row['other']['version']}"
        lines.append([name, str(row["images"]), row["compared"], *values, other])
    return table(heads, lines)


def gate_accuracy(r: Mapping[str, Any]) -> str:
    """Returns the first table of alloy_gate.py: purifiers with and without the gate."""
    heads = ["classifier", "purifier", "gate", "standard", "purifier-blind PGD", "mean of the two"]
    lines = []
    for row in r["accuracy"]:
        figures = [percent(row[key], row[f"{key}_interval"]) for key in ("standard", "robust")]
        lines.append([row["classifier"], row["purifier"], yes(row["gate"]), *figures, percent(row["mean"])])
    return table(heads, lines)


def gate_biases(r: Mapping[str, Any]) -> str:
    """Returns the second table of alloy_gate.py: shares of photographs by gate_bias and attack."""
    shares = r["gate_biases"]["shares"]
    heads = [f"gate_bias, {r['gate_biases']['images']} photographs", *next(iter(shares.values()))]
    return table(heads, [[bias, *map(percent, row.values())] for bias, row in shares.items()])


def gate_weights(r: Mapping[str, Any]) -> str:
    """Returns the third table of alloy_gate.py: the gate's weights for changed and attacked images."""
    heads = [f"{r['settings']['few']} images", "attacked", "weight, mean", "of the images, least to most"]
    return table(
        heads,
        [
            [name, yes(row["attack"]), f"{row['mean']:.2f}", f"{row['least']:.2f} to {row['most']:.2f}"]
            for name, row in r["gate"].items()
        ],
    )
