"""Identity of attacks and threat models in result files: their options, with hashes of networks and functions."""

from __future__ import annotations

from typing import Any

from torch import nn

from purifier._identity import model_identity
from purifier.attacks.base import Attack
from purifier.attacks.threats import ThreatModel


def attack_settings(attack: Attack) -> dict[str, Any]:
    """Returns everything that an attack depends on, fit for JSON; hashes for networks and the user's functions."""
    settings = attack.settings()
    for name in settings:
        value = getattr(attack, name, None)
        if isinstance(value, Attack):
            settings[name] = attack_settings(value)
        elif callable(value) and (name == "features" or not _ours(value)):
            settings[name] = model_identity(value)
    return settings


def threat_settings(threat: ThreatModel) -> dict[str, Any]:
    """Returns everything that a threat model depends on, fit for JSON; hashes for surrogates and substitutes."""
    settings = threat.settings()
    surrogates = [model_identity(surrogate) for surrogate in getattr(threat, "surrogates", ())]
    if surrogates:
        settings["models"] = surrogates
    substitute = getattr(threat, "substitute", None)
    if substitute is not None:
        settings["substitute"] = model_identity(substitute)
    return settings


def _ours(function: Any) -> bool:
    """Whether a function belongs to this library, so that its name identifies it."""
    module = getattr(function, "__module__", None) or type(function).__module__
    return module.startswith("purifier.") and not isinstance(function, nn.Module)
