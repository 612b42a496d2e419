"""What a self-check is, and what it says when it is raised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that makes a figure doubtful.

    Attributes:
        check: The check's name.
        raised_if: The condition under which it is raised.
        explanation: Why that matters, and what to do.
        measured: What was measured here.
    """

    check: str
    raised_if: str
    explanation: str
    measured: str

    def __str__(self) -> str:
        return f"{self.check}: {self.measured}. {self.explanation}"


@dataclass(frozen=True)
class Check:
    """A check's fixed text, so that a report can also list the checks that were not raised.

    Attributes:
        name: The check's name.
        raised_if: The condition under which it is raised.
        explanation: Why that matters, and what to do.
    """

    name: str
    raised_if: str
    explanation: str

    def found(self, measured: str) -> Finding:
        """Returns the finding for what was measured."""
        return Finding(self.name, self.raised_if, self.explanation, measured)
