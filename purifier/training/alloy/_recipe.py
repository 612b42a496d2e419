"""The Alloy recipe: spoil clean crops, purify them once or more, compare pixels and features with the clean ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import OptionError
from purifier._purifier import Purifier
from purifier.attacks import SSP
from purifier.methods.alloy import Alloy
from purifier.methods.ncis import NCIS
from purifier.training._critic import Critic, contest
from purifier.training._divergence import divergence
from purifier.training._loop import Losses
from purifier.training._photographs import crops_and_validation
from purifier.training._trained import load_trained
from purifier.training._unrolled import Unrolled
from purifier.training._validation import Validation
from purifier.training.alloy._config import AlloyTraining
from purifier.training.alloy._extractors import Extractor, load_extractors
from purifier.training.alloy._initial import start_as_identity, start_from
from purifier.training.alloy._lines import read_extractors, read_sources
from purifier.training.alloy._losses import gate_loss, pixel_loss, relative_distance
from purifier.training.alloy._sources import Source, Sources, resolve_sources

# Few sizes rather than many, as each of them is a new one to what picks the kernels.
_STRIDE = 16


class AlloyRecipe:
    """What the loop needs to train Alloy: the model, the crops, the attacks, the losses and the validation.

    Raises:
        InputError: Where there are no images, or an extractor gives no features.
        OptionError: Where settings do not fit together.
        WeightsError: Where the weights of an extractor cannot be had.
    """

    def __init__(self, config: AlloyTraining) -> None:
        _check(config)
        extractors, sources = read_extractors(config.extractors), read_sources(config.sources)
        self.config = config
        self.extractors = load_extractors(extractors)
        # After the extractors, which may draw numbers of their own.
        torch.manual_seed(config.seed)
        method = _network(config)
        self.gate = method.gate if isinstance(method, Alloy) else None
        self.model: nn.Module = (
            _OnlyGate(method) if isinstance(method, Alloy) and config.only_gate else Unrolled(method, config.unroll)
        )
        self.critic = Critic(config.crop_size) if config.adversarial_weight else None
        probe = torch.full((1, 3, config.crop_size, config.crop_size), 0.5)
        classifiers = [one for one in self.extractors if one.classifies(probe)]
        self.sources = Sources(config, resolve_sources(sources, self.extractors, classifiers), method)
        self.classifiers = _one_of_each_network(classifiers) if config.belief_weight else []
        others = config.pixel_weight or config.adversarial_weight or (config.teacher and config.teacher_weight)
        others = others or (config.gate and config.gate_weight)
        if not self.classifiers and not others and not any(one.weight for one in self.extractors):
            raise OptionError("expected a loss beside belief_weight, as no extractor classifies; set pixel_weight too")
        self.teacher = Purifier.from_pretrained(config.teacher) if config.teacher else None
        self._weights = {"pixel": config.pixel_weight, "beliefs": config.belief_weight}
        self._weights |= {"teacher": config.teacher_weight, "gate": config.gate_weight}
        self._weights["adversarial"] = config.adversarial_weight
        self._weights |= {one.name: one.weight for one in self.extractors}
        self.crops, validation = crops_and_validation(config)
        self._validation = Validation(
            validation,
            count=config.validation_images,
            seed=config.seed,
            attacks=_validation_attacks(self.extractors, config.seed),
            labelled=Path(config.labelled) if config.labelled else None,
        )

    def to(self, device: torch.device) -> None:
        """Moves the extractors and the teacher."""
        for extractor in self.extractors:
            extractor.to(device)
        if self.teacher is not None:
            self.teacher.to(device)

    def losses(self, model: Callable[[Tensor], list[Tensor]], batch: Tensor, step: int) -> Losses:
        """Losses of a batch of clean crops (N, 3, H, W), which is spoilt here; all but the critic's are means over
        applications.
        """
        source, judged = self.sources.draw(), None
        spoilt = self.sources.spoil(batch, source)
        if self.config.only_gate:
            (logits,) = model(torch.cat((spoilt, batch)))
            parts = {"gate": gate_loss(logits[: len(batch)], source.kind != "none", logits[len(batch) :])}
        else:
            parts, outputs = self._parts(model, batch, source, spoilt)
            if self.critic is not None:
                parts["adversarial"], judged = contest(self.critic, outputs[-1], batch, relativistic=True)
        total = sum((self._weights[name] * part for name, part in parts.items()), batch.new_zeros(()))
        return Losses(total, {name: value.detach() for name, value in parts.items()}, judged)

    def _parts(
        self, model: Callable[[Tensor], list[Tensor]], batch: Tensor, source: Source, spoilt: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The losses of a network, and of its gate where it has one, and what it made of the spoilt images."""
        parts: dict[str, Tensor] = {}
        if self.gate is not None and self.config.gate_weight:
            parts["gate"] = gate_loss(self.gate.logits(spoilt), source.kind != "none", self.gate.logits(batch))
        spoilt = self._head_start(spoilt)
        outputs = [output.float() for output in model(spoilt)]
        if self.config.pixel_weight:
            parts["pixel"] = _mean([pixel_loss(output, batch) for output in outputs])
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(spoilt).float()
            parts["teacher"] = _mean([pixel_loss(output, taught) for output in outputs])
        beliefs: list[Tensor] = []
        view = self._view(batch)
        originals, copies = view(batch), [view(output.clamp(0, 1)) for output in outputs]
        for extractor in self.extractors:
            classifies = extractor in self.classifiers
            if not extractor.weight and not classifies:
                continue
            with torch.no_grad():
                features, logits = extractor.look(originals)
            seen = [extractor.look(copy) for copy in copies]
            if extractor.weight:
                parts[extractor.name] = _mean([relative_distance(found, features) for found, _ in seen])
            if classifies:
                clean = logits.float().softmax(1)
                beliefs += [divergence(found, clean).mean() for _, found in seen]
        if beliefs:
            parts["beliefs"] = _mean(beliefs)
        return parts, outputs

    def _view(self, batch: Tensor) -> Callable[[Tensor], Tensor]:
        """How extractors see images of a step: at a size that is drawn where `views` says so."""
        if not self.config.views:
            return lambda images: images
        factor = 1 + self.config.views * (2 * torch.rand(()).item() - 1)
        size = [_STRIDE * max(1, round(side * factor / _STRIDE)) for side in batch.shape[-2:]]
        return lambda images: F.interpolate(images, size, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def _head_start(self, images: Tensor) -> Tensor:
        """Applies the network to images as often as drawn, without a gradient."""
        if not self.config.head_start:
            return images
        method: Alloy | NCIS = self.model.method  # type: ignore[assignment]
        for _ in range(int(torch.randint(self.config.head_start + 1, ()))):
            images = method.step(images)
        return images

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out images at the purifier's own number of iterations; see `Validation.figures`."""
        method: Alloy | NCIS = model.method  # type: ignore[assignment]
        return self._validation.figures(method, next(method.parameters()).device)

    def samples(self, model: nn.Module) -> list[Tensor]:
        """Rows: clean, clean purified, attacked by SSP on the first extractor, attacked purified."""
        method: Alloy | NCIS = model.method  # type: ignore[assignment]
        return self._validation.samples(method, next(method.parameters()).device)


class _OnlyGate(nn.Module):
    """An alloy as the loop trains it where its gate alone learns."""

    def __init__(self, method: Alloy) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> list[Tensor]:
        """The gate's logits for images (N, 3, H, W)."""
        assert self.method.gate is not None
        return [self.method.gate.logits(images)]


def _validation_attacks(extractors: list[Extractor], seed: int) -> dict[str, SSP]:
    """SSP on the first layer of the first extractor, where there is one."""
    if not extractors:
        return {}
    first, noise = extractors[0], torch.Generator().manual_seed(seed)
    return {"ssp": SSP(lambda x: first.features(x)[0], eps=16 / 255, alpha=4 / 255, steps=10, generator=noise)}


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def _one_of_each_network(extractors: list[Extractor]) -> list[Extractor]:
    """The first extractor of each network."""
    return list({one.network: one for one in reversed(extractors)}.values())


def _network(config: AlloyTraining) -> Alloy | NCIS:
    if config.network == "ncis":
        return _blind_spot(config)
    network = Alloy(
        iterations=config.iterations,
        patch=config.patch,
        filters=config.filters,
        blocks=config.blocks,
        levels=config.levels,
        clamp=config.clamp,
        blur=config.blur,
        gate=config.gate,
        gate_blocks=config.gate_blocks,
        gate_bias=config.gate_bias,
    )
    if config.init:
        start_from(network, config.init)
    elif config.start == "identity":
        start_as_identity(network)
    if config.only_gate:
        network.network.requires_grad_(False)
    return network


def _blind_spot(config: AlloyTraining) -> NCIS:
    network = NCIS(
        iterations=config.iterations,
        patch=config.patch,
        filters=config.filters,
        layers=config.blocks,
        clamp=config.clamp,
    )
    if config.init:
        load_trained(network, config.init)
    return network


def _check(config: AlloyTraining) -> None:
    for name in ("start", "network"):
        known, got = get_args(get_type_hints(AlloyTraining)[name]), getattr(config, name)
        if got not in known:
            raise OptionError(f"expected {name} as one of {', '.join(known)}, got {got!r}")
    # What only alloy's network has, and the values that say it is not there.
    without = {"gate": 0, "gate_blocks": 0, "gate_bias": 0.0, "blur": 0, "levels": 1, "start": "random"}
    asked = [f"{name}={getattr(config, name)!r}" for name, value in without.items() if getattr(config, name) != value]
    if config.network == "ncis" and asked:
        wanted = ", ".join(f"{name}={value!r}" for name, value in without.items())
        raise OptionError(f"expected {wanted} with network='ncis', got {', '.join(asked)}; change what differs")
    if config.only_gate and config.adversarial_weight:
        raise OptionError(
            f"expected adversarial_weight=0 with only_gate, as a gate makes no images, got {config.adversarial_weight}"
        )
    if not re.fullmatch(r"\w[\w.-]*", config.name):
        raise OptionError(
            f"expected name as that of a folder, of letters, digits, '_', '.' and '-', got {config.name!r}; choose the "
            "place with out"
        )
    if not 0 <= config.eps_low <= config.eps <= 1:
        raise OptionError(
            f"expected 0 <= eps_low <= eps <= 1, in units of the [0, 1] range, got eps_low={config.eps_low}, "
            f"eps={config.eps}; write 16/255 as {16 / 255:.4f}, and lower eps_low with eps"
        )
    if not 0 < config.attack_alpha <= 2 or not 0 <= config.aware_share <= 1:
        raise OptionError(
            f"expected attack_alpha in (0, 2], a share of eps, and aware_share in [0, 1], got {config.attack_alpha} "
            f"and {config.aware_share}"
        )
    if not 0 <= config.views < 1:
        raise OptionError(f"expected views in [0, 1), a share of the sides of crops, got {config.views}")
    if config.head_start < 0:
        raise OptionError(
            f"expected head_start of at least 0, applications without a gradient, got {config.head_start}"
        )
    if config.only_gate and not (config.gate and config.gate_weight and config.init):
        raise OptionError(
            "expected a gate, its weight, and an init whose network it is for, with only_gate, got "
            f"gate={config.gate}, gate_weight={config.gate_weight} and init={config.init!r}"
        )
    weights = [config.pixel_weight, config.belief_weight, config.adversarial_weight]
    weights += [line.weight for line in read_extractors(config.extractors)]
    weights += [config.teacher_weight if config.teacher else 0.0, config.gate_weight if config.gate else 0.0]
    if not all(weight >= 0 for weight in weights) or max(weights) == 0:
        raise OptionError(f"expected loss weights >= 0, one of them above, got {weights}")
