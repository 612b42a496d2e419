"""Which attack runs under which threat model against which purifiers: the cells of an evaluation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from purifier._errors import InputError, OptionError, shown
from purifier._scoring import has_gate
from purifier.attacks import SSP, Attack, Blind, Transfer
from purifier.attacks.threats import ThreatModel
from purifier.data.sets import ImageSet
from purifier.evaluation.rows import AWARE_THREATS, CLEAN, KNOWLEDGE
from purifier.models.loading import LoadedModel

UNDEFENDED = "none"


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """Images that were attacked beforehand; they take the place of an attack in `evaluate`.

    Attributes:
        images: The attacked images in the order of the clean ones: a tensor (N, 3, H, W) in [0, 1], a list of
            (3, H, W), or an image set, whose targets are ignored.
        attack: The attack that made them; tables and result files state its options.
        threat: What that attacker knew: `Blind` or `Transfer`.
    """

    images: Tensor | Sequence[Tensor] | ImageSet
    attack: Attack
    threat: Blind | Transfer = field(default_factory=Blind)

    def load(self, indices: Sequence[int], clean: Any) -> Any:
        """Returns some of the images, in the form of the clean ones.

        Raises:
            InputError: If their shapes are not those of the clean images.
        """
        if isinstance(self.images, ImageSet):
            found = self.images.load(indices)[0]
        else:
            found = [self.images[index] for index in indices]
        shapes = [[tuple(image.shape) for image in images] for images in (clean, found)]
        if shapes[0] != shapes[1]:
            raise InputError(f"expected attacked images of the clean images' shapes, {shapes[0]}, got {shapes[1]}")
        return torch.stack(list(found)).to(clean) if isinstance(clean, Tensor) else list(found)

    def fingerprint(self) -> str:
        """Returns a SHA-256 of the images."""
        if isinstance(self.images, ImageSet):
            return self.images.fingerprint()
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.dtype} {tuple(image.shape)}".encode())
            digest.update(image.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Cell:
    """One attack under one threat model. All of the cell's purifiers are evaluated on the same attacked images.

    Attributes:
        name: Unique, and fit for a file name.
        attack_key: The user's name of the attack.
        attack: The attack; None for clean images.
        threat_key: The user's name of the threat model.
        threat: The threat model; None for clean images.
        purifiers: Names of the purifiers. An aware attack has one, which it also attacks.
        attacked: The images, if they were attacked beforehand.
    """

    name: str
    attack_key: str
    attack: Attack | None
    threat_key: str
    threat: ThreatModel | None
    purifiers: tuple[str, ...]
    attacked: Attacked | None = None

    @property
    def target(self) -> str:
        """Name of the purifier that the attack sees; "none" if it sees the bare model."""
        return self.purifiers[0] if self.threat is not None and self.threat.name in AWARE_THREATS else UNDEFENDED


@dataclass(frozen=True)
class Skipped:
    """A combination that was not measured because its figure would mean nothing, and the reason."""

    attack: str
    threat: str
    purifier: str
    reason: str


def check_arguments(model: Any, purifiers: Any, attacks: Any, threats: Any) -> None:
    """Checks the kinds of what is evaluated.

    Raises:
        OptionError: If the model cannot be called, or the others are not dicts, by name, of what they should hold.
    """
    if not (callable(model) or isinstance(model, LoadedModel)):
        raise OptionError(f"expected a model or a function of images, got {shown(model)}")
    check_named("purifiers", purifiers, "Purifier", lambda one: callable(getattr(one, "purify", None)))
    check_named("attacks", attacks, "Attack or Attacked", lambda one: isinstance(one, Attack | Attacked))
    check_named("threats", threats, "ThreatModel", lambda one: isinstance(one, ThreatModel))


def check_named(name: str, given: Any, wanted: str, fits: Callable[[Any], bool]) -> None:
    """Checks that things are given as a dict from names to what fits.

    Raises:
        OptionError: If they are something else.
    """
    if not isinstance(given, Mapping):
        raise OptionError(f"expected {name} as a dict from names to {wanted}, got {shown(given)}")
    for key, value in given.items():
        if not isinstance(key, str) or not fits(value):
            raise OptionError(f"expected {name} as a dict from names to {wanted}, got {shown(key)}: {shown(value)}")


def plan(
    purifiers: Mapping[str, Any], attacks: Mapping[str, Attack | Attacked], threats: Mapping[str, ThreatModel]
) -> tuple[list[Cell], list[Skipped]]:
    """Returns the cells of an evaluation, clean images first, and the combinations that are skipped.

    An attack that does not know the purifier runs once for all purifiers; an aware attack runs once for each.

    Raises:
        OptionError: If a purifier has the name of the bare model, or a threat model does not say what it knows.
    """
    if UNDEFENDED in purifiers:
        raise OptionError(f"expected purifiers by other names than {UNDEFENDED!r}, which is the bare model; rename it")
    for key, threat in threats.items():
        if getattr(threat, "name", None) not in KNOWLEDGE:
            raise OptionError(
                f"expected a threat model whose `name` says what the attacker knows ({', '.join(KNOWLEDGE)}), got "
                f"{getattr(threat, 'name', type(threat).__name__)!r} for {key!r}; give the class such a name"
            )
    everyone = (UNDEFENDED, *purifiers)
    cells, skipped = [Cell(CLEAN, CLEAN, None, UNDEFENDED, None, everyone)], []
    for attack_key, attack in attacks.items():
        if isinstance(attack, Attacked):
            key = attack.threat.name
            cell = f"{key}--{attack_key}"
            cells.append(Cell(cell, attack_key, attack.attack, key, attack.threat, everyone, attack))
            continue
        for threat_key, threat in threats.items():
            if threat.name not in AWARE_THREATS:
                cells.append(Cell(f"{threat_key}--{attack_key}", attack_key, attack, threat_key, threat, everyone))
                continue
            for name, purifier in purifiers.items():
                if reason := _pointless(attack, threat, purifier):
                    skipped.append(Skipped(attack_key, threat_key, name, reason))
                else:
                    cell = f"{threat_key}--{name}--{attack_key}"
                    cells.append(Cell(cell, attack_key, attack, threat_key, threat, (name,)))
    return list(_with_file_names(cells)), skipped


def _pointless(attack: Attack, threat: ThreatModel, purifier: Any) -> str | None:
    if getattr(threat, "gate_weight", 0) and not has_gate(purifier):
        return "the purifier has no gate to hide from"
    if isinstance(attack, SSP):
        return "SSP uses neither the model nor the purifier, so an aware attacker gains nothing; see its blind figure"
    if attack.gradient and threat.name == "aware" and not getattr(purifier, "differentiable", True):
        return "the purifier's exact gradient is zero almost everywhere; use the threat bpda"
    if not attack.gradient and threat.name == "bpda":
        return "the attack uses no gradient; use the threat aware"
    return None


def _with_file_names(cells: Sequence[Cell]) -> Iterator[Cell]:
    used: set[str] = set()
    for cell in cells:
        # "8/255" becomes "8_255"; the path of a purifier's folder becomes one word.
        base = re.sub(r"[^\w=.+-]+", "-", cell.name.replace("/", "_")).strip("-.")
        name, number = base, 2
        # Some file systems do not distinguish upper and lower case.
        while name.casefold() in used:
            name, number = f"{base}~{number}", number + 1
        used.add(name.casefold())
        yield replace(cell, name=name)
