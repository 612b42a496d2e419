"""The purification methods, one per file: mathematics only, no files and no trained weights.

`METHODS` maps their names to their classes. `describe` encodes a method as JSON values and `build` decodes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from purifier._errors import OptionError, WeightsError, nearest, short, shown, warn_once
from purifier.methods._base import Method, Stage, innermost
from purifier.methods.alloy import Alloy
from purifier.methods.bit_depth import BitDepth
from purifier.methods.chain import Chain
from purifier.methods.gad import GAD
from purifier.methods.gad_residual import GADResidual
from purifier.methods.gated import Gated
from purifier.methods.gs import GaussianSmoothing
from purifier.methods.jpeg import JPEG
from purifier.methods.median import Median
from purifier.methods.ncis import NCIS
from purifier.methods.noise import ProjectedNoise
from purifier.methods.nrp import NRP, NRPResG
from purifier.methods.random_resize_pad import RandomResizePad
from purifier.methods.resize_pad import ResizePad
from purifier.methods.tvm import TVM
from purifier.methods.wavelet_sr import WaveletSR

METHODS: dict[str, type[Method]] = {
    "alloy": Alloy,
    "bit-depth": BitDepth,
    "chain": Chain,
    "gad": GAD,
    "gad-residual": GADResidual,
    "gated": Gated,
    "gs": GaussianSmoothing,
    "jpeg": JPEG,
    "median": Median,
    "ncis": NCIS,
    "noise": ProjectedNoise,
    "nrp": NRP,
    "nrp-resg": NRPResG,
    "random-resize-pad": RandomResizePad,
    "resize-pad": ResizePad,
    "tvm": TVM,
    "wavelet-sr": WaveletSR,
}

# Former names of options, which are still read. For 0.1's folders; remove it with the next format.
FORMER = {"caution": "gate_bias"}

# Packages offer methods of their own as entry points of this group: NAME = module:Class.
ENTRY_POINTS = "purifier.methods"

# Methods in one configuration. `Chain` allows fewer; a gate or noise may come on top.
_MOST_METHODS = 80

__all__ = [
    "METHODS", "Method", "Stage", "build", "check_extent", "describe", "innermost", "method_name", "register", "tune",
]  # fmt: skip


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Registers a method of your own, so that purifiers of it can be saved, loaded, chained and gated.

    Loading a folder needs the registration too: import the module first, or let your package offer the class as an
    entry point of the group "purifier.methods". No code comes from the folder.

    Args:
        name: What config.json calls the method: letters, digits, "-" and "_".

    Returns:
        A class decorator. The class derives from `Method`; its `options` are the keyword arguments of its constructor.

    Raises:
        OptionError: If the name has another form or another class has it, or the class is not such a method.

    Example:
        >>> from purifier import Method, Purifier, Stage, register
        >>> @register("half-way-to-grey")
        ... class HalfWayToGrey(Method):
        ...     options = {}
        ...     def stages(self):
        ...         return [Stage(lambda images: (images + images.mean(1, keepdim=True)) / 2, halo=0)]
        >>> Purifier(HalfWayToGrey()).name
        'half-way-to-grey'
    """
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", name)):
        raise OptionError(f"expected a name of letters, digits, '-' and '_', at most 64, to register, got {name!r}")

    def decorate(kind: type[Method]) -> type[Method]:
        derived = isinstance(kind, type) and issubclass(kind, Method)
        if not derived or kind.options is Method.options or kind.stages is Method.stages:
            raise OptionError(
                f"expected a class derived from purifier.Method, with options and stages, to register as {name!r}, got "
                f"{kind!r}"
            )
        # A module that is imported again, as in a notebook, replaces its own class.
        known = METHODS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
            raise OptionError(
                f"expected a new name for {kind.__qualname__}, got {name!r}, which is {known.__qualname__}"
            )
        METHODS[name] = kind
        return kind

    return decorate


def method_name(method: Method) -> str:
    """Returns the name of a method in `METHODS`; if its class is not registered, the name of the class."""
    kind = type(method)
    return next((name for name, known in METHODS.items() if kind is known), kind.__name__)


def find_method(name: str) -> type[Method] | None:
    """Returns the class of a method, which an installed package may offer, or None."""
    if name not in METHODS:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            register(name)(entry.load())
    return METHODS.get(name)


