"""Self-checks and their findings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A check that was raised: a reason to doubt a figure.

    Attributes:
        check: The check's name.
        raised_if: The condition that raises it.
        explanation: Why the condition matters, and what to do.
        measured: The measurement that raised it.
    """

    check: str
    raised_if: str
    explanation: str
    measured: str

    def __str__(self) -> str:
        return f"{self.check}: {self.measured}. {self.explanation}"


@dataclass(frozen=True)
class Check:
    """The fixed text of a check; a report also lists the checks that found nothing. See `Finding` for the fields."""

    name: str
    raised_if: str
    explanation: str

    def found(self, measured: str) -> Finding:
        """Returns the finding for a measurement."""
        return Finding(self.name, self.raised_if, self.explanation, measured)
