"""What the three kinds of data sets hold in a part, and how the outputs of a part are written."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import groupby
from pathlib import PurePosixPath
from typing import IO, Any

from purifier._errors import InputError, PurifierError
from purifier._opening import SUFFIXES
from purifier.data.outputs import Format, output_names
from purifier.inference.pictures import WINDOW, windows
from purifier.scale.items import Item, Outcome, Purifying, format_ending
from purifier.scale.manifest import Part, Rows
from purifier.scale.stores import Store

# The default name of the column of pictures. In tar files, it means every field that is the ending of a picture.
IMAGE = "image"


@dataclass(frozen=True)
class Work:
    """What a worker needs to do a part.

    Attributes:
        source: Where pictures are read.
        destination: Where they are written.
        purifying: How they are purified.
        form: "png", or "keep" for the format of each source.
        image_column: Name of the column of pictures in Parquet files, or of the field in tar files.
    """

    source: Store
    destination: Store
    purifying: Purifying
    form: Format = "png"
    image_column: str = IMAGE

    def files(self, part: Part) -> Rows:
        """Purifies picture files, each of which becomes one."""
        rows = Rows()
        items = [
            Item(key, target, partial(_read, self.source, key))
            for key, target in zip(part.keys, part.targets, strict=True)
        ]
        for outcome in self.purifying.outcomes(items):
            rows.add(_written(outcome, self.destination))
        return rows

    def webdataset(self, part: Part) -> Rows:
        """Purifies the pictures in a tar file of WebDataset. A sample with one that failed is left out."""
        rows = Rows()
        with (
            self.source.opened(part.keys[0]) as file,
            self.destination.created(part.targets[0]) as draft,
            tarfile.open(fileobj=file, mode="r|*") as tar,
            tarfile.open(draft, "w") as out,
        ):
            samples = (list(members) for _, members in groupby(_members(tar), key=lambda member: _sample(member[0])))
            for window in windows(samples, self.purifying.batch_size):
                self._window_of_samples(part.keys[0], window, out, rows)
            if out.getmembers() and not rows.written + rows.failed:
                raise InputError(
                    f"expected pictures in {part.keys[0]}, got none; give the field that they are in as image_column"
                )
        return rows

    def _window_of_samples(
        self, shard: str, window: list[list[tuple[tarfile.TarInfo, bytes]]], out: tarfile.TarFile, rows: Rows
    ) -> None:
        pictures = [(info, content) for sample in window for info, content in sample if self._is_picture(info)]
        names = output_names([PurePosixPath(info.name) for info, _ in pictures], self.form)
        items = {
            info.name: Item(f"{shard}#{info.name}", str(name), partial(_not_null, content, info.name))
            for (info, content), name in zip(pictures, names, strict=True)
        }
        outcomes = _by_key(self.purifying.outcomes(list(items.values())), rows)
        for sample in window:
            made = [outcomes[items[info.name].key] if info.name in items else None for info, _ in sample]
            if any(outcome is not None and outcome.data is None for outcome in made):
                continue
            for (info, content), outcome in zip(sample, made, strict=True):
                if outcome is not None and outcome.data is not None:
                    info.name, content = outcome.target, outcome.data
                info.size = len(content)
                out.addfile(info, BytesIO(content))

    def _is_picture(self, info: tarfile.TarInfo) -> bool:
        """Whether a member is purified: "a.jpg", but not the mask "a.seg.png", unless `image_column` says so."""
        field = f".{PurePosixPath(info.name).name.partition('.')[2].lower()}"
        return field == f".{self.image_column.lower()}" if self.image_column != IMAGE else field in SUFFIXES

    def parquet(self, part: Part) -> Rows:
        """Purifies the column of pictures of a Parquet file. A picture that failed becomes null."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows, count = Rows(), 0
        with self.source.opened(part.keys[0]) as file, self.destination.created(part.targets[0]) as draft:
            table = pq.ParquetFile(file)
            schema = table.schema_arrow
            if self.image_column not in schema.names:
                raise InputError(
                    f"expected a column {self.image_column!r} in {part.keys[0]}, got {', '.join(schema.names)}; "
                    "give its name as image_column"
                )
            number = schema.names.index(self.image_column)
            with pq.ParquetWriter(draft, schema) as out:
                for batch in table.iter_batches(WINDOW * self.purifying.batch_size):
                    pictures = self._pictures(f"{part.keys[0]}#", count, batch.column(number).to_pylist(), rows)
                    count += len(batch)
                    column = pa.array(pictures, schema.field(number).type)
                    out.write_batch(batch.set_column(number, schema.field(number), column))
        return rows

    def _pictures(self, prefix: str, start: int, values: list[Any], rows: Rows) -> list[Any]:
        """Returns the purified pictures of a column: bytes, or the form of `datasets`, {"bytes": ..., "path": ...}."""
        items = []
        for index, value in enumerate(values, start):
            content, path = (value["bytes"], value.get("path")) if isinstance(value, dict) else (value, None)
            target = PurePosixPath(path or f"picture{format_ending(content)}")
            if self.form == "png":
                target = target.with_suffix(".png")
            items.append(Item(f"{prefix}{index}", str(target), partial(_not_null, content, f"{prefix}{index}")))
        outcomes = _by_key(self.purifying.outcomes(items), rows)
        return [_as_before(value, outcomes[item.key]) for value, item in zip(values, items, strict=True)]


def _as_before(value: Any, outcome: Outcome) -> Any:
    if outcome.data is None or not isinstance(value, dict):
        return outcome.data
    return {"bytes": outcome.data, "path": value.get("path") and outcome.target}


def _by_key(outcomes: Iterable[Outcome], rows: Rows) -> dict[str, Outcome]:
    found = {}
    for outcome in outcomes:
        rows.add(outcome)
        found[outcome.key] = outcome
    return found


def _not_null(content: bytes | None, key: str) -> bytes:
    if content is None:
        raise InputError(f"expected a picture in {key}, got null")
    return content


def _read(store: Store, key: str) -> bytes:
    content = store.read(key)
    if content is None:
        raise InputError(f"expected an image file, got {key}, which does not exist any more")
    return content


def _written(outcome: Outcome, destination: Store) -> Outcome:
    """Writes the file of an outcome; returns a failed one if that is not possible."""
    if outcome.data is None:
        return outcome
    try:
        destination.write(outcome.target, outcome.data)
    except (PurifierError, OSError) as error:
        return Outcome(outcome.key, outcome.target, error=str(error), seconds=outcome.seconds)
    return outcome


def _members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for info in tar:
        file: IO[bytes] | None = tar.extractfile(info) if info.isreg() else None
        if file is not None:
            yield info, file.read()


def _sample(info: tarfile.TarInfo) -> str:
    """Returns the key of a member's sample, as WebDataset does: the name up to the first dot of its last part."""
    path = PurePosixPath(info.name)
    return str(path.with_name(path.name.split(".", 1)[0] or path.name))


KINDS: dict[str, Callable[[Work, Part], Rows]] = {
    "files": Work.files,
    "webdataset": Work.webdataset,
    "parquet": Work.parquet,
}
