"""purify_dataset: plans the parts of a data set, and lets Ray Data work on those that are not done."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from purifier._errors import OptionError
from purifier._extras import require_extra
from purifier._opening import SUFFIXES, as_path
from purifier._records import differences
from purifier._walking import no_images
from purifier._wrapping import DEFAULT
from purifier.data.outputs import RECORD, Format, output_names, output_settings, read_record, record_text
from purifier.scale.clusters import connected, finishing
from purifier.scale.items import Purifying
from purifier.scale.manifest import FOLDER, Part, done_parts, file_parts
from purifier.scale.options import Kind, Options, Workers
from purifier.scale.parts import IMAGE, KINDS, Work
from purifier.scale.stores import Store, is_single

if TYPE_CHECKING:
    from purifier import Purifier

_SHARDS = {"webdataset": (".tar",), "parquet": (".parquet",)}
# Ray keeps account of each block, so that there are at most so many, with several parts each.
_MOST_BLOCKS = 4096


@dataclass
class Totals:
    """What became of a data set.

    Attributes:
        written: Number of pictures that were written.
        failed: Number of pictures that failed; the manifest has a row with the reason for each.
        skipped: Number of parts that an earlier run has done.
        errors: Parts that failed as a whole, with the reason. The same call does them again.
        manifest: Folder of the manifest.
    """

    manifest: str
    written: int = 0
    failed: int = 0
    skipped: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)


def purify_dataset(
    source: str | os.PathLike[str], destination: str | os.PathLike[str], purifier: str | Purifier = DEFAULT, *,
    kind: Kind = "auto", form: Format = "png", image_column: str = IMAGE, batch_size: int = 8,
    max_pixels: float | None = None, overwrite: bool = False, retry: bool = False, address: str | None = None,
    workers: Workers | None = None, storage_options: Mapping[str, Any] | None = None,
) -> Totals:  # fmt: skip
    """Purifies a data set with many workers on Ray. The outputs are those of `purifier purify`, byte by byte.

    A picture that cannot be read is a row with its error in the manifest, never the end of the run. The same call
    resumes a run that was killed: parts in the manifest are not done again.

    Args:
        source: Local folder that all workers see, or an address that fsspec knows: s3://, gs://, hf://.
        destination: Where the outputs go; a folder like `source`.
        purifier: A purifier, or the name, folder or hub repository of one.
        kind: "files" for picture files, "webdataset" for tar files, "parquet" for Parquet files with a column of
            pictures; "auto" takes the first of these that `source` has.
        form: "png", which is lossless, or "keep" for the format of each source.
        image_column: Name of the column of pictures; of tar files, the only field that is purified, such as "jpg".
        batch_size: The largest number of pictures in a batch; all have one size.
        max_pixels: The largest number of pixels of a picture. None means Pillow's limit, 89 million.
        overwrite: Whether everything is done again.
        retry: Whether parts with pictures that failed are done again.
        address: Address of a Ray cluster, such as "auto". None means the one that is connected, or this machine.
        workers: Number and resources of the workers.
        storage_options: Options of the fsspec file systems, such as {"endpoint_url": "http://127.0.0.1:9000"}.

    Raises:
        InputError: If there is nothing to purify.
        OptionError: If the destination has outputs of other settings, or would replace sources.
        PurifierError: If Ray is not installed, or the run ends early.
    """
    for package in ("ray", "pyarrow", "fsspec"):
        require_extra(package, extra="scale", what="purify_dataset")
    options = Options(
        kind=kind, form=form, image_column=image_column, batch_size=batch_size, max_pixels=max_pixels,
        overwrite=overwrite, retry=retry, address=address, workers=Workers() if workers is None else workers,
        storage_options={} if storage_options is None else storage_options,
    )  # fmt: skip
    start, end = (_store(place, options) for place in (source, destination))
    work = Work(start, end, Purifying(_on_cpu(purifier), batch_size, max_pixels), form, image_column)
    found, parts = _parts(work, kind)
    manifest = work.destination.below(FOLDER)
    _claim(work, manifest, overwrite=overwrite)
    done = done_parts(manifest, parts, retry=retry)
    totals = Totals(manifest.address, skipped=len(done))
    left = [part for part in parts if part.name not in done]
    if left:
        with connected(address):
            _run(work, found, left, options.workers, totals)
    return totals


def _store(place: str | os.PathLike[str], options: Options) -> Store:
    as_path(place, wanted="a folder, or an address such as s3://bucket/folder")
    return Store(os.fspath(place), dict(options.storage_options))


def _on_cpu(purifier: str | Purifier) -> Purifier:
    """Returns the purifier as workers get it, in float32, so that outputs do not depend on the machine."""
    from purifier import Purifier

    if isinstance(purifier, Purifier):
        return purifier
    return Purifier.from_pretrained(purifier, device="cpu", dtype="float32")


def _parts(work: Work, kind: Kind) -> tuple[str, list[Part]]:
    """Returns the kind of the source, and its parts."""
    if is_single(work.source):
        raise OptionError(
            f"expected a folder to purify with Ray, got the file {work.source.address}; leave out --engine ray"
        )
    _check_apart(work)
    for one in ("files", "webdataset", "parquet") if kind == "auto" else (kind,):
        keys = work.source.keys(_SHARDS.get(one, SUFFIXES))
        if keys and one != "files":
            return one, [Part([str(key)], [str(key)]) for key in keys]
        if keys:
            if work.destination.address.startswith("hf://"):
                raise OptionError("expected shards to write to hf://, where every picture file would be a commit")
            return one, file_parts(keys, output_names(keys, work.form), work.purifying.batch_size)
    raise no_images([Path(work.source.address)])


def _check_apart(work: Work) -> None:
    """Refuses a destination in which outputs would be sources of the next run, or replace them."""
    source, target = (
        place.address if place.folder is None else os.path.realpath(place.folder)
        for place in (work.source, work.destination)
    )
    if PurePosixPath(target).is_relative_to(source) or PurePosixPath(source).is_relative_to(target):
        raise OptionError(f"expected SRC and DST apart, got {work.destination.address}; choose another DST")


def _claim(work: Work, manifest: Store, *, overwrite: bool) -> None:
    """Records with which settings the outputs are made, as the one-machine command does.

    Raises:
        OptionError: If there are outputs of other settings, or of unknown ones.
    """
    settings = output_settings(work.purifying.purifier)
    text = work.destination.read(RECORD)
    if overwrite:
        manifest.remove([str(key) for key in manifest.keys((".parquet",))])
    elif text is not None:
        record = read_record(text)
        differing = differences({} if record is None else record["settings"], settings)
        if differing:
            raise OptionError(
                f"expected outputs in {work.destination.address} that were made with these settings, got others "
                f"({differing}); choose another DST, or pass --overwrite"
            )
    elif not work.destination.is_empty():
        raise OptionError(
            f"expected an empty DST, or one of an earlier run, got {work.destination.address} with other files; choose "
            "another DST, or pass --overwrite"
        )
    work.destination.write(RECORD, record_text(settings).encode())


def _run(work: Work, kind: str, parts: Sequence[Part], workers: Workers, totals: Totals) -> None:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from tqdm import tqdm

    DataContext.get_current().enable_progress_bars = False
    gpus = workers.gpus if workers.gpus is not None else float(ray.cluster_resources().get("GPU", 0) > 0)
    # Pickled, because names of files can have bytes that are not UTF-8.
    rows: list[Any] = [{"part": pickle.dumps(part)} for part in parts]
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MOST_BLOCKS)).map_batches(
        _Worker,
        batch_size=1,
        compute=ActorPoolStrategy(min_size=workers.least, max_size=workers.most),
        num_cpus=workers.cpus,
        num_gpus=gpus,
        fn_constructor_args=(work, kind, max(1, int(workers.cpus)), gpus > 0),
    )
    total = sum(len(part.keys) for part in parts)
    with tqdm(total=total, unit="image" if kind == "files" else "shard", disable=None) as bar, finishing():
        for row in data.iter_rows():
            totals.written += row["written"]
            totals.failed += row["failed"]
            if row["error"]:
                totals.errors.append((row["name"], row["error"]))
            bar.update(row["keys"])


class _Worker:
    """An actor: does one part after another, and never raises, because that would end the run."""

    def __init__(self, work: Work, kind: str, threads: int, gpu: bool) -> None:
        import torch

        torch.set_num_threads(threads)
        if gpu:
            work.purifying.purifier.to("cuda")
        self.work, self.kind = work, kind

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        part: Part = pickle.loads(batch["part"][0])
        row: dict[str, Any] = {"name": part.name, "keys": len(part.keys), "written": 0, "failed": 0, "error": ""}
        try:
            rows = KINDS[self.kind](self.work, part)
            rows.save(part, self.work.destination.below(FOLDER))
            row |= {"written": rows.written, "failed": rows.failed}
        except Exception as error:  # whatever it is, the other parts can be done
            row |= {"error": f"{part.keys[0]}: {error or type(error).__name__}"}
        return {name: [value] for name, value in row.items()}
