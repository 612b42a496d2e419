"""Command-line options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purifier._errors import OptionError

if TYPE_CHECKING:
    from purifier.attacks import Attack, ThreatModel

MODEL_HELP = (
    "reference:demo; torchvision:NAME or timm:NAME, with @FILE for local weights; or module:function or "
    "file.py:function that returns a model of images in [0, 1]."
)
DATA_HELP = (
    "Folder of images, with a folder for each class, named after the class or its number (or as many folders as "
    "classes, in sorted order), or with --labels."
)


def build_attacks(texts: Sequence[str], eps: Sequence[str], device: Any) -> dict[str, Attack]:
    """Builds every attack at every radius, by the name it goes by in results.

    An attack that states its own eps, or that has none, is built once.
    """
    from purifier.evaluation.specs import make_attack, parse, parse_eps, show_eps

    radii = [parse_eps(text) for text in eps]
    built: dict[str, Attack] = {}
    for text in texts:
        attack = make_attack(text, eps=radii[0] if radii else None, device=device)
        if not attack.bounded or "eps" in parse(text)[1]:
            built[text] = attack
            continue
        for radius in radii:
            built[f"{text} eps={show_eps(radius)}"] = make_attack(text, eps=radius, device=device)
    return built


def build_threats(texts: Sequence[str], surrogates: Sequence[str], device: Any) -> dict[str, ThreatModel]:
    """Builds every threat model, by the name it goes by in results."""
    from purifier.evaluation.specs import make_threat
    from purifier.models.loading import load_model

    models = [load_model(spec, device=device) for spec in surrogates]
    if models and "transfer" not in texts:
        raise OptionError("expected --threat transfer beside --surrogate, got none; add it")
    calls: list[Callable[..., Any]] = [model.call for model in models]
    return {text: make_threat(text, surrogates=calls, names=[model.name for model in models]) for text in texts}


def build_purifiers(texts: Sequence[str], device: Any, dtype: str) -> Mapping[str, Any]:
    """Builds every purifier, by the name it goes by in results."""
    from purifier.evaluation.specs import make_purifier

    # Not bfloat16 where that is fast, as elsewhere: figures would depend on the machine, and gradients be coarse.
    precise = "float32" if dtype == "auto" else _LONG.get(dtype, dtype)
    return {loaded_name(text): make_purifier(text, device=device, dtype=precise) for text in texts}


def loaded_name(text: str) -> str:
    """Returns a purifier's text with the network that loads: nrp-resg for nrp, where that stands in for it."""
    from purifier import _hub

    if "+" in text and not Path(text).is_dir():
        return "+".join(map(loaded_name, text.split("+")))
    name, colon, options = text.strip().partition(":")
    if name not in _hub.list_purifiers() or _hub.is_trained(name):
        return text
    return f"{_hub.bundled_config(name)['stand_in']}{colon}{options}"


_LONG = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def long_dtypes(names: Sequence[str]) -> tuple[str, ...]:
    """Returns dtypes by their full names: bf16 is bfloat16."""
    return tuple(_LONG.get(name, name) for name in names)
