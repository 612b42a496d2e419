"""The one-line forms of extractors and sources, read and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from purifier._errors import OptionError

Attack = Literal["ssp", "kl", "l2", "mi", "di", "square"]
Noise = Literal["gaussian", "sign", "none"]

# What the log calls the losses beside those of extractors.
_OTHER_LOSSES = {"pixel", "teacher", "beliefs", "gate", "adversarial"}
_EXTRACTOR = re.compile(r"(?P<name>[\w-]+)=(?P<model>[^@]+?)(?:@(?P<layers>[^:@]+))?:(?P<weight>[^:@]+)")
_STEPS = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class ExtractorLine:
    """An extractor as a configuration states it.

    Attributes:
        name: What sources and the log call it.
        model: "vgg16", "reference:NAME" or "module:function".
        layers: Names of modules inside; none for the model's own output.
        weight: Weight of its feature loss.
    """

    name: str
    model: str
    layers: tuple[str, ...]
    weight: float


@dataclass(frozen=True)
class SourceLine:
    """A source of spoilt images as a configuration states it.

    Attributes:
        kind: An attack or a noise.
        extractor: Name of the extractor that is attacked, "*" for all; "" for noise.
        share: How often it is drawn, relative to the others.
        steps: Fewest and most steps of an attack.
    """

    kind: Attack | Noise
    extractor: str
    share: float
    steps: tuple[int, int]


def read_extractors(lines: Sequence[str]) -> list[ExtractorLine]:
    """Reads the extractors of a configuration.

    Raises:
        OptionError: Where a line has another form, or two have one name, or one that a loss without extractors has.
    """
    found = [_extractor(line) for line in lines]
    names = [one.name for one in found]
    taken = sorted(set(names) & _OTHER_LOSSES)
    if taken:
        raise OptionError(f"expected extractors with names of their own, got {', '.join(taken)}, a loss; rename it")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"expected extractors with names of their own, got {', '.join(twice)} twice; rename one")
    return found


def read_sources(lines: Sequence[str]) -> list[SourceLine]:
    """Reads the sources of a configuration.

    Raises:
        OptionError: Where a line has another form, or no source has a share.
    """
    found = [_source(line) for line in lines]
    if not sum(one.share for one in found):
        raise OptionError(f"expected sources with a share above 0, got {list(lines)}; add 'none:1' for clean images")
    return found


def _extractor(line: str) -> ExtractorLine:
    match = _EXTRACTOR.fullmatch(line)
    weight = _number(match["weight"]) if match else None
    if match is None or weight is None:
        raise OptionError(
            "expected an extractor as NAME=MODEL[@LAYER[+LAYER]]:WEIGHT, such as 'mine=my_module:build@layer3:0.25', "
            f"got {line!r}; MODEL is vgg16, reference:demo or module:function, WEIGHT a number of at least 0"
        )
    return ExtractorLine(match["name"], match["model"], _names(match["layers"]), weight)


def _source(line: str) -> SourceLine:
    kind, *rest = line.split(":")
    attack = kind in get_args(Attack)
    known = attack or kind in get_args(Noise)
    share = _number(rest[1 if attack else 0]) if known and len(rest) == (3 if attack else 1) else None
    steps = _steps(rest[2]) if attack and share is not None else (0, 0)
    if share is None or steps is None:
        raise OptionError(
            f"expected a source as ATTACK:EXTRACTOR:SHARE:STEPS, ATTACK one of {', '.join(get_args(Attack))}, or as "
            f"NOISE:SHARE, NOISE one of {', '.join(get_args(Noise))}, such as 'ssp:vgg:0.3:2-3' and 'none:0.1', got "
            f"{line!r}; SHARE is a number of at least 0, STEPS a number of at least 1 or a range"
        )
    return SourceLine(kind, rest[0] if attack else "", share, steps)  # type: ignore[arg-type]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def _steps(text: str) -> tuple[int, int] | None:
    match = _STEPS.fullmatch(text)
    if match is None:
        return None
    low, high = int(match[1]), int(match[2] or match[1])
    return (low, high) if 1 <= low <= high else None


def _names(layers: str | None) -> tuple[str, ...]:
    return tuple(layers.split("+")) if layers else ()
