"""Finds a purifier by a bundled name, a folder, or a repository on the Hugging Face Hub.

The only module that imports huggingface_hub.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, snapshot_download

from purifier._errors import (
    NoWeightsError,
    OptionError,
    OutputError,
    PurifierError,
    UnknownNameError,
    WeightsError,
    nearest,
    shown,
    warn_once,
)
from purifier._format import Package, Shapes, read, read_config
from purifier._untrusted import Place

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

# How often a folder is read that another process keeps saving into.
_TRIES = 20

Expect = Callable[[dict[str, Any], str], Shapes]


class HubMixin(PyTorchModelHubMixin):
    """The hub's upload, with errors that say what to do."""

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads config.json, weights and model card to a repository, which is made if it does not exist.

        Args:
            repo_id: "org/name".
            **options: Those of `huggingface_hub.PyTorchModelHubMixin.push_to_hub`, such as private and token.

        Returns:
            The address of the commit.

        Raises:
            OutputError: If the hub cannot be reached or refuses the upload.
        """
        try:
            return str(super().push_to_hub(repo_id, **options))
        except PurifierError:
            raise
        except Exception as error:  # the hub's client raises many kinds of errors
            raise OutputError(
                f"expected to upload to the hub as {repo_id!r}, got {type(error).__name__}: {error}; check the "
                "connection, the name, and the token (hf auth login)"
            ) from None


@dataclass(frozen=True)
class HubOptions:
    """How to download a repository; see `Purifier.from_pretrained`."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


def list_purifiers(*, trained: bool = True) -> list[str]:
    """Returns the sorted names of the purifiers that come with the package.

    Args:
        trained: Whether to leave out names that `Purifier.from_pretrained` cannot load because their trained weights
            are not shipped yet.
    """
    names = []
    for folder in resources.files("purifier.weights").iterdir():
        if not (folder / "config.json").is_file():
            continue
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        loads = config.get("trained", True) or "stand_in" in config
        if config.get("kind") == "purifier" and (loads or not trained):
            names.append(folder.name)
    return sorted(names)


def bundled_config(name: str) -> dict[str, Any]:
    """Returns the configuration of a bundled purifier."""
    return read_config(_bundled(name))


def bundled_card(name: str) -> str:
    """Returns the model card of a bundled purifier."""
    return (resources.files("purifier.weights") / name / "README.md").read_text(encoding="utf-8")


def is_trained(name: str) -> bool:
    """Returns False if another network stands in for a bundled name, because its own weights are not shipped yet."""
    return bool(bundled_config(name).get("trained", True))


def general_purifiers() -> list[str]:
    """Returns the purifiers with weights of their own that suit any model.

    "gad-..." were trained for one model, and "smooth-..." are denoisers for certified predictions.
    """
    return [name for name in _trained_names() if not name.startswith(("gad-", "smooth-"))]


def _bundled(name: str) -> Place:
    return Place(resources.files("purifier.weights") / name, name, bundled=True)


