"""The folder form of a purifier: reading and writing it.

    config.json         kind, name, method and options, and the SHA-256 of every weights file
    *.safetensors       the weights, if the method has any: one file or several shards
    README.md           the model card

No pickle is ever read here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from purifier._errors import OptionError, WeightsError
from purifier._files import replacing

FORMAT = 1
SHARD_BYTES = 15_000_000


class Folder(Protocol):
    """What a folder on disk and one inside an installed package have in common."""

    @property
    def name(self) -> str: ...
    def joinpath(self, *parts: str) -> Any: ...


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


def read_config(folder: Folder, source: str) -> dict[str, Any]:
    """Reads config.json and checks its kind and format.

    Raises:
        WeightsError: If it is missing, damaged, or does not describe a purifier of this format.
    """
    path = folder.joinpath("config.json")
    if not path.is_file():
        raise WeightsError(
            f"expected config.json in {source!r}, got none; make the folder with save_pretrained, purifier convert or "
            "purifier train"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"config.json of {source!r} is not JSON: {error}; fetch the folder again") from error
    if not _is_purifiers(config):
        raise WeightsError(f'expected config.json of {source!r} to say "kind": "purifier"; it describes something else')
    if config.get("format") != FORMAT:
        raise WeightsError(
            f"expected format {FORMAT} in config.json of {source!r}, got {config.get('format')!r}; update purifier"
        )
    return config


def _is_purifiers(config: Any) -> bool:
    return isinstance(config, dict) and config.get("kind") == "purifier"


def read(folder: Folder, config: dict[str, Any], source: str) -> Package:
    """Reads the weights and the card of a folder, after checking the SHA-256 of every weights file.

    Args:
        folder: The folder.
        config: Its configuration, from `read_config`.
        source: Where the folder came from, for messages.

    Raises:
        WeightsError: If a file is missing, damaged or not safetensors.
    """
    files = config.get("files", {})
    if not isinstance(files, dict):
        raise WeightsError(f'expected "files" in config.json of {source!r} to map file names to SHA-256, got {files!r}')
    state: dict[str, Tensor] = {}
    for file, digest in files.items():
        state.update(_read_weights(folder, file, digest, source))
    card = folder.joinpath("README.md")
    return Package(source, config, state, card.read_text(encoding="utf-8") if card.is_file() else None)


def _read_weights(folder: Folder, file: str, digest: str, source: str) -> dict[str, Tensor]:
    if not _is_weights_name(file):
        raise WeightsError(f"expected weights called *.safetensors beside config.json, got {file!r} in {source!r}")
    path = folder.joinpath(file)
    if not path.is_file():
        raise WeightsError(
            f"expected {file} in {source!r}, got none; a pickle such as pytorch_model.bin is never read, turn it into "
            "a folder with purifier convert"
        )
    data = path.read_bytes()
    got = hashlib.sha256(data).hexdigest()
    if got != digest:
        raise WeightsError(
            f"{file} of {source!r} is damaged or is not the file that config.json names: expected SHA-256 {digest}, "
            f"got {got} over {len(data)} bytes; fetch it again"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise WeightsError(f"{file} of {source!r} is not a safetensors file: {error}") from error


def _is_weights_name(file: str) -> bool:
    return Path(file).name == file and file.endswith(".safetensors")


def write(folder: Path, config: dict[str, Any], state: Mapping[str, Tensor], card: str | None) -> None:
    """Writes a purifier's folder.

    The files are renamed into place when all of them are complete, config.json last. Weights are split into shards
    of at most SHARD_BYTES. Weights files of an earlier save are removed.

    Raises:
        OptionError: If the folder is a file, or its config.json does not describe a purifier.
    """
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"expected a folder to write to, got {folder}, which is a file; choose another place")
    old = _old_files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    # An ExitStack leaves its contexts in reverse order: config.json is entered first and renamed last.
    with ExitStack() as complete:
        described = complete.enter_context(replacing(folder / "config.json"))
        if card is not None:
            complete.enter_context(replacing(folder / "README.md")).write_bytes(card.encode())
        for file, data in _pack(state):
            files[file] = hashlib.sha256(data).hexdigest()
            complete.enter_context(replacing(folder / file)).write_bytes(data)
        described.write_bytes((json.dumps({**config, "files": files}, indent=2) + "\n").encode())
    for stale in old - files.keys():
        (folder / stale).unlink(missing_ok=True)


def _old_files(folder: Path) -> set[str]:
    """Returns the names of the weights files of an earlier save."""
    path = folder / "config.json"
    if not path.is_file():
        return set()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        config = None
    if not _is_purifiers(config):
        raise OptionError(
            f"expected a new folder, an empty one or a purifier's, got {str(folder)!r}, whose config.json does not "
            "describe a purifier; give another folder"
        )
    files = config.get("files")
    return {name for name in files if _is_weights_name(name)} if isinstance(files, dict) else set()


def digests(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Returns the SHA-256 of every weights file that `write` would write, by file name."""
    return {file: hashlib.sha256(data).hexdigest() for file, data in _pack(state)}


def _pack(state: Mapping[str, Tensor]) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the content of every weights file."""
    from safetensors.torch import save

    shards = _shards(state)
    for number, keys in enumerate(shards, 1):
        # Copies, because safetensors refuses tensors that share memory, as in a chain of one purifier twice.
        tensors = {key: state[key].detach().to("cpu", copy=True).contiguous() for key in keys}
        suffix = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        yield f"model{suffix}.safetensors", save(tensors, metadata={"format": "pt"})


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
