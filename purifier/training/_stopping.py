"""Being asked to stop: by Ctrl-C, or by a system that ends the process."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """While it is entered, the first SIGINT or SIGTERM only sets `asked`; the second one acts as usual.

    In other threads than the main one, where Python takes no signals, nothing changes.

    Attributes:
        asked: The signal that came, or None.
    """

    asked: int | None = None

    def __enter__(self) -> Self:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            # None is a handler that is none of Python's.
            self._before = {number: signal.signal(number, self._note) or signal.SIG_DFL for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def obey(self) -> None:
        """Does what the signal that came does by itself, such as to raise KeyboardInterrupt."""
        self._restore()
        if self.asked is not None:
            signal.raise_signal(self.asked)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            self.obey()
        self.asked = number

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def leave_interrupts(worker: int) -> None:
    """Has a process that prepares crops leave Ctrl-C, which all processes of a terminal get, to the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
