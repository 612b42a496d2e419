"""The bar of long runs: many steps and a terminal, or nothing."""

import io
import sys

import pytest

from purifier.attacks import PGD
from tests.attacks.victims import examples, trained


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "restarts", "shown"), [(Terminal, 40, True), (Terminal, 39, False), (io.StringIO, 40, False)]
)
def test_a_bar_shows_for_200_steps_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], restarts: int, shown: bool
) -> None:
    target = stream()
    monkeypatch.setattr(sys, "stderr", target)
    PGD(steps=5, restarts=restarts)(trained(), *examples(1))
    assert ("PGD" in target.getvalue()) == shown
