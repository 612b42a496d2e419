"""Calls of a remote model that cost money: retried, held to a rate, and kept, so that none is paid twice."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from purifier._errors import OptionError, PurifierError
from purifier.evaluation._records import Records

if TYPE_CHECKING:
    from PIL.Image import Image

Client = Callable[["Image"], Sequence[str]]
_LONGEST_WAIT = 60.0


class RemoteError(PurifierError, RuntimeError):
    """A remote model did not answer, or with something else than labels.

    Args:
        message: What was expected, what came, what to do.
        retry: Whether the same call may succeed later.
        wait: Seconds that the server asks to wait; None where it does not.
    """

    def __init__(self, message: str, *, retry: bool = False, wait: float | None = None) -> None:
        super().__init__(message)
        self.retry = retry
        self.wait = wait


class PatientClient:
    """A client that tries again, keeps to a rate, and remembers its answers.

    An answer is kept, on disk, under the SHA-256 of the image's pixels before the next call is made; a run that was
    killed pays for no image twice, and neither do two purifiers that give the same image. Threads may share it, and
    runs its cache; they keep to the rate together where they share the client.

    Args:
        client: Maps a PIL image to its labels, the likeliest first.
        name: What tells this client from another (address, model, version); a cache of another name is refused. The
            client's own `name` where None.
        cache: File of JSON lines that answers are kept in; in memory only where None.
        retries: Further tries after a failure that may pass: a RemoteError that says so, and those of `retry_on`.
        wait: Seconds before the first retry, doubled before each further one, at most 60.
        calls_per_second: Largest number of calls a second; no limit where None.
        retry_on: Exceptions of the client that a retry may mend.
        sleep: Waits for some seconds.
        clock: Tells the time in seconds.

    Attributes:
        calls: Number of calls that were made, failed ones too.

    Raises:
        OptionError: Where an option is out of its range, or the cache is another client's.

    Example:
        >>> client = PatientClient(lambda image: ["cat", "pet"], name="toy")
        >>> from PIL import Image
        >>> client(Image.new("RGB", (8, 8))), client(Image.new("RGB", (8, 8))), client.calls
        (['cat', 'pet'], ['cat', 'pet'], 1)
    """

    def __init__(
        self,
        client: Client,
        *,
        name: str | None = None,
        cache: str | Path | None = None,
        retries: int = 4,
        wait: float = 1.0,
        calls_per_second: float | None = None,
        retry_on: tuple[type[Exception], ...] = (OSError,),
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if retries < 0 or wait < 0 or (calls_per_second is not None and calls_per_second <= 0):
            raise OptionError(
                f"expected retries >= 0, wait >= 0 and calls_per_second > 0, got {retries}, {wait}, {calls_per_second}"
            )
        stated = name or getattr(client, "name", None) or getattr(client, "__qualname__", type(client).__name__)
        self.name = str(stated)
        self.calls = 0
        self._client = client
        self._retries, self._wait, self._retry_on = retries, wait, retry_on
        self._pause = 0.0 if calls_per_second is None else 1 / calls_per_second
        self._sleep, self._clock = sleep, clock
        self._next = -float("inf")
        self._lock = Lock()
        self._asking: dict[str, Lock] = {}
        self._records = None if cache is None else Records(Path(cache), {"client": self.name})
        stored: list[dict[str, Any]] = [] if self._records is None else list(self._records.by_index.values())
        self._known: dict[str, list[str]] = {record["image"]: record["labels"] for record in stored}

    def __call__(self, image: Image) -> list[str]:
        """Returns the labels of an image, from memory where they are known.

        Raises:
            RemoteError: Where the client does not answer after all the tries, or not with labels.
        """
        key = image_key(image)
        with self._lock:
            asking = self._asking.setdefault(key, Lock())
        with asking:
            if key not in self._known:
                self._keep(key, self._ask(image))
        return list(self._known[key])

    def _keep(self, key: str, labels: list[str]) -> None:
        with self._lock:
            if self._records is not None:
                # A number of the image's own, so that runs that share a file do not take each other's.
                self._records.add([{"index": int(key[:13], 16), "image": key, "labels": labels}])
            self._known[key] = labels

    def _ask(self, image: Image) -> list[str]:
        tries = 0
        passing: tuple[type[Exception], ...] = (RemoteError, *self._retry_on)
        while True:
            self._keep_to_the_rate()
            tries += 1
            try:
                return _checked(self._client(image), self.name)
            except passing as error:
                if isinstance(error, RemoteError) and not error.retry:
                    raise
                if tries > self._retries:
                    raise RemoteError(
                        f"expected labels from {self.name}, got {tries} failures, the last: {error}; what was "
                        "answered so far is kept: run again later, or give more retries or a lower rate",
                        retry=True,
                    ) from error
                asked = getattr(error, "wait", None)
                self._sleep(min(self._wait * 2 ** (tries - 1) if asked is None else float(asked), _LONGEST_WAIT))

    def _keep_to_the_rate(self) -> None:
        with self._lock:
            self.calls += 1
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._pause
        if now < turn:
            self._sleep(turn - now)


def image_key(image: Image) -> str:
    """Returns the SHA-256 over an image's kind, size and pixels."""
    digest = hashlib.sha256(f"{image.mode} {image.size}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _checked(labels: Any, name: str) -> list[str]:
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not all(isinstance(x, str) for x in labels):
        raise RemoteError(f"expected a list of labels (text), the likeliest first, from {name}, got {labels!r:.200}")
    return list(labels)
