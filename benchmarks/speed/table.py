"""The tables of speed and memory, and the targets of compare.py, from the result files alone."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table

RESNET = "ResNet-50 forward"
_HEAD = [
    "purifier", "form", "dtype", "compile", "batch x size", "device", "ms an image", "middle half", "x reference",
    "ResNet-50s", "output", "extra memory, 1 image",
]  # fmt: skip
# "Flat in i": largest ratio between the times of i = 1, 7 and 14.
_FLAT = 1.25
_RATIOS = {
    "cpu": {
        "gs": [("float32", 4.0)],
        "ncis": [("float32", 1.6), ("bfloat16", 3.0)],
        "nrp-resg": [("float32", 1.4), ("bfloat16", 3.0)],
        "nrp": [("float32", 1.3), ("bfloat16", 4.0)],
    },
    "gpu": {"ncis": [("bfloat16, compiled", 3.0)], "nrp-resg": [("any dtype", 3.0)], "nrp": [("any dtype", 3.0)]},
}
_MEMORY = {"nrp": 0.3e9, "nrp-resg": 0.1e9, "ncis": 0.1e9}


def markdown(result: dict[str, Any]) -> str:
    """Returns the heading, table and targets of a result of compare.py."""
    where, settings = result["environment"], result["settings"]
    versions = f"torch {where['torch']}" + (f", CUDA {where['cuda']}" if where["cuda"] else "")
    heading = (
        f"{where['device_name']}, {versions}, commit {where['commit'][:10]}"
        + (" with uncommitted changes" if where["uncommitted_changes"] else "")
        + f". Medians of up to {settings['runs']} rounds; middle half: first to third quartile."
    )
    parts = [heading, table(_HEAD, [_cells(row) for row in result["rows"]])]
    notes = sorted({f"`{row['method']}`" for row in result["rows"] if row["weights"].startswith("random")})
    if notes:
        parts.append(f"{', '.join(notes)}: seeded random weights; none are shipped yet. Speed does not depend on them.")
    asked = [target for target in result["targets"] if target["target"].partition(":")[0] in settings["methods"]]
    return "\n\n".join([*parts, table(["target", "wanted", "measured", ""], [_target_cells(t) for t in asked])])


def _target_cells(target: dict[str, Any]) -> list[str]:
    measured = "not measured" if target["measured"] is None else _number(target["measured"], target["unit"])
    wanted = f"{'at least' if target['at_least'] else 'at most'} {_number(target['wanted'], target['unit'])}"
    verdict = "" if target["holds"] is None else "holds" if target["holds"] else "FAILS"
    return [target["target"], wanted, measured, verdict]


def _number(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e9:.3f} GB"
    if unit == "share":
        return f"{100 * value:.0f} %"
    if unit == "error":
        return f"{value:.0e}"
    return f"{value:.1f} dB" if unit == "dB" else f"{value:.2f}x"


def _milliseconds(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def _cells(row: dict[str, Any]) -> list[str]:
    a_batch = 1e3 / row["batch"]
    iterations = f" i={row['iterations']}" if row["iterations"] and row["kind"] != "context" else ""
    device = f"{row['device']}, {row['threads']} threads" if row["device"] == "cpu" else row["device"]
    ratio = row["ratio_quartiles"]
    context = row["kind"] == "context"
    output = "" if row["max_error"] is None else f"{row['max_error']:.0e}"
    if row["psnr"] is not None and row["dtype"] != "float32":
        output = f"{row['psnr']:.1f} dB"
    name = row["name"]
    if row["share_of_matmul"] is not None:
        name += f" ({100 * row['share_of_matmul']:.0f} % of the matrix rate)"
    elif context and row["operations_per_second"]:
        name += f" ({row['operations_per_second'] / 1e12:.1f} TFLOP/s)"
    return [
        row["method"],
        name + iterations,
        row["dtype"],
        "" if row["kind"] != "ours" or row["compile"] == "none" else row["compile"],
        f"{row['batch']} x {row['height']} x {row['width']}",
        device,
        _milliseconds(a_batch * row["median"]),
        " to ".join(_milliseconds(a_batch * value) for value in row["quartiles"]),
        "" if context else f"{row['ratio']:.2f} ({ratio[0]:.2f} to {ratio[1]:.2f})",
        "" if context or row["resnet50s"] is None else f"{row['resnet50s']:.2f}",
        output,
        "" if row["peak_extra_bytes"] is None else f"{row['peak_extra_bytes'] / 1e9:.3f} GB",
    ]


def art_context(result: dict[str, Any]) -> str:
    """Returns the table of art_context.py."""
    where = result["environment"]
    heading = (
        f"{result['images']} images, 224 x 224; PGD Linf 8/255 on the bare ResNet-50, 10 steps. Batches of "
        f"{result['batch']}, {where['threads']} threads, torch {where['torch']}, toolbox {where['toolbox']['art']}; "
        f"medians of {result['runs']} rounds. In brackets: middle half; 95 % interval."
    )
    lines = []
    for name, row in result["rows"].items():
        low, high = row["resnet50s_quartiles"]
        shares = [(row[kind]["accuracy"], *row[kind]["interval"]) for kind in ("standard", "robust")]
        lines.append(
            [
                f"none ({RESNET})" if name == RESNET else name,
                f"{row['ms_per_image']:.3g}",
                f"{row['resnet50s']:.3g} ({low:.3g} to {high:.3g})",
                *("{:.3f} ({:.3f} to {:.3f})".format(*share) for share in shares),
            ]
        )
    heads = ["purifier", "ms an image", "ResNet-50s", "standard accuracy", "robust accuracy, purifier-blind"]
    return f"{heading}\n\n{table(heads, lines)}"


def tiled_memory(r: dict[str, Any]) -> str:
    """Returns the result of tiled_memory.py, as a sentence."""
    return (
        f"A {r['side']} x {r['side']} image through `ncis` in tiles of {r['tile']}, {r['iterations']} iterations, "
        f"{r['dtype']}, on a CPU: {r['extra_bytes'] / 2**30:.2f} GiB of extra memory "
        "(`python -m benchmarks.speed.tiled_memory`)."
    )


def ratio_targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns every target of the preset with its measured value, or None if it was not measured."""
    small = _small(result)
    targets = _cost_targets(result, small)
    for name in ("gs", "ncis", "nrp-resg", "nrp"):
        ours = [row for row in _ours(small, name) if row["max_error"] is not None]
        large = [row for row in result["rows"] if row["method"] == name and row not in small and row["kind"] == "ours"]
        single = [row["max_error"] for row in ours + large if row["dtype"] == "float32"]
        targets.append(_target(f"{name}: error in float32", 1e-4, single, unit="error", at_least=False))
        half = [row["psnr"] for row in ours + large if row["dtype"] != "float32"]
        targets.append(_target(f"{name}: output in half precision", 45.0, half, unit="dB"))
    for name, most in _MEMORY.items():
        peaks = [row["peak_extra_bytes"] for row in _ours(small, name) if row["peak_extra_bytes"] is not None]
        targets.append(_target(f"{name}: extra memory, one image", most, peaks, unit="bytes", at_least=False))
    return targets


