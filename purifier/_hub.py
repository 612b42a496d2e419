"""From a name, a folder or a hub repository to a verified configuration and state dict, and back.

A purifier is a folder:

    config.json         kind, name, method and options, and the SHA-256 of every weights file
    *.safetensors       the weights, if the method has any; one file or several shards
    README.md           the model card

The only module that imports huggingface_hub. No pickle is ever read here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from torch import Tensor

from purifier._errors import NoWeightsError, OptionError, PurifierWarning, UnknownNameError, WeightsError, nearest
from purifier._files import replacing

FORMAT = 1
SHARD_BYTES = 15_000_000
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

HubMixin = PyTorchModelHubMixin

_warned_of: set[str] = set()


class _Folder(Protocol):
    """What a folder on disk and one inside an installed package have in common."""

    @property
    def name(self) -> str: ...
    def joinpath(self, *parts: str) -> Any: ...


@dataclass(frozen=True)
class Package:
    """A purifier's folder, read and checked.

    Attributes:
        source: Where it came from, for messages.
        config: config.json, parsed.
        state: The weights; empty where the method has none.
        card: Text of README.md, or None.
    """

    source: str
    config: dict[str, Any]
    state: dict[str, Tensor] = field(repr=False)
    card: str | None = field(repr=False)


def list_purifiers(*, trained: bool = True) -> list[str]:
    """Returns the names of the purifiers that come with the package, sorted.

    Args:
        trained: Whether to leave out names that `Purifier.from_pretrained` cannot load, because trained weights are
            not shipped yet.
    """
    names = []
    for folder in resources.files("purifier.weights").iterdir():
        path = folder / "config.json"
        if not path.is_file():
            continue
        config = json.loads(path.read_text(encoding="utf-8"))
        loads = config.get("trained", True) or "stand_in" in config
        if config.get("kind") == "purifier" and (loads or not trained):
            names.append(folder.name)
    return sorted(names)


def bundled_config(name: str) -> dict[str, Any]:
    """Returns the configuration of a bundled purifier."""
    return _read_config(resources.files("purifier.weights") / name, name)


def is_trained(name: str) -> bool:
    """Whether a bundled name has weights of its own, or needs none; False where another network stands in for it."""
    return bool(bundled_config(name).get("trained", True))


def fetch(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Package:
    """Finds a purifier and reads it: a bundled name first, then a folder, then a repository on the hub.

    Args:
        source: "ncis", a folder, or "org/name" on the Hugging Face Hub. A path object is always a folder.
        revision: Branch, tag or commit on the hub.
        token: Hub token, or True for the stored one.
        cache_dir: The hub's cache folder.
        local_files_only: Whether to use only what the cache has.
        force_download: Whether to download again what the cache has.

    Raises:
        UnknownNameError: Nothing goes by that name.
        NoWeightsError: A name whose weights are not shipped yet.
        OptionError: A revision of something that has none.
        WeightsError: The folder or repository is missing, damaged or no purifier.
    """
    name = os.fspath(source)
    is_name = isinstance(source, str)
    bundled = is_name and name in list_purifiers(trained=False)
    if bundled or Path(name).is_dir():
        if revision is not None:
            kind = "a bundled name" if bundled else "a folder"
            raise OptionError(f"expected a revision with a hub repository only, got {revision!r} with {name!r}, {kind}")
        return _read(resources.files("purifier.weights") / name if bundled else Path(name), name)
    if is_name and _REPO.fullmatch(name):
        hub = (name, revision, token, cache_dir, local_files_only, force_download)
        # Alone first: what is no purifier is refused before its weights are downloaded.
        _read_config(_download(*hub, ["config.json"]), name)
        return _read(_download(*hub, ["config.json", "*.safetensors", "README.md"]), name)
    names = list_purifiers()
    if not is_name or os.sep in name or name.startswith("."):
        raise WeightsError(f"expected a folder with config.json, got {name!r}, which is not a folder")
    raise UnknownNameError(
        f"expected one of {', '.join(names)}, a folder, or 'org/name' on the Hugging Face Hub, got {name!r}"
        f"{nearest(name, names)}"
    )


def _download(
    repo: str,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    force_download: bool,
    patterns: list[str],
) -> Path:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            allow_patterns=patterns,
        )
    except RevisionNotFoundError as error:
        raise WeightsError(
            f"expected a revision of {repo!r}, got {revision!r}, which it does not have; give a branch, tag or commit"
        ) from error
    except GatedRepoError as error:
        raise WeightsError(f"{repo!r} is gated; accept its terms on the hub and pass token=...") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise WeightsError(
            f"expected a folder or a repository on the hub, got {repo!r}; there is no folder of that name here, and "
            "the hub does not have or does not show it; check the spelling, or pass token=... if it is private"
        ) from error
    except LocalEntryNotFoundError as error:
        wanted = f" at revision {revision!r}" if revision else ""
        raise WeightsError(
            f"{repo!r}{wanted} is not in the local cache and could not be downloaded, and there is no folder of that "
            "name here; check the spelling and the revision, or go online once without local_files_only"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(f"{repo!r} could not be downloaded: {error}") from error
    return Path(folder)


def _read_config(folder: _Folder, source: str) -> dict[str, Any]:
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
    if not isinstance(config, dict) or config.get("kind") != "purifier":
        raise WeightsError(f'expected config.json of {source!r} to say "kind": "purifier"; it is no purifier\'s')
    if config.get("format") != FORMAT:
        raise WeightsError(
            f"expected format {FORMAT} in config.json of {source!r}, got {config.get('format')!r}; update purifier"
        )
    return config


def _read(folder: _Folder, source: str) -> Package:
    config = _read_config(folder, source)
    if not config.get("trained", True):
        if "stand_in" in config:
            return _read_stand_in(config["stand_in"], source)
        method = str(config["method"]).split("-")[0]
        raise NoWeightsError(
            f"{source!r} has no bundled weights yet; convert a published checkpoint with 'purifier convert FILE "
            f"FOLDER' or train it with 'purifier train {method}', then give the folder to from_pretrained"
        )
    files = config.get("files", {})
    if not isinstance(files, dict):
        raise WeightsError(f'expected "files" in config.json of {source!r} to map file names to SHA-256, got {files!r}')
    state: dict[str, Tensor] = {}
    for file, digest in files.items():
        state.update(_read_weights(folder, file, digest, source))
    card = folder.joinpath("README.md")
    return Package(source, config, state, card.read_text(encoding="utf-8") if card.is_file() else None)


def _read_stand_in(name: str, source: str) -> Package:
    if source not in _warned_of:
        _warned_of.add(source)
        warnings.warn(
            f"{source!r} loads {name!r}: its own trained weights are not shipped yet; `repr` and the model card say "
            "which network it is. Shown once",
            PurifierWarning,
            stacklevel=2,
        )
    return _read(resources.files("purifier.weights") / name, name)


def _read_weights(folder: _Folder, file: str, digest: str, source: str) -> dict[str, Tensor]:
    if Path(file).name != file or not file.endswith(".safetensors"):
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
            f"{file} of {source!r} is damaged or not the file its config.json names: expected SHA-256 {digest}, got "
            f"{got} over {len(data)} bytes; fetch it again"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise WeightsError(f"{file} of {source!r} is no safetensors file: {error}") from error


def write(folder: Path, config: dict[str, Any], state: Mapping[str, Tensor], card: str | None) -> None:
    """Writes a purifier's folder; files get their names only when all of them are whole, config.json last.

    Weights go into shards of at most SHARD_BYTES. Weights files of an earlier save are removed.

    Raises:
        OptionError: Where the folder is a file, or has a config.json that is no purifier's.
    """
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"expected a folder to write to, got {folder}, which is a file; choose another place")
    old = _old_files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    # The files get their names together, once all are written: the first to be entered is the last to be renamed.
    with ExitStack() as whole:
        described = whole.enter_context(replacing(folder / "config.json"))
        if card is not None:
            whole.enter_context(replacing(folder / "README.md")).write_bytes(card.encode())
        for file, data in _pack(state):
            files[file] = hashlib.sha256(data).hexdigest()
            whole.enter_context(replacing(folder / file)).write_bytes(data)
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
    if not isinstance(config, dict) or config.get("kind") != "purifier":
        raise OptionError(
            f"expected a new folder, an empty one or a purifier's, got {str(folder)!r}, whose config.json is no "
            "purifier's; give another folder"
        )
    files = config.get("files")
    names = files if isinstance(files, dict) else {}
    return {name for name in names if Path(name).name == name and name.endswith(".safetensors")}


def digests(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Returns the SHA-256 of every weights file that `write` would write, by its name."""
    return {file: hashlib.sha256(data).hexdigest() for file, data in _pack(state)}


def _pack(state: Mapping[str, Tensor]) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the content of every weights file."""
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save

    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    if not tensors:
        return
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=SHARD_BYTES)
    for file, keys in split.filename_to_tensors.items():
        yield file, save({key: tensors[key] for key in keys}, metadata={"format": "pt"})
