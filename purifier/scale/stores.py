"""Folders of objects by key, on this machine or wherever fsspec leads: s3://, gs://, hf://, ..."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from purifier._errors import InputError, OptionError, OutputError, PurifierError
from purifier._files import replacing, writing
from purifier._opening import is_file, is_folder
from purifier._walking import make_folders, walk


@dataclass(frozen=True)
class Store:
    """A folder of objects. It is pickled, so it holds its address only; fsspec keeps one connection a process.

    Attributes:
        address: A local folder, or an address such as "s3://bucket/folder".
        options: Options of the fsspec file system, such as {"endpoint_url": ...}.
    """

    address: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """The folder, if it is on this machine or mounted there."""
        if self.address.startswith("file://"):
            return Path(self.address.removeprefix("file://"))
        return None if "://" in self.address else Path(self.address)

    @property
    def _remote(self) -> tuple[Any, str]:
        import fsspec

        try:
            system, root = fsspec.url_to_fs(self.address, **self.options)
        except (ImportError, ValueError) as error:
            raise OptionError(f"expected an address that fsspec knows, got {self.address!r}: {error}") from error
        return system, root.rstrip("/")

    def keys(self, suffixes: tuple[str, ...]) -> list[PurePosixPath]:
        """Returns the keys with one of these endings, sorted, without hidden ones.

        Raises:
            InputError: If the store cannot be listed.
        """
        if self.folder is not None:
            found = walk(self.folder, suffixes=suffixes).complete().images
            return [PurePosixPath(path.relative_to(self.folder)) for path in found]
        system, root = self._remote
        system.invalidate_cache()
        try:
            keys = [PurePosixPath(path[len(root) :].lstrip("/")) for path in system.find(root)]
        except FileNotFoundError:
            return []
        except Exception as error:  # every service has errors of its own
            raise InputError(f"expected a store that can be listed, got {self.address}: {error}") from error
        return sorted(key for key in keys if key.suffix.lower() in suffixes and not _is_hidden(key))

    def is_empty(self) -> bool:
        """Whether there are no objects, hidden ones included.

        Raises:
            OutputError: If a local folder cannot be listed.
        """
        if self.folder is not None:
            with writing(self.folder):
                return not is_folder(self.folder) or not any(self.folder.iterdir())
        system, root = self._remote
        system.invalidate_cache()
        with suppress(FileNotFoundError):
            return not system.ls(root, detail=False)
        return True

    def read(self, key: str) -> bytes | None:
        """Returns an object; None if there is none.

        Raises:
            InputError: If it cannot be read.
        """
        try:
            if self.folder is not None:
                return (self.folder / key).read_bytes()
            system, root = self._remote
            return bytes(system.cat_file(f"{root}/{key}"))
        except FileNotFoundError:
            return None
        except PurifierError:
            raise
        except Exception as error:  # every service has errors of its own
            raise InputError(f"expected an object that can be read, got {key} of {self.address}: {error}") from error

    @contextmanager
    def opened(self, key: str) -> Iterator[IO[bytes]]:
        """Opens an object for reading."""
        if self.folder is not None:
            with (self.folder / key).open("rb") as file:
                yield file
            return
        system, root = self._remote
        with system.open(f"{root}/{key}", "rb") as file:
            yield file

    def write(self, key: str, data: bytes) -> None:
        """Writes a whole object: readers see the old one or the new one.

        Raises:
            OutputError: If it cannot be written.
        """
        with self.created(key) as draft:
            draft.write_bytes(data)

    @contextmanager
    def created(self, key: str) -> Iterator[Path]:
        """Yields a local file, which becomes a whole object if there was no error.

        Raises:
            OutputError: If it cannot be written.
        """
        if self.folder is not None:
            path = self.folder / key
            with writing(path):
                make_folders(path.parent)
            with replacing(path) as draft:
                yield draft
            return
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "object"
            yield draft
            self._put(draft, key)

    def _put(self, draft: Path, key: str) -> None:
        system, root = self._remote
        try:
            system.put_file(str(draft), f"{root}/{key}")
        except Exception as error:  # every service has errors of its own
            raise OutputError(f"expected a store that can be written, got {self.address}: {error}") from error

    def remove(self, keys: list[str]) -> None:
        """Removes objects. Those that do not exist are ignored.

        Raises:
            OutputError: If a local file cannot be removed.
        """
        for key in keys:
            if self.folder is not None:
                with writing(self.folder / key):
                    (self.folder / key).unlink(missing_ok=True)
                continue
            system, root = self._remote
            with suppress(FileNotFoundError):
                system.rm_file(f"{root}/{key}")

    def below(self, name: str) -> Store:
        """Returns the store of a folder in this one."""
        return Store(f"{self.address.rstrip('/')}/{name}", self.options)


def is_single(store: Store) -> bool:
    """Whether the address is that of one local file."""
    return store.folder is not None and is_file(store.folder)


def _is_hidden(key: PurePosixPath) -> bool:
    return any(part.startswith(".") for part in key.parts)