def _small(result: dict[str, Any]) -> list[dict[str, Any]]:
    settings = result["settings"]
    size = (settings["batch"], settings["size"], settings["size"])
    return [row for row in result["rows"] if (row["batch"], row["height"], row["width"]) == size]


def _ours(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["method"] == name and row["kind"] == "ours"]


def _cost_targets(result: dict[str, Any], small: list[dict[str, Any]]) -> list[dict[str, Any]]:
    preset = result["preset"]
    gs = [row for row in _ours(small, "gs") if row["max_error"] is not None]
    targets = []
    if preset == "gpu":
        copies = [row["copies"] for row in gs if row["copies"] is not None]
        best = [min(copies)] if copies else []
        targets.append(_target("gs: copies of the batch", 3.0, best, at_least=False))
    for name, wanted in _RATIOS[preset].items():
        for dtype, least in wanted:
            best = [row["ratio"] for row in _ours(small, name) if row["max_error"] is not None and _fits(row, dtype)]
            targets.append(_target(f"{name}: {dtype}", least, [max(best)] if best else []))
    if preset == "cpu":
        gs_all = [row for row in _ours(small, "gs") if (row["dtype"], row["compile"]) == ("float32", "none")]
        medians = [row["median"] for row in gs_all]
        flat = [max(medians) / min(medians)] if len(medians) > 1 else []
        targets.append(_target("gs: i = 14 and 7 beside i = 1, float32", _FLAT, flat, at_least=False))
        kept = [row for row in result["rows"] if row["method"] == "gs" and row not in small and row["kind"] == "ours"]
        large = [row["ratio"] for row in kept if row["dtype"] == "float32"]
        targets.append(_target("gs: float32, large picture", 1.5, [max(large)] if large else []))
    else:
        shares = [row["share_of_matmul"] for row in _ours(small, "nrp") if row["share_of_matmul"] is not None]
        best = [max(shares)] if shares else []
        targets.append(_target("nrp: share of the measured bfloat16 matrix rate", 0.35, best, unit="share"))
    return targets


def _fits(row: dict[str, Any], dtype: str) -> bool:
    if dtype == "any dtype":
        return True
    name, _, compiled = dtype.partition(", ")
    return row["dtype"] == name and (not compiled or row["compile"] != "none")


def _target(
    name: str, wanted: float, measured: list[float], *, unit: str = "ratio", at_least: bool = True
) -> dict[str, Any]:
    """Compares the worst measured value with a target."""
    worst = (min if at_least else max)(measured) if measured else None
    holds = None if worst is None else worst >= wanted if at_least else worst <= wanted
    return {
        "target": name, "wanted": wanted, "measured": worst, "unit": unit, "at_least": at_least, "holds": holds,
    }  # fmt: skip