def describe(method: Method) -> dict[str, Any]:
    """Returns {"method": name, "options": {...}}, all JSON values. Methods among the options are described likewise.

    Raises:
        OptionError: If the class of a method is not registered.
    """
    if type(method) not in METHODS.values():
        kind = type(method).__qualname__
        raise OptionError(
            f'expected a registered method, got {kind}; put @purifier.register("a-name") above its class, so that it '
            "can be saved, loaded and told apart in results"
        )
    return {"method": method_name(method), "options": {key: _encode(value) for key, value in method.options.items()}}


def _encode(value: Any) -> Any:
    if isinstance(value, list):
        return [_encode(part) for part in value]
    return describe(value) if isinstance(value, Method) else value


def check_extent(description: Any, source: str) -> None:
    """Checks that a configuration, which may hold anything, has no more methods inside it than a purifier can have.

    Args:
        description: The output of `describe`, or a config.json.
        source: Where it came from, for the message.

    Raises:
        WeightsError: If it has more.
    """
    level, count = [description], 0
    while level:
        count += sum(isinstance(one, dict) and "method" in one for one in level)
        if count > _MOST_METHODS:
            raise WeightsError(f"expected at most {_MOST_METHODS} methods in {source!r}, got more; split the chain")
        parts = [list(one.values()) if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [part for several in parts for part in several]


def build(description: Any) -> Method:
    """Builds a method from the output of `describe`, with new random weights.

    Raises:
        WeightsError: If the description names no known method, or options that the method does not have.
        OptionError: If an option's value is out of its range.
    """
    name, options = _read(description)
    decoded = {key: _decode(value) for key, value in options.items()}
    try:
        return METHODS[name](**decoded)
    except TypeError as error:
        raise WeightsError(f"expected options of method {name!r}, got {shown(options)}: {short(error)}") from None


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(part) for part in value]
    return build(value) if isinstance(value, dict) else value


def _read(description: Any) -> tuple[str, dict[str, Any]]:
    """Returns the name and the options of a method from a configuration, which may hold anything."""
    name, options = (description.get(key) if isinstance(description, dict) else None for key in ("method", "options"))
    if not isinstance(name, str) or find_method(name) is None or not isinstance(options, dict):
        raise WeightsError(
            f"expected a configuration with a method out of {sorted(METHODS)} and its options, got "
            f"method={shown(name)}, options={shown(options)}; it may come from a newer version of purifier, or from a "
            "package that registers its method"
        )
    return name, _renamed(options, METHODS[name])


def _renamed(options: dict[str, Any], kind: type[Method]) -> dict[str, Any]:
    """Returns the options under their present names."""
    former = {old: new for old, new in FORMER.items() if new in kind.tunable}
    return {former.get(key, key): value for key, value in options.items()}


def tune(description: Any, changes: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the description with some options changed. Only options that need no new training can be changed.

    Options that are not tunable in a method are passed on to the one method inside it, if there is one.

    Args:
        description: The output of `describe`, or a config.json.
        changes: New values of the options.
        name: Name of the purifier, for messages.

    Raises:
        WeightsError: If the description names no known method.
        OptionError: If the method has no such option, or if the trained weights fix it.
    """
    method, options = _read(description)
    tunable = METHODS[method].tunable
    changes, given = _renamed(changes, METHODS[method]), changes
    for old in given.keys() - changes.keys():
        warn_once(f"the option {old!r} is now called {FORMER[old]!r}; use that name. Shown once", stacklevel=4)
    nested = [key for key, value in options.items() if isinstance(value, dict)]
    if nested:
        inner = {option: value for option, value in changes.items() if option not in tunable}
        changes = {option: value for option, value in changes.items() if option in tunable}
        options = {**options, **{key: tune(options[key], inner, name) for key in nested}}
    for option in changes:
        if option in tunable:
            continue
        fixed = option in options
        why = "is fixed by the trained weights" if fixed else f"is unknown{nearest(option, tunable)}"
        expected = f"the options {', '.join(tunable)}" if tunable else "no options"
        raise OptionError(f"expected {expected} for {name!r}, got {option!r}, which {why}")
    return {**description, "options": {**options, **changes}}
