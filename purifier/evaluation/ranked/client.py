"""A service that is asked for labels, and a record of its answers, so that none is asked for twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from purifier._errors import InputError, shown
from purifier._images import to_uint8
from purifier._records import Records

# Maps a picture to its labels, the likeliest first.
Client = Callable[[Image.Image], Sequence[str]]
Labels = tuple[str, ...]


class Asked:
    """A client whose answers are written to records.

    Args:
        client: The client. It encodes pictures, sends them and tries again as its service needs.
        k: Number of labels that are kept.
        per_second: Largest number of calls a second; 0 means no limit.
        progress: Called with 1 after each answer.

    Attributes:
        calls: Number of calls of the client so far.
    """

    def __init__(self, client: Client, *, k: int, per_second: float, progress: Callable[[int], object]) -> None:
        self._client, self._k, self._progress = client, k, progress
        self._pause = 1 / per_second if per_second else 0.0
        self._next = 0.0
        self.calls = 0

    def __call__(self, records: Records, index: int, image: Callable[[], Tensor], **facts: Any) -> Labels:
        """Returns the labels of a picture: those on record, or else the client's, which are recorded.

        Args:
            records: The record.
            index: Number of the answer in it.
            image: Makes the picture, (3, H, W) in [0, 1]; its values are rounded to 8 bits.
            **facts: What else to record.

        Raises:
            InputError: If the client fails, or answers with something else than a list of labels.
        """
        if index not in records.by_index:
            records.add([{"index": index, **facts, "labels": self._ask(image())}])
        self._progress(1)
        labels: Any = records.by_index[index].get("labels")
        if not _are_labels(labels):
            raise InputError(
                f"expected labels of answer {index} in {records.path}, got {shown(labels)}; delete the file"
            )
        return tuple(labels)

    def _ask(self, image: Tensor) -> list[str]:
        picture = Image.fromarray(to_uint8(image.detach().float().cpu().clamp(0, 1)))
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self._pause
        self.calls += 1
        try:
            found = self._client(picture)
        except Exception as error:
            raise InputError(
                f"expected ranked labels from the client, got {shown(error)}; the answers so far are kept, and the "
                "same call goes on from there"
            ) from error
        if not _are_labels(found):
            raise InputError(
                f"expected a list of labels, the likeliest first, from the client, got {shown(found)}; return a list "
                "of texts, without scores"
            )
        return list(dict.fromkeys(map(str, found)))[: self._k]


def _are_labels(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(one, str) for one in given)
