"""The purification methods, one a file: mathematics only, no files and no trained weights.

`METHODS` names them; `describe` and `build` turn a method into JSON values and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from purifier._errors import OptionError, WeightsError, nearest
from purifier.methods._base import Method, Stage
from purifier.methods.alloy import Alloy
from purifier.methods.bit_depth import BitDepth
from purifier.methods.chain import Chain
from purifier.methods.gad import GAD
from purifier.methods.gated import Gated
from purifier.methods.gs import GaussianSmoothing
from purifier.methods.jpeg import JPEG
from purifier.methods.median import Median
from purifier.methods.ncis import NCIS
from purifier.methods.noise import ProjectedNoise
from purifier.methods.nrp import NRP, NRPResG
from purifier.methods.resize_pad import ResizePad
from purifier.methods.tvm import TVM

METHODS: dict[str, type[Method]] = {
    "alloy": Alloy,
    "bit-depth": BitDepth,
    "chain": Chain,
    "gad": GAD,
    "gated": Gated,
    "gs": GaussianSmoothing,
    "jpeg": JPEG,
    "median": Median,
    "ncis": NCIS,
    "noise": ProjectedNoise,
    "nrp": NRP,
    "nrp-resg": NRPResG,
    "resize-pad": ResizePad,
    "tvm": TVM,
}

__all__ = ["METHODS", "Method", "Stage", "build", "describe", "innermost", "leaves", "method_name"]


def method_name(method: Method) -> str:
    """Returns the name that `METHODS` has for a method."""
    return next(name for name, kind in METHODS.items() if type(method) is kind)


def describe(method: Method) -> dict[str, Any]:
    """Returns {"method": name, "options": {...}}, all JSON values."""
    return {"method": method_name(method), "options": method.options}


def build(description: Any) -> Method:
    """Builds the method that `describe` described, with fresh weights.

    Raises:
        WeightsError: Where the description names no method or options that the method does not have.
        OptionError: Where an option's value is out of its range.
    """
    name, given = _read(description)
    options = given
    if name == "chain":
        if not isinstance(options.get("links"), list):
            raise WeightsError(f"expected options of method 'chain' with a list of links, got {options}")
        options = {**options, "links": [build(link) for link in options["links"]]}
    if name == "gated":
        options = {**options, "method": build(options.get("method"))}
    try:
        return METHODS[name](**options)
    except TypeError as error:
        raise WeightsError(f"expected options of method {name!r}, got {given}: {error}") from None


def _read(description: Any) -> tuple[str, dict[str, Any]]:
    """Returns the method's name and its options, as they stand in a configuration that anybody may have written."""
    name, options = (description.get(key) if isinstance(description, dict) else None for key in ("method", "options"))
    if not isinstance(name, str) or name not in METHODS or not isinstance(options, dict):
        raise WeightsError(
            f"expected a configuration with a method out of {sorted(METHODS)} and its options, got "
            f"method={name!r}, options={options!r}; it may come from a newer version of purifier"
        )
    return name, options


def leaves(method: Method) -> Iterator[Method]:
    """Yields what is applied in turn: the method itself, or the links of a chain, however nested."""
    if isinstance(method, Chain):
        for link in method.methods:
            yield from leaves(link)
    else:
        yield method


def innermost(method: Method) -> Iterator[Method]:
    """Yields the methods that hold no other: the leaves, and in place of a gated one what is behind its gate."""
    for leaf in leaves(method):
        if isinstance(leaf, Gated):
            yield from innermost(leaf.method)
        else:
            yield leaf


def tune(description: Any, changes: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the description with some options changed that may be changed without training again.

    Options that are not the gate's own are those of the method behind it.

    Raises:
        WeightsError: Where the description names no method.
        OptionError: Where the method has no such option, or it is fixed by the trained weights.
    """
    method, options = _read(description)
    tunable = METHODS[method].tunable
    if method == "gated":
        behind = {option: value for option, value in changes.items() if option not in tunable}
        changes = {option: value for option, value in changes.items() if option in tunable}
        options = {**options, "method": tune(options.get("method"), behind, name)}
    for option in changes:
        if option in tunable:
            continue
        fixed = option in options
        why = "is fixed by the trained weights" if fixed else f"is unknown{nearest(option, tunable)}"
        expected = f"the options {', '.join(tunable)}" if tunable else "no options"
        raise OptionError(f"expected {expected} for {name!r}, got {option!r}, which {why}")
    return {**description, "options": {**options, **changes}}
