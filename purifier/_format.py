"""The folder form of a purifier: reading and writing it.

    config.json         kind, name, method and options, and the SHA-256 of every weights file
    *.safetensors       the weights, if the method has any: one file or several shards
    README.md           the model card

No pickle is ever read here.

Saving is a single commit: the rename of config.json. Until then the old purifier stands, because no file that the old
config.json lists is touched; afterwards the new one does. For that, a new weights file takes the usual name,
model.safetensors, only while that name is free. Otherwise it gets a name of its own content, such as
model-0123456789abcdef.safetensors. So a fresh folder, which is what is shared, has the names that the hub and its tools
know. A folder that is saved again loads just the same here, because config.json lists the names.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from purifier._errors import OptionError, OutputError, WeightsError, shown
from purifier._files import JOURNAL, abandoned, is_journal, locked, replacing, sweep, temporary, writing
from purifier._safetensors import DTYPES, chunks, sha256
from purifier._untrusted import Place, parse_json

FORMAT = 1
SHARD_BYTES = 15_000_000
# Largest sizes that are read, in bytes.
_CONFIG_BYTES, _CARD_BYTES, _HEADER_BYTES = 1 << 20, 4 << 20, 16 << 20
_WEIGHTS_BYTES = 2 << 30
_OWN_CONTENT = re.compile(r"model(-\d{5}-of-\d{5})?-[0-9a-f]{16}\.safetensors")
_LONGEST_NAME = 2000
# Where folders cannot be locked, another process may be about to list a file that is younger than this.
_UNLOCKED_SECONDS = 600
_SHOWN = 4

# Shapes of the tensors that a configuration needs.
Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Package:
    """The checked content of a purifier's folder.

    Attributes:
        source: Where it came from, for messages.
        config: config.json, parsed.
        state: The weights. Empty if the method has none.
        card: Text of README.md, or None.
    """

    source: str
    config: dict[str, Any]
    state: dict[str, Tensor] = field(repr=False)
    card: str | None = field(repr=False)


# -- reading ----------------------------------------------------------------------------------------------------------


def read_config(place: Place) -> dict[str, Any]:
    """Reads config.json and checks its kind, format and name.

    Raises:
        WeightsError: If it is missing, damaged, or does not describe a purifier of this format.
    """
    source = place.name
    text = place.read("config.json", _CONFIG_BYTES)
    if text is None:
        raise WeightsError(
            f"expected config.json in {source!r}, got none; make the folder with save_pretrained, purifier convert or "
            "purifier train"
        )
    config: dict[str, Any] = parse_json(text, f"config.json of {source!r}")
    if not _is_purifiers(config):
        raise WeightsError(f'expected config.json of {source!r} to say "kind": "purifier"; it describes something else')
    if config.get("format") != FORMAT:
        raise WeightsError(
            f"expected format {FORMAT} in config.json of {source!r}, got {shown(config.get('format'))}; update purifier"
        )
    if not _is_name(config.get("name")):
        raise WeightsError(
            f'expected "name" in config.json of {source!r} to be a short printable text, got '
            f"{shown(config.get('name'))}; correct it"
        )
    return config


def _is_name(name: Any) -> bool:
    return name is None or (isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_NAME)


def _is_purifiers(config: Any) -> bool:
    return isinstance(config, dict) and config.get("kind") == "purifier"


def read(
    place: Place, config: dict[str, Any], expect: Callable[[dict[str, Any], str], Shapes] | None = None
) -> Package:
    """Reads the weights and the card of a folder, after checking the SHA-256 of every weights file.

    Args:
        place: The folder.
        config: Its configuration, from `read_config`.
        expect: Returns the shapes that a configuration needs. They bound how much is read.

    Raises:
        WeightsError: If a file is missing, damaged or not safetensors, or its tensors are not those of `expect`.
    """
    files = config.get("files", {})
    if not isinstance(files, dict):
        raise WeightsError(
            f'expected "files" in config.json of {place.name!r} to map file names to SHA-256, got {shown(files)}'
        )
    shapes = None if expect is None else expect(config, place.name)
    limit = _WEIGHTS_BYTES if shapes is None else _HEADER_BYTES + 8 * sum(shape.numel() for shape in shapes.values())
    state: dict[str, Tensor] = {}
    for file, digest in files.items():
        shard, size = _read_weights(place, file, digest, limit)
        limit -= size
        if twice := state.keys() & shard.keys():
            raise WeightsError(f"expected every tensor of {place.name!r} once, got {_some(twice)} in two files")
        state.update(shard)
    if shapes is not None:
        _check_shapes(state, shapes, place.name)
    return Package(place.name, config, state, _read_card(place))


def _read_card(place: Place) -> str | None:
    data = place.read("README.md", _CARD_BYTES)
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WeightsError(f"expected README.md of {place.name!r} in UTF-8, got {error}; save it as UTF-8") from error


def _read_weights(place: Place, file: str, digest: Any, limit: int) -> tuple[dict[str, Tensor], int]:
    """Returns the tensors of a file, and its size in bytes."""
    source = place.name
    if not _is_weights_name(file):
        raise WeightsError(f"expected weights called *.safetensors beside config.json, got {shown(file)} in {source!r}")
    data = place.read(file, limit)
    if data is None:
        raise WeightsError(
            f"expected {file} in {source!r}, got none; a pickle such as pytorch_model.bin is never read, turn it into "
            "a folder with purifier convert"
        )
    got = hashlib.sha256(data).hexdigest()
    if got != digest:
        raise WeightsError(
            f"{file} of {source!r} is damaged or is not the file that config.json names: expected SHA-256 "
            f"{digest if isinstance(digest, str) and len(digest) == 64 else shown(digest)}, got {got} over {len(data)} "
            "bytes; fetch it again"
        )
    return _parse(data, f"{file} of {source!r}"), len(data)


def _parse(data: bytes, what: str) -> dict[str, Tensor]:
    """Reads safetensors of the usual floating-point kinds."""
    from safetensors.torch import load

    try:
        if int.from_bytes(data[:8], "little") > _HEADER_BYTES:
            raise ValueError("its header is too large")
        state = load(data)
    except Exception as error:  # besides its own errors, safetensors raises KeyError and others for unknown dtypes
        raise WeightsError(f"{what} is not a safetensors file of a purifier: {shown(error)}") from error
    if others := [f"{key} of {value.dtype}" for key, value in state.items() if value.dtype not in DTYPES]:
        raise WeightsError(f"expected weights of 16, 32 or 64-bit floats in {what}, got {_some(others)}")
    return state


def _is_weights_name(file: str) -> bool:
    return Path(file).name == file and file.isprintable() and file.endswith(".safetensors")


def _check_shapes(state: Mapping[str, Tensor], shapes: Shapes, source: str) -> None:
    wrong = []
    if missing := [key for key in shapes if key not in state]:
        wrong.append(f"missing tensors: {_some(missing)}")
    if unknown := [key for key in state if key not in shapes]:
        wrong.append(f"unknown tensors: {_some(unknown)}")
    if others := [
        f"{key} of shape {tuple(state[key].shape)} instead of {tuple(shape)}"
        for key, shape in shapes.items()
        if key in state and state[key].shape != shape
    ]:
        wrong.append(f"other shapes: {_some(others)}")
    if wrong:
        raise WeightsError(f"the weights of {source!r} do not fit its configuration: {'; '.join(wrong)}")


def _some(names: Any) -> str:
    """Returns the first few names and how many more there are."""
    listed = sorted(map(str, names))
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(shown(name).strip("'") for name in listed[:_SHOWN]) + more


# -- writing ----------------------------------------------------------------------------------------------------------


def write(folder: Path, config: dict[str, Any], state: Mapping[str, Tensor], card: str | None) -> None:
    """Writes a purifier's folder in a single commit; see the head of this module.

    Weights are split into shards of at most SHARD_BYTES. Weights files of earlier saves are removed. The model card is
    renamed just before the commit, so a kill between the two leaves the old purifier with the new card.

    Raises:
        OptionError: If the folder is a file, its config.json does not describe a purifier, or the name or the card
            could not be read back.
        WeightsError: If weights are not finite or have no values.
        OutputError: If it cannot be written.
    """
    _check_weights(state)
    if not _is_name(config.get("name")):
        raise OptionError(f"expected a short printable name to save under, got {shown(config.get('name'))}; change it")
    data = None if card is None else card.encode("utf-8", errors="replace")
    if data is not None and len(data) > _CARD_BYTES:
        raise OptionError(f"expected a model card of at most {_CARD_BYTES:,} bytes, got {len(data):,}; shorten it")
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise OptionError(f"expected a folder to write to, got {folder}, which is a file; choose another place")
        _listed(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as alone:
            _commit(folder, config, state, data, alone)


def _check_weights(state: Mapping[str, Tensor]) -> None:
    if empty := [key for key, value in state.items() if value.is_meta]:
        raise WeightsError(f"expected weights to save, got {_some(empty)} on 'meta', without values; load them first")
    if broken := [key for key, value in state.items() if not bool(value.isfinite().all())]:
        raise WeightsError(
            f"expected finite weights to save, got infinity or NaN in {_some(broken)}; the training diverged"
        )


def _commit(folder: Path, config: dict[str, Any], state: Mapping[str, Tensor], card: bytes | None, alone: bool) -> None:
    old, files = _listed(folder), dict[str, str]()
    age = 0 if alone else _UNLOCKED_SECONDS
    _clear(folder, age)
    with temporary(folder / JOURNAL) as (journal, _):
        try:
            # An ExitStack leaves its contexts in reverse order: config.json is entered first and renamed last.
            with ExitStack() as complete:
                described = complete.enter_context(replacing(folder / "config.json"))
                if card is not None:
                    complete.enter_context(replacing(folder / "README.md")).write_bytes(card)
                for usual, shard in _pack(state):
                    file, digest = _name(folder, usual, sha256(shard), old, alone)
                    files[file] = digest
                    _write_weights(complete.enter_context(replacing(folder / file)), shard, digest)
                described.write_bytes((json.dumps({**config, "files": files}, indent=2) + "\n").encode())
                journal.write_bytes(json.dumps({**old, **files}).encode())
        finally:
            _remove(folder, {*old, *files} - _listed(folder).keys(), age)
    _clear(folder, age)


def _name(folder: Path, usual: str, digest: str, old: Mapping[str, str], alone: bool) -> tuple[str, str]:
    """Returns the name of a weights file to write, and its SHA-256."""
    free = alone and usual not in old and not (folder / usual).exists()
    return usual if free or old.get(usual) == digest else f"{Path(usual).stem}-{digest[:16]}.safetensors", digest


def _write_weights(draft: Path, shard: Mapping[str, Tensor], digest: str) -> None:
    written = hashlib.sha256()
    with draft.open("wb") as file:
        for part in chunks(shard):
            file.write(part)
            written.update(part)
    if written.hexdigest() != digest:
        raise OutputError(
            "expected weights that stay the same while they are saved, got others; save them when no other thread "
            "trains them"
        )


def _clear(folder: Path, age: float) -> None:
    """Removes what killed saves left: temporary files, and weights that config.json does not list."""
    journals = [path for path in abandoned(folder) if is_journal(path)]
    left = {path.name for path in folder.iterdir() if _OWN_CONTENT.fullmatch(path.name)}
    for path in journals:
        with suppress(OSError, ValueError, AttributeError):
            listed = json.loads(path.read_bytes()[:_CONFIG_BYTES]).items()
            left |= {file for file, digest in listed if _is_weights_name(file) and _holds(folder / file, digest)}
    _remove(folder, left - _listed(folder).keys(), age)
    _remove(folder, (path.name for path in journals), age)
    sweep(folder)


def _holds(path: Path, digest: str) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest
    return False


def _remove(folder: Path, names: Iterable[str], age: float) -> None:
    """Removes the files that are at least so many seconds old."""
    for name in names:
        with suppress(OSError):
            if not age or time.time() - (folder / name).lstat().st_mtime >= age:
                (folder / name).unlink()


def _listed(folder: Path) -> dict[str, str]:
    """Returns the weights files, with their SHA-256, that a folder's present config.json lists.

    Raises:
        OptionError: If the folder belongs to something else.
    """
    try:
        text = Place(folder, str(folder), bundled=True).read("config.json", _CONFIG_BYTES)
        config: Any = {"kind": "purifier"} if text is None else parse_json(text, "config.json")
    except WeightsError:
        config = None
    if not _is_purifiers(config):
        raise OptionError(
            f"expected a new folder, an empty one or a purifier's, got {str(folder)!r}, whose config.json does not "
            "describe a purifier; give another folder"
        )
    files = config.get("files")
    return {name: digest for name, digest in files.items() if _is_weights_name(name)} if isinstance(files, dict) else {}


def digests(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Returns the SHA-256 of every weights file that `write` writes into a fresh folder, by file name."""
    return {file: sha256(shard) for file, shard in _pack(state)}


def _pack(state: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields the usual name and the tensors of every weights file."""
    shards = _shards(state)
    for number, keys in enumerate(shards, 1):
        suffix = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        yield f"model{suffix}.safetensors", {key: state[key] for key in keys}


def _shards(state: Mapping[str, Tensor]) -> list[list[str]]:
    """Splits the keys into shards, in order, as huggingface_hub does. A tensor above the limit gets its own shard."""
    shards: list[list[str]] = []
    current: list[str] = []
    size = 0
    for key, tensor in state.items():
        if tensor.nbytes > SHARD_BYTES:
            shards.append([key])
            continue
        if size + tensor.nbytes > SHARD_BYTES:
            shards.append(current)
            current, size = [], 0
        current.append(key)
        size += tensor.nbytes
    return [*shards, current] if current else shards
