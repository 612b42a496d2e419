"""Attacks, purifiers and threat models written as text: NAME or NAME:key=value,key=value.

Values are integers, decimals, fractions (8/255), true, false, none, or text. An unknown name or option is refused with
the nearest known names. NAME can also be one's own, as "file.py:name" or "module:name".
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from purifier import attacks
from purifier._errors import OptionError, UnknownNameError, nearest
from purifier._purifier import Purifier
from purifier.attacks import Attack
from purifier.attacks.threats import ThreatModel
from purifier.evaluation.certified import Certification
from purifier.inference.precision import resolve_device, resolve_dtype
from purifier.methods import Method
from purifier.models.named import import_named

_T = TypeVar("_T")

_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}
# Options of `Purifier.dynamic`, beside the options of the method.
_DYNAMIC = ("dynamic", "sigma", "noise_eps")
# Options that cannot be given as text.
_OBJECTS = ("attack", "generator", "margin", "self")


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Parses NAME:key=value,key=value.

    Raises:
        OptionError: If the text has another form or states an option twice.

    Example:
        >>> parse("PGD:steps=10,eps=8/255,targeted=false")
        ('PGD', {'steps': 10, 'eps': 0.03137254901960784, 'targeted': False})
    """
    match = re.fullmatch(r"(?P<name>.+?)(?::(?P<options>\w+=.*))?", text.strip())
    if match is None:
        raise OptionError(f"expected NAME or NAME:key=value,key=value, got {text!r}")
    name, stated = match["name"], match["options"]
    options: dict[str, Any] = {}
    for part in stated.split(",") if stated else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise OptionError(f"expected key=value, got {part!r} in {text!r}")
        if key in options:
            raise OptionError(f"expected each option once, got {key} twice in {text!r}")
        options[key] = parse_value(value)
    return name, options