def fetch(source: str | os.PathLike[str], hub: HubOptions | None = None, expect: Expect | None = None) -> Package:
    """Finds a purifier and reads it: a bundled name first, then a folder, then a repository on the hub.

    Args:
        source: "ncis", a folder, or "org/name" on the Hugging Face Hub. A path object is always a folder.
        hub: How to download a repository.
        expect: Returns the shapes of the tensors that a configuration needs; they are compared before they are loaded.

    Raises:
        UnknownNameError: If the source is not a name, a folder or a repository.
        NoWeightsError: If the weights of that name are not shipped yet.
        OptionError: If a revision is given with a bundled name or a folder.
        WeightsError: If the folder or repository is missing, damaged or not a purifier's.
    """
    name, is_name, hub = os.fspath(source), isinstance(source, str), hub or HubOptions()
    bundled = is_name and name in list_purifiers(trained=False)
    if bundled or _is_folder(name):
        if hub.revision is not None:
            kind = "a bundled name" if bundled else "a folder"
            raise OptionError(
                f"expected a revision with a hub repository only, got {hub.revision!r} with {name!r}, {kind}"
            )
        return _read(_bundled(name) if bundled else Place(Path(name), name), expect)
    if is_name and _REPO.fullmatch(name):
        # config.json first, so that the weights of another kind of model are not downloaded.
        read_config(Place(_download(name, hub, ["config.json"]), name))
        return _read(Place(_download(name, hub, ["config.json", "*.safetensors", "README.md"]), name), expect)
    names = list_purifiers()
    if not is_name or os.sep in name or name.startswith("."):
        raise WeightsError(f"expected a folder with config.json, got {name!r}, which is not a folder")
    raise UnknownNameError(
        f"expected one of {', '.join(names)}, a folder, or 'org/name' on the Hugging Face Hub, got {name!r}"
        f"{nearest(name, names)}"
    )


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError as error:  # a name that is too long, a folder above it that may not be entered
        raise WeightsError(
            f"expected a folder with config.json, got {shown(name)}, which cannot be read: {error.strerror}"
        ) from error


def _read(place: Place, expect: Expect | None) -> Package:
    """Reads a folder. If another process saves into it meanwhile, reads it again."""
    for _ in range(_TRIES):
        config = read_config(place)
        try:
            return _read_as(place, config, expect)
        except WeightsError:
            if read_config(place) == config:
                raise
    raise WeightsError(f"expected {place.name!r} to stay the same while it is read, got other files each time")


def _read_as(place: Place, config: dict[str, Any], expect: Expect | None) -> Package:
    if config.get("trained", True):
        return read(place, config, expect)
    if "stand_in" not in config:
        method = config.get("method")
        if not isinstance(method, str):
            raise WeightsError(f'expected "method" in config.json of {place.name!r} to be a name, got {shown(method)}')
        raise NoWeightsError(
            f"{place.name!r} has no bundled weights yet; convert a published checkpoint with 'purifier convert FILE "
            f"FOLDER' or train it with 'purifier train {shown(method.split('-')[0])[1:-1]}', then give the folder to "
            "from_pretrained"
        )
    name = config["stand_in"]
    if name not in _trained_names():
        raise WeightsError(
            f'expected "stand_in" in config.json of {place.name!r} to be a bundled purifier with weights of its own, '
            f"got {shown(name)}"
        )
    warn_once(
        f"{place.name!r} loads {name!r}: its own trained weights are not shipped yet; `repr` and the model card say "
        "which network it is. Shown once",
        stacklevel=5,
    )
    return read(_bundled(name), bundled_config(name), expect)


def _trained_names() -> list[str]:
    return [name for name in list_purifiers() if is_trained(name)]


def _download(repo: str, hub: HubOptions, patterns: list[str]) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(repo, allow_patterns=patterns, **asdict(hub)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise WeightsError(_explain(error, repo, hub)) from error


def _explain(error: Exception, repo: str, hub: HubOptions) -> str:
    """Says what to do about an error of huggingface_hub."""
    revision = hub.revision
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"expected a revision of {repo!r}, got {revision!r}, which it does not have; give a branch, tag or commit"
        )
    if isinstance(error, errors.GatedRepoError):
        return f"{repo!r} is gated; accept its terms on the hub and pass token=..."
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return (
            f"expected a folder or a repository on the hub, got {repo!r}; there is no folder of that name here, and "
            "the hub has no such repository or does not show it; check the spelling, or pass token=... if it is private"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        wanted = f" at revision {revision!r}" if revision else ""
        online = "load it once without local_files_only" if hub.local_files_only else "go online once"
        return (
            f"{repo!r}{wanted} is not in the local cache and could not be downloaded, and there is no folder of that "
            f"name here; check the spelling and the revision, or {online}"
        )
    return f"{repo!r} could not be downloaded: {error}"
