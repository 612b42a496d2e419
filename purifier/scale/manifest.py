"""The manifest: Parquet files that say what became of every picture, one for each part that is done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePosixPath

from purifier.inference.pictures import windows
from purifier.scale.items import Outcome
from purifier.scale.stores import Store

# The folder of the manifest in the folder of the outputs. It is hidden, so that nobody takes it for a part of the data.
FOLDER = ".purifier/manifest"
_FAILED = ".failed"


@dataclass(frozen=True)
class Part:
    """What one task does: some pictures, or one file of them.

    Attributes:
        keys: Keys in the source.
        targets: Keys in the destination.
    """

    keys: Sequence[str]
    targets: Sequence[str]

    @property
    def name(self) -> str:
        """Name of its file in the manifest; another one for other keys."""
        text = "\0".join([*self.keys, "", *self.targets])
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def file_parts(keys: Sequence[PurePosixPath], targets: Sequence[PurePosixPath], batch_size: int) -> list[Part]:
    """Returns parts of some files each: the windows that the one-machine command makes its batches of."""
    pairs = zip(map(str, keys), map(str, targets), strict=True)
    return [Part([key for key, _ in window], [name for _, name in window]) for window in windows(pairs, batch_size)]


@dataclass
class Rows:
    """The rows of a part."""

    columns: dict[str, list] = field(
        default_factory=lambda: {
            name: [] for name in ("key", "target", "status", "error", "attack_score", "digest", "seconds")
        }
    )

    def add(self, outcome: Outcome) -> None:
        """Adds what became of a picture."""
        values = (
            _text(outcome.key), _text(outcome.target), "failed" if outcome.error else "written",
            outcome.error and _text(outcome.error), outcome.attack_score, outcome.digest, outcome.seconds,
        )  # fmt: skip
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    @property
    def failed(self) -> int:
        """Number of pictures that failed."""
        return self.columns["status"].count("failed")

    @property
    def written(self) -> int:
        """Number of pictures that were written."""
        return len(self.columns["status"]) - self.failed

    def save(self, part: Part, manifest: Store) -> None:
        """Writes the rows, after which the part is done."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        text, number = pa.string(), pa.float64()
        schema = pa.schema(list(zip(self.columns, (text, text, text, text, pa.float32(), text, number), strict=True)))
        file = BytesIO()
        pq.write_table(pa.table(self.columns, schema=schema), file, compression="zstd")
        manifest.write(f"{part.name}{_FAILED if self.failed else ''}.parquet", file.getvalue())


def _text(text: str) -> str:
    """Returns text that Parquet can hold: names of files can have bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def done_parts(manifest: Store, parts: Iterable[Part], *, retry: bool) -> set[str]:
    """Returns the names of the parts that are done, and removes the files of the others.

    Args:
        manifest: The manifest.
        parts: The parts of this run. Others are of a source that has changed since.
        retry: Whether parts with pictures that failed are not done.
    """
    wanted, done, others = {part.name for part in parts}, set[str](), list[str]()
    for key in manifest.keys((".parquet",)):
        name = key.stem.removesuffix(_FAILED)
        if name in wanted and not (retry and key.stem.endswith(_FAILED)):
            done.add(name)
        else:
            others.append(str(key))
    manifest.remove(others)
    return done