def parse_value(text: str) -> int | float | bool | str | None:
    """Parses one value.

    Example:
        >>> parse_value("3"), parse_value("0.5"), parse_value("1/4"), parse_value("true"), parse_value("L2")
        (3, 0.5, 0.25, True, 'L2')
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else text
    except (ValueError, ZeroDivisionError):
        return text


def parse_eps(text: str) -> float:
    """Parses a radius, such as "8/255" or "0.031".

    Raises:
        OptionError: If it is not a number, or is negative.
    """
    value = parse_value(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise OptionError(f"expected eps as a fraction such as 8/255 or a number such as 0.031, got {text!r}")
    return float(value)


def show_eps(eps: float | None) -> str:
    """Formats a radius: 8/255 if it is a multiple of 1/510, else a short decimal.

    Example:
        >>> show_eps(8 / 255), show_eps(0.5), show_eps(5.0)
        ('8/255', '0.5', '5')
    """
    if eps is None:
        return "–"
    levels = eps * 255
    if 0 < eps < 0.5 and abs(levels * 2 - round(levels * 2)) < 1e-6:
        return f"{levels:g}/255" if levels < 1e-6 or levels % 1 else f"{round(levels)}/255"
    return f"{eps:.4g}"


def attack_names() -> dict[str, type[Attack]]:
    """Returns the attacks that can be given as text, by name."""
    found = {name: getattr(attacks, name) for name in attacks.__all__}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type)
        and issubclass(kind, Attack)
        and not inspect.isabstract(kind)
        and not {"attack", "attacks"} & set(inspect.signature(kind).parameters)
    }


def make_attack(text: str, *, eps: float | None = None, device: str | torch.device = "cpu") -> Attack:
    """Builds an attack.

    Args:
        text: NAME:key=value, with the options of its class in `purifier.attacks`; SSP takes features=module:function,
            a function that returns the network. "file.py:A:key=value" names a class derived from `attacks.Attack`, or
            a function that returns an attack.
        eps: Radius, for an attack that has one and does not state its own.
        device: Where a network that the attack brings (SSP's features) goes.

    Raises:
        UnknownNameError: No attack goes by that name.
        OptionError: If an option is unknown, missing or out of its range.
    """
    name, options = parse(text)
    known = attack_names()
    if _is_own(name, known):
        known[name] = import_named(name, "attack")  # type: ignore[assignment]
    if name not in known:
        raise UnknownNameError(
            f"expected an attack out of {', '.join(sorted(known))}, got {name!r}{nearest(name, known)}"
        )
    kind = known[name]
    accepted = inspect.signature(kind).parameters
    choices = sorted(name for name, parameter in accepted.items() if _can_be_stated(name, parameter))
    _refuse_unknown(options, choices, f"attack {name}")
    # Attacks that search for a small perturbation are cut to a ball only if they say so.
    if eps is not None and "eps" in accepted and getattr(kind, "bounded", True):
        options.setdefault("eps", eps)
    if isinstance(options.get("features"), str):
        features = import_named(options["features"], "features")()
        options["features"] = features.to(device) if isinstance(features, torch.nn.Module) else features
    try:
        attack = kind(**options)
    except TypeError as error:
        raise OptionError(
            f"expected the options {', '.join(choices)} for attack {name}, got {text!r}: {error}"
        ) from None
    return _checked(attack, Attack, name)  # type: ignore[type-abstract]


def _can_be_stated(name: str, parameter: inspect.Parameter) -> bool:
    # The loss of APGD can be a name; the loss of the others is a function.
    return name not in _OBJECTS and not (name == "loss" and parameter.default is None)


def make_purifier(
    text: str, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> Purifier:
    """Builds a purifier.

    Args:
        text: NAME:key=value with options of `Purifier.from_pretrained`. "+" between purifiers applies them in turn;
            dynamic=true, sigma=0.05 and noise_eps=16/255 add projected noise first. "file.py:build:key=value" names a
            function, or a class derived from `Method`, that returns a purifier or a method.
        device: Device, unless the text states one.
        dtype: Dtype, unless the text states one.

    Raises:
        PurifierError: If `Purifier.from_pretrained` does not know the name or an option.
    """
    if "+" in text and not Path(text).is_dir():
        return Purifier.chain(*(make_purifier(part, device=device, dtype=dtype) for part in text.split("+")))
    name, options = parse(text)
    if taken := {"cls", "name"} & options.keys():
        raise OptionError(
            f"expected NAME:key=value with the name once, before the colon, got {taken.pop()!r} in {text!r}"
        )
    noise = {key: options.pop(key) for key in _DYNAMIC if key in options}
    if _is_own(name):
        purifier = _own_purifier(name, options).to(device=device, dtype=resolve_dtype(dtype, resolve_device(device)))
    else:
        purifier = Purifier.from_pretrained(name, **{"device": device, "dtype": dtype, **options})
    if not noise.pop("dynamic", False):
        if noise:
            raise OptionError(f"expected dynamic=true beside {', '.join(noise)}, got {text!r}")
        return purifier
    if "noise_eps" in noise:
        noise["eps"] = noise.pop("noise_eps")
    return purifier.dynamic(**noise)


def _is_own(name: str, known: Collection[str] = ()) -> bool:
    place, _, function = name.rpartition(":")
    return bool(place) and function.isidentifier() and place not in known and not Path(name).exists()


def _own_purifier(name: str, options: Mapping[str, Any]) -> Purifier:
    try:
        made = import_named(name, "purifier")(**options)
    except TypeError as error:
        raise OptionError(f"expected options that {name} takes, got {dict(options)}: {error}") from error
    return Purifier(made) if isinstance(made, Method) else _checked(made, Purifier, name)


def _checked(made: Any, kind: type[_T], name: str) -> _T:
    if not isinstance(made, kind):
        raise OptionError(f"expected {name} to return an object of {kind.__name__}, got {type(made).__name__}")
    return made


def make_threat(
    text: str, *, surrogates: Sequence[Callable[..., Any]] = (), names: Sequence[str] | None = None
) -> ThreatModel:
    """Builds a threat model: blind, transfer, aware or bpda.

    The last two take samples=N (EOT) and submissions=N, and "aware" also gate_weight=W. "transfer" takes
    average=logits, probabilities or losses.

    Args:
        text: NAME:key=value. "file.py:T" names a class derived from `attacks.ThreatModel`.
        surrogates: Models that "transfer" attacks instead of the evaluated model.
        names: Their names in result files.

    Raises:
        UnknownNameError: If there is no threat model of that name.
        OptionError: If an option is unknown, or "transfer" has no surrogate.
    """
    name, options = parse(text)
    kinds: Mapping[str, Any] = {
        "aware": attacks.Aware,
        "blind": attacks.Blind,
        "bpda": attacks.BPDA,
        "transfer": attacks.Transfer,
    }
    if _is_own(name, kinds):
        own = import_named(name, "threat")
        _refuse_unknown(options, sorted(inspect.signature(own).parameters), f"threat {name}")
        return _checked(own(**options), ThreatModel, name)  # type: ignore[type-abstract]
    if name not in kinds:
        raise UnknownNameError(f"expected a threat out of {', '.join(kinds)}, got {name!r}{nearest(name, kinds)}")
    direct = ["samples", "submissions"]
    known = {"aware": [*direct, "gate_weight"], "bpda": direct, "transfer": ["average"]}.get(name, [])
    _refuse_unknown(options, known, f"threat {name}")
    if name != "transfer":
        return kinds[name](**options)
    if not surrogates:
        raise OptionError("expected a surrogate for the threat transfer, got none; give --surrogate MODEL")
    return kinds[name](*surrogates, names=names, **options)


def make_certification(text: str) -> Certification:
    """Builds how images are certified, from certified:sigma=0.25,draws=1000,first_draws=100,alpha=0.001.

    Raises:
        OptionError: If an option is unknown or out of its range, or sigma is missing.
    """
    name, options = parse(text)
    _refuse_unknown(options, [option.name for option in fields(Certification)], f"threat {name}")
    if "sigma" not in options:
        raise OptionError(f"expected the noise of {name}, such as certified:sigma=0.25, got {text!r}")
    return Certification(**options)


def _refuse_unknown(options: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for option in options:
        if option not in known:
            expected = f"the options {', '.join(known)}" if known else "no options"
            raise OptionError(f"expected {expected} for {what}, got {option!r}{nearest(option, known)}")
