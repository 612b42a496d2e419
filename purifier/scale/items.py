"""Pictures as bytes in, pictures as bytes out, with what became of each: what a worker does, without any engine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from purifier._errors import InputError, PurifierError
from purifier._images import Picture, encode_image, put_together, read_size, take_apart
from purifier._opening import FORMATS, opened
from purifier._scoring import has_gate
from purifier.inference.pictures import batches, purify_pictures

if TYPE_CHECKING:
    from purifier import Purifier

# Objects that are fetched at the same time, and bytes of a part that are held before their turn comes.
_THREADS, _HELD = 16, 256 << 20


@dataclass(frozen=True)
class Item:
    """A picture to purify.

    Attributes:
        key: Its name in the manifest and in messages.
        target: Name of the file it becomes; the ending decides the format.
        read: Returns its content, or raises InputError.
    """

    key: str
    target: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Outcome:
    """What became of a picture.

    Attributes:
        key: Its name.
        target: Name of the file it became.
        data: The file's content; None if it failed.
        error: The reason, if it failed.
        attack_score: The score of the gate, if the purifier has one.
        seconds: Time of its batch, from the first byte to the last, divided by the pictures in it.
    """

    key: str
    target: str
    data: bytes | None = None
    error: str | None = None
    attack_score: float | None = None
    seconds: float = 0.0

    @property
    def digest(self) -> str | None:
        """SHA-256 of the file's content."""
        return None if self.data is None else hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Purifying:
    """How pictures are purified.

    Attributes:
        purifier: The purifier.
        batch_size: The largest number of pictures in a batch; all have one size.
        max_pixels: The largest number of pixels of a picture. None means Pillow's limit.
    """

    purifier: Purifier
    batch_size: int = 8
    max_pixels: float | None = None

    def outcomes(self, items: Sequence[Item]) -> Iterator[Outcome]:
        """Purifies pictures in the batches of the one-machine command, and yields what became of each."""
        scored, contents = has_gate(self.purifier), _Contents(items)

        def size_of(item: Item) -> tuple[int, int]:
            return read_size(contents.look(item), max_pixels=self.max_pixels)

        for batch in batches(items, size_of, self.batch_size):
            yield from self._batch(batch, contents, scored)

    def _batch(self, batch: Sequence[Item], contents: _Contents, scored: bool) -> list[Outcome]:
        start, found = time.perf_counter(), list[Outcome]()
        read: list[tuple[Item, Picture]] = []
        for item in batch:
            try:
                read.append((item, take_apart(contents.take(item), max_pixels=self.max_pixels)))
            except InputError as error:
                found.append(Outcome(item.key, item.target, error=str(error)))
        results = purify_pictures(self.purifier, [picture for _, picture in read], scored=scored) if read else []
        for (item, picture), result in zip(read, results, strict=True):
            try:
                if isinstance(result, Exception):
                    raise result
                data = encode_image(put_together(picture, result.pixels), item.target)
                found.append(Outcome(item.key, item.target, data, attack_score=result.score))
            except (PurifierError, OSError, RuntimeError, ValueError, MemoryError) as error:
                found.append(Outcome(item.key, item.target, error=str(error) or type(error).__name__))
        seconds = (time.perf_counter() - start) / len(batch)
        return [replace(outcome, seconds=seconds) for outcome in found]


def format_ending(content: bytes | None) -> str:
    """Returns the ending of files of a picture's format, such as ".jpg"; ".png" if it is no picture."""
    try:
        with opened(content or b"") as image:
            kind = "JPEG" if image.format == "MPO" else str(image.format)
    except InputError:
        return ".png"
    return ".jpg" if kind == "JPEG" else FORMATS.get(kind, (".png",))[0]


class _Contents:
    """The contents of items, fetched ahead by threads as far as a limit of memory lets them, otherwise when asked."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._held: dict[Item, bytes | InputError] = {}
        size = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(items), _THREADS):
                if size > _HELD:
                    return
                some = items[start : start + _THREADS]
                for item, content in zip(some, pool.map(_fetched, some), strict=True):
                    self._held[item] = content
                    size += len(content) if isinstance(content, bytes) else 0

    def look(self, item: Item) -> bytes:
        """Returns the content of an item."""
        return _given(self._held[item] if item in self._held else _fetched(item))

    def take(self, item: Item) -> bytes:
        """Returns the content of an item, and forgets it."""
        return _given(self._held.pop(item) if item in self._held else _fetched(item))


def _fetched(item: Item) -> bytes | InputError:
    try:
        return item.read()
    except InputError as error:
        return error


def _given(content: bytes | InputError) -> bytes:
    if isinstance(content, InputError):
        raise content
    return content
