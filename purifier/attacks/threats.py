"""Threat models: what an attacker knows of a defended model, from nothing about the purifier to everything.

Attacks and images are always RGB in [0, 1]. A defended model of normalised or BGR images is attacked through that. A
figure under a blind or transfer threat says nothing about attackers who know the purifier: state `Aware` beside it, and
`BPDA` if the purifier is not differentiable.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from purifier._attaching import as_purified_model
from purifier._convention import Convention
from purifier._errors import InputError, OptionError, PurifierWarning, shown
from purifier._options import check_fields, check_integer, check_number
from purifier._purified_model import PurifiedModel
from purifier.attacks._hiding import hiding
from purifier.attacks.base import Attack, plain
from purifier.attacks.bpda import straight_through, through_floors
from purifier.attacks.ensemble import Ensemble, check_models
from purifier.attacks.eot import averaged, on_mean_loss
from purifier.attacks.losses import logits_in
from purifier.models.layers import check_eval
from purifier.models.normalised import Normalised, Reversed

Average = Literal["logits", "probabilities", "losses"]


@dataclass(kw_only=True, eq=False, repr=False)
class ThreatModel(ABC):
    """Base of the threat models: `threat(attack, defended, images, targets) -> images`.

    A threat model of your own is a subclass. Its options are keyword-only dataclass fields.

    Attributes:
        name: What the attacker knows, for tables: "blind", "transfer", "aware" or "bpda". Evaluations run a threat
            model called "aware" or "bpda" once for each purifier, and the others once for all.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def __call__(self, attack: Attack, defended: Callable[..., Any], images: Any, targets: Any) -> Any:
        """Returns adversarial images, detached, in [0, 1]. Model and purifier do not change.

        Args:
            attack: The attack.
            defended: The model behind its purifier: what `purifier.wrap` returned, or a model with one attached.
            images: (N, 3, H, W), RGB in [0, 1], even if the defended model takes normalised or BGR images; for
                detection also a list of (3, H, W).
            targets: The attack's targets, such as labels (N,).

        Raises:
            InputError: If these do not fit together.
        """

    def settings(self) -> dict[str, Any]:
        """Returns the name and every option, fit for JSON."""
        return {"name": self.name} | {option.name: plain(getattr(self, option.name)) for option in fields(self)}

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.settings().items() if key != "name")
        return f"{type(self).__name__}({options})"


class Blind(ThreatModel):
    """Purifier-blind: the attacker has the model and its gradients, and does not know of the purifier.

    Example:
        >>> import torch
        >>> from purifier import Purifier, attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> defended = Purifier.from_pretrained("gs").wrap(model)
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> attacks.Blind()(attacks.PGD(steps=2), defended, images, labels).shape
        torch.Size([4, 3, 8, 8])
    """

    name = "blind"

    def __call__(self, attack: Attack, defended: Callable[..., Any], images: Any, targets: Any) -> Any:
        """See `ThreatModel`; the purifier is never called."""
        return _check_attack(attack)(bare_model(defended), images, targets)


