"""The table of benchmarks/speed/art_context.py, from its result file alone."""

from __future__ import annotations

from typing import Any

RESNET = "ResNet-50 forward"


def markdown(result: dict[str, Any]) -> str:
    """Returns the table."""
    where = result["environment"]
    lines = [
        f"{result['images']} images, 224 x 224; PGD Linf 8/255 on the bare ResNet-50, 10 steps. Batches of "
        f"{result['batch']}, {where['threads']} threads, torch {where['torch']}, toolbox {where['toolbox']['art']}; "
        f"medians of {result['runs']} rounds. In brackets: middle half; 95 % interval.",
        "",
        "| purifier | ms an image | ResNet-50s | standard accuracy | robust accuracy, purifier-blind |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        low, high = row["resnet50s_quartiles"]
        cells = [
            "none (ResNet-50 forward)" if name == RESNET else name,
            f"{row['ms_per_image']:.3g}",
            f"{row['resnet50s']:.3g} ({low:.3g} to {high:.3g})",
            *(_share(row[kind]) for kind in ("standard", "robust")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['accuracy']:.3f} ({low:.3f} to {high:.3f})"
