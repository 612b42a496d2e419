"""Command-line options that several commands share, and what is built from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from purifier import _hub
from purifier._errors import OptionError

if TYPE_CHECKING:
    from purifier.attacks import Attack, ThreatModel
    from purifier.evaluation import Certification

MODEL_HELP = (
    "reference:demo; torchvision:NAME or timm:NAME, with @FILE for local weights; or module:function or "
    "file.py:function that returns a model of images in [0, 1]."
)
DATA_HELP = (
    "Folder of images: one folder per class, named after the class or by its number in the model; otherwise as many "
    "folders as classes, in sorted order. Or any folder of images, with --labels."
)
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
dtype_option = click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
batch_size_option = click.option(
    "--batch-size", default=8, show_default=True, type=click.IntRange(1), help="Images in a batch; all have one size."
)
iterations_option = click.option("--iterations", type=int, help="How often the method is applied (gs, ncis and alloy).")


def given(**options: Any) -> dict[str, Any]:
    """Returns the options that are not None: those that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def build_attacks(texts: Sequence[str], eps: Sequence[str], device: Any) -> dict[str, Attack]:
    """Builds every attack at every radius, by its name in results.

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
    """Builds every threat model, by its name in results."""
    from purifier.evaluation.specs import make_threat
    from purifier.models.loading import load_model

    models = [load_model(spec, device=device) for spec in surrogates]
    if models and not any(_threat_name(text) == "transfer" for text in texts):
        raise OptionError("expected --threat transfer beside --surrogate, got none; add it")
    calls: list[Callable[..., Any]] = [model.call for model in models]
    return {text: make_threat(text, surrogates=calls, names=[model.name for model in models]) for text in texts}


def build_certifications(texts: Sequence[str]) -> dict[str, Certification]:
    """Builds what `--threat certified:...` states, by its name in results."""
    from purifier.evaluation.specs import make_certification

    return {text: make_certification(text) for text in texts}


def is_certified(text: str) -> bool:
    """Whether a --threat is no threat model, but asks for certificates."""
    return _threat_name(text) == "certified"


def _threat_name(text: str) -> str:
    return text.partition(":")[0].strip()


def build_purifiers(texts: Sequence[str], device: Any, dtype: str) -> Mapping[str, Any]:
    """Builds every purifier, by its name in results."""
    from purifier.evaluation.specs import make_purifier

    # "auto" is float32 here: with bfloat16, results would depend on the machine and gradients be coarse.
    precise = "float32" if dtype == "auto" else _DTYPES.get(dtype, dtype)
    return {loaded_name(text): make_purifier(text, device=device, dtype=precise) for text in texts}


def loaded_name(text: str) -> str:
    """Returns a purifier's text with the name of the network that is loaded, such as nrp-resg for nrp."""
    if "+" in text and not Path(text).is_dir():
        return "+".join(map(loaded_name, text.split("+")))
    name, colon, options = text.strip().partition(":")
    if name not in _hub.list_purifiers() or _hub.is_trained(name):
        return text
    return f"{_hub.bundled_config(name)['stand_in']}{colon}{options}"


def long_dtypes(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the full names of dtypes: bfloat16 for bf16."""
    return tuple(_DTYPES.get(name, name) for name in names)