class Transfer(ThreatModel):
    """The attacker has other models of the same task, but neither the model nor the purifier.

    Args:
        *surrogates: Models of images in [0, 1]. Several are attacked together, as an ensemble.
        average: "logits" for the mean logits, "probabilities" for the logarithm of the mean probabilities, or "losses"
            for the mean of the attack's loss over the surrogates, whose outputs may then differ in shape. "losses"
            needs an attack that climbs a loss, such as PGD.
        names: Names of the surrogates for result files. None means the names of their classes.

    Raises:
        OptionError: If there is no surrogate, or not one name for each.
    """

    name = "transfer"

    def __init__(
        self, *surrogates: Callable[..., Any], average: Average = "logits", names: Sequence[str] | None = None
    ) -> None:
        check_models(surrogates, "Transfer")
        if average not in get_args(Average):
            raise OptionError(
                f"expected average='logits', average='probabilities' or average='losses', got {average!r}"
            )
        if names is not None and len(names) != len(surrogates):
            raise OptionError(f"expected a name for each of {len(surrogates)} surrogates, got {len(names)}: {names}")
        self.surrogates = [one if as_purified_model(one) is None else whole_model(one) for one in surrogates]
        self.average: Average = average
        self.names = [type(surrogate).__name__ for surrogate in surrogates] if names is None else list(names)

    def __call__(self, attack: Attack, defended: Callable[..., Any], images: Any, targets: Any) -> Any:
        """See `ThreatModel`; the defended model is never called."""
        checked = _check_attack(attack)
        if len(self.surrogates) == 1:
            return checked(self.surrogates[0], images, targets)
        if self.average != "losses":
            return checked(Ensemble(*self.surrogates, average=self.average), images, targets)
        climbing = on_mean_loss(checked, self.surrogates)
        if climbing is None:
            raise OptionError(
                f"expected an attack that climbs a loss, such as PGD, for average='losses', got {shown(attack)}; use "
                "average='logits'"
            )
        for surrogate in self.surrogates:
            check_eval(surrogate)
        return climbing(lambda points: points, images, targets)

    def settings(self) -> dict[str, Any]:
        """Returns the name, the surrogates' names and how they are averaged."""
        return {"name": self.name, "surrogates": self.names, "average": self.average}


@dataclass(kw_only=True, eq=False, repr=False)
class Aware(ThreatModel):
    """Purifier-aware (adaptive): exact gradients through purifier and model, as they are deployed.

    Only the gradient of a gate with a `gate_floor` or `gate_threshold` is that without them, because the exact one is
    zero below them.

    Args:
        samples: Number of calls of the defended model to average each gradient over (EOT). Use more than 1 if the
            purifier is random.
        submissions: How often each attacked image is submitted if the purifier is random. Evaluations of classifiers
            count it as correct only if every submission is, because an attacker can try again.
        gate_weight: Above 0, the attack also hides from the purifier's gate, whose `attack_score` is then no sign of
            it: its loss is that of the model minus this weight times the mean of the gate's logits above -6 (Carlini
            and Wagner, 2017, https://arxiv.org/abs/1705.07263). Try several weights, such as 0.3 and 1.

    Raises:
        OptionError: If an option is out of its range. In a call, if `gate_weight` is above 0 and the purifier has not
            one gate, or the attack climbs no loss.
    """

    name = "aware"
    samples: int = 1
    submissions: int = 1
    gate_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("samples", self.samples, low=1)
        check_integer("submissions", self.submissions, low=1)
        check_number("gate_weight", self.gate_weight, low=0, high=1e6)

    def __call__(self, attack: Attack, defended: Callable[..., Any], images: Any, targets: Any) -> Any:
        """See `ThreatModel`. Warns if the gradient of the purifier is too poor for an honest figure."""
        checked = _check_defended(defended)
        if getattr(_check_attack(attack), "gradient", True):
            _warn_of_gradients(checked.purifier, self.samples)
        model = whole_model(through_floors(checked))
        if self.gate_weight:
            attack, model = hiding(attack, checked.purifier, model, self.gate_weight)
        return averaged(attack, self.samples)(model, images, targets)


