"""The throughput table of benchmarks.scale.dataset; apart from it, because that needs Ray."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table

NAME = "scale_dataset"


def markdown(found: dict[str, Any]) -> str:
    """The table of the result file."""
    rows = [["`purifier purify`, 1 thread", "", f"{found['here']['images_per_second']:.1f}", "1.00", ""]]
    for workers in ("1", "2"):
        row = found["ray"][workers]
        ratio = row["images_per_second"] / found["here"]["images_per_second"]
        rows.append(
            [
                f"Ray, {workers} worker{'s' if workers != '1' else ''}", f"{row['seconds_to_first_part']:.0f}",
                f"{row['images_per_second']:.1f}", f"{ratio:.2f}", f"{row['peak_worker_mb']:.0f}",
            ]
        )  # fmt: skip
    heads = ["", "seconds to the first 256 pictures", "pictures a second after that", "ratio", "peak of a worker, MB"]
    return table(heads, rows)