@dataclass(kw_only=True, eq=False, repr=False)
class BPDA(ThreatModel):
    """Purifier-aware with BPDA: the forward pass is exact; in the backward pass, a substitute replaces the purifier.

    It is for purifiers without a useful gradient, such as "jpeg" and "bit-depth"; see `purifier.attacks.bpda`.

    Args:
        substitute: Differentiable map of images (N, 3, H, W) in [0, 1] to images of that shape, such as a similar
            purifier. Its gradient replaces that of the purifier, or of a chain as a whole. None means the identity.
        samples: Number of calls of the defended model to average each gradient over (EOT).
        submissions: How often each attacked image is submitted if the purifier is random. Evaluations of classifiers
            count it as correct only if every submission is, because an attacker can try again.

    Raises:
        OptionError: If an option is out of its range.
    """

    name = "bpda"
    substitute: Callable[[Tensor], Tensor] | None = field(default=None, kw_only=False)
    samples: int = 1
    submissions: int = 1

    def __post_init__(self) -> None:
        if self.substitute is not None and not callable(self.substitute):
            got = type(self.substitute).__name__
            raise OptionError(f"expected a substitute that maps images to images, got {got}")
        check_integer("samples", self.samples, low=1)
        check_integer("submissions", self.submissions, low=1)

    def __call__(self, attack: Attack, defended: Callable[..., Any], images: Any, targets: Any) -> Any:
        """See `ThreatModel`."""
        checked = _check_defended(defended)
        model = whole_model(straight_through(checked, self.substitute))
        return averaged(_check_attack(attack), self.samples)(model, images, targets)


def _warn_of_gradients(purifier: Any, samples: int) -> None:
    if not getattr(purifier, "differentiable", True):
        advice = "has an exact gradient of zero almost everywhere; state the figure under attacks.BPDA() instead"
    elif getattr(purifier, "random", False) and samples == 1:
        advice = "is random; use Aware(samples=10) or more, which average its gradient (EOT)"
    else:
        return
    name = getattr(purifier, "name", type(purifier).__name__)
    warnings.warn(f"what withstands Aware here may not be robust: {name!r} {advice}", PurifierWarning, stacklevel=3)


def worst_case(
    threat: ThreatModel, attacks: Sequence[Attack], defended: Callable[..., Any], images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Runs several attacks on a classifier and keeps, for each image, the first result that fools the defended model.

    The robust accuracy under several attacks is the share of images that withstand all of them.

    Args:
        threat: What the attacker knows.
        attacks: Attacks in this order. Later ones run on the images that withstood the earlier ones.
        defended: The classifier behind its purifier.
        images: (N, 3, H, W) in [0, 1].
        labels: (N,). A clean image that the defended model misclassifies counts as fooled.

    Returns:
        Images (N, 3, H, W), adversarial where an attack succeeded, and which of them (N,) are still classified
        correctly.
    """
    model = whole_model(defended)
    best = images.detach().clone()
    right = _right(model, best, labels)
    for attack in attacks:
        left = right.nonzero().flatten()
        if not len(left):
            break
        attacked = threat(attack, defended, images[left], labels[left])
        lost = ~_right(model, attacked, labels[left])
        best[left[lost]] = attacked[lost]
        right[left[lost]] = False
    return best, right


def bare_model(defended: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the model without its purifier as a function of RGB images in [0, 1]."""
    checked = _check_defended(defended)
    return _in_unit_range(checked.model, checked.convention)


def whole_model(defended: Callable[..., Any]) -> Callable[..., Any]:
    """Returns purifier and model as a function of RGB images in [0, 1]."""
    checked = _check_defended(defended)
    return _in_unit_range(checked, checked.convention)


def _in_unit_range(model: Any, convention: Convention) -> Callable[..., Any]:
    ordered = Reversed(model) if convention.channels == "BGR" else model
    return ordered if convention.normalisation is None else Normalised(ordered, *convention.normalisation)


def _check_attack(attack: Any) -> Attack:
    # A function of a model, images and targets is an attack too.
    if isinstance(attack, type | nn.Module | ThreatModel) or not callable(attack):
        raise OptionError(f"expected an attack, such as purifier.attacks.PGD(), got {shown(attack)}")
    found: Attack = attack
    return found


def _check_defended(defended: Any) -> PurifiedModel:
    view = as_purified_model(defended)
    if view is None:
        raise InputError(
            f"expected a model behind a purifier, got {type(defended).__name__}; wrap it with purifier.wrap(model, "
            "...), or attack it directly: attack(model, images, targets)"
        )
    return view


def _right(model: Callable[..., Any], images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        right: Tensor = logits_in(model(images)).argmax(1) == labels
    return right
