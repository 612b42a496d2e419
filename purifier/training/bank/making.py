"""Making a bank: clean pictures of one size, and attacks on them by one source after the other, shard by shard."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from purifier._errors import OptionError
from purifier._identity import weights_sha256
from purifier._options import check_integer
from purifier._random import isolated_randomness, seed_of
from purifier.data.crops import resized, split_validation
from purifier.data.images import list_images, read_pixels
from purifier.inference.precision import resolve_device
from purifier.training.bank.store import CLEAN, SHARD, Bank
from purifier.training.extractors import Extractor, load_extractors, read_extractors
from purifier.training.perturbations import (
    Source,
    SourceLine,
    label_free_attack,
    read_sources,
    resolve_sources,
    targets_of,
)
from purifier.training.settings import Settings, check_strength

# Pictures that are attacked at once, with the same eps, step size and number of steps.
_BATCH = 16
# Step sizes, as shares of eps: from 1 / steps, with which an attack just reaches eps, to this.
_LARGEST_STEP = 0.5


@dataclass(frozen=True, kw_only=True)
class BankSettings(Settings):
    """What a bank holds.

    Attributes:
        data: Folders of pictures, read recursively. Those that trainings hold out for validation are left out.
        networks: Networks to attack, each as "NAME=MODEL[@LAYER[+LAYER]]:0", as the extractors of the Alloy training.
        sources: Attacks, each as "ATTACK:NETWORK:COUNT:STEPS". ATTACK is "kl" or "pgd" (PGD that moves the predictions
            away, or the likeliest class), "l2" (PGD in L2), "mi", "di", "ti" (MI-, DI-, TI-FGSM), "apgd", "cw",
            "square" or "ssp". NETWORK is a name, or names joined by "+" for the mean of their logits. COUNT is the
            number of pictures, rounded up to whole shards of 64. STEPS is a number or a range such as 3-40, from which
            each batch draws its own.
        size: Side of the pictures, in pixels. The shorter side is resized to it, and the longer one is cropped at
            random.
        eps_low: Smallest perturbation, in units of the [0, 1] range. Each batch of 16 pictures draws its eps, evenly
            in the logarithm.
        eps: Largest perturbation.
        validation_every: One in this many files is left out, as `validation_every` of the trainings says.
        seed: Decides the crops, which picture is attacked by what, and every random number of an attack.
        precision: "bf16" runs the networks in bfloat16, "no" in float32.
        device: "auto", "cpu" or "cuda".

    Raises:
        OptionError: If a setting is out of its range.
    """

    data: tuple[str, ...]
    networks: tuple[str, ...]
    sources: tuple[str, ...]
    size: int = 160
    eps_low: float = 2 / 255
    eps: float = 18 / 255
    validation_every: int = 20
    seed: int = 0
    precision: Literal["no", "bf16"] = "no"
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("size", self.size, low=32, high=1024)
        check_integer("seed", self.seed, low=0)
        check_strength(self.eps_low, self.eps)
        if not self.eps_low:
            raise OptionError("expected eps_low above 0, as eps is drawn evenly in its logarithm, got 0; give 1/255")
        read_extractors(self.networks)
        noise = [line.kind for line in read_sources(self.sources) if not line.extractor]
        if noise:
            raise OptionError(
                f"expected attacks as sources of a bank, got {', '.join(noise)}; trainings add noise themselves"
            )
        for line in read_sources(self.sources):
            if line.share < 1 or line.share != int(line.share):
                raise OptionError(
                    f"expected a whole number of pictures, got {line.kind}:{line.extractor}:{line.share:g}"
                )


def make_bank(settings: BankSettings, out: str | Path, *, minutes: float | None = None) -> Bank:
    """Makes a bank, or adds to one what it lacks: more pictures of a source, or more sources.

    A killed run resumes. The sources take turns, a shard of 64 pictures each, so that a bank that is not finished is
    balanced. Each shard depends on the settings, its source and its number only.

    Args:
        settings: What the bank holds.
        out: Its folder.
        minutes: Stop after about that time. None means no limit.

    Returns:
        The bank as far as it is made.

    Raises:
        InputError: If there are no pictures.
        OptionError: If the folder holds a bank with other settings, or a network does not suit its attack.
    """
    return _Maker(settings, Path(out)).run(minutes)


class _Maker:
    """The pictures, networks and sources of a bank that is being made."""

    def __init__(self, settings: BankSettings, out: Path) -> None:
        self.settings = settings
        self.device = resolve_device(settings.device)
        self.files, _ = split_validation(list_images(settings.data), settings.validation_every)
        shared = ("size", "eps_low", "eps", "validation_every", "seed", "precision")
        stated = {name: getattr(settings, name) for name in shared}
        names = "\n".join(path.name for path in self.files)
        names_sha256 = hashlib.sha256(names.encode("utf-8", "replace")).hexdigest()
        stated |= {"pictures": len(self.files), "names_sha256": names_sha256}
        self.sources = self._resolved()
        self.bank = Bank.create(out, stated)
        for line, network in self.sources:
            self.bank.add_source(source_name(line), self._described(line, network))

    def _resolved(self) -> list[tuple[SourceLine, Extractor]]:
        with isolated_randomness():
            networks = load_extractors(read_extractors(self.settings.networks))
        probe = torch.full((1, 3, self.settings.size, self.settings.size), 0.5)
        classifiers = [one for one in networks if one.classifies(probe)]
        found: list[Source] = resolve_sources(read_sources(self.settings.sources), networks, classifiers)
        pairs = [(line, network) for line, network in found if network is not None]
        for _, network in pairs:
            network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return pairs

    def _described(self, line: SourceLine, network: Extractor) -> dict[str, Any]:
        """What identifies a source. Its number of pictures may grow."""
        return {
            "attack": line.kind,
            "network": line.extractor,
            "layers": list(network.layers),
            "weights_sha256": weights_sha256(network.network),
            "steps": list(line.steps),
        }

    def run(self, minutes: float | None) -> Bank:
        counts = [min(int(line.share), len(self.files)) for line, _ in self.sources]
        turns = [
            (number, *source)
            for number in range(-(-max(counts) // SHARD))
            for source, count in zip(self.sources, counts, strict=True)
            if number * SHARD < count
        ]
        started = time.monotonic()
        with tqdm(total=len(turns), unit="shard") as bar:
            for number, line, network in turns:
                bar.set_postfix_str(source_name(line))
                missing = not self.bank.shard(source_name(line), number).exists()
                if missing:
                    self._attack(number, line, network)
                bar.update()
                # A call with the shortest limit still makes a shard.
                if missing and minutes is not None and time.monotonic() - started > 60 * minutes:
                    bar.write("stopped; the same call resumes from there")
                    break
        return Bank(self.bank.folder)

    def _attack(self, number: int, line: SourceLine, network: Extractor) -> None:
        name = source_name(line)
        order = np.random.default_rng(seed_of(self.settings.seed, name)).permutation(len(self.files))
        pictures = order[number * SHARD : min((number + 1) * SHARD, len(order))]
        found: list[Tensor] = []
        facts: dict[str, list[Tensor]] = {"eps": [], "steps": [], "fooled": []}
        for start in range(0, len(pictures), _BATCH):
            chosen = pictures[start : start + _BATCH]
            images = torch.stack([self._clean(int(one)) for one in chosen])
            with isolated_randomness(seed=seed_of(self.settings.seed, name, number, start)):
                moved, eps, steps, fooled = self._attacked(images, line, network)
            found.append(moved - images)
            for key, value in (("eps", torch.full((len(images),), eps)), ("steps", torch.full((len(images),), steps))):
                facts[key].append(value)
            facts["fooled"].append(fooled)
        stacked = {key: torch.cat(values) for key, values in facts.items()}
        self.bank.add(name, number, torch.cat(found), {"pictures": torch.from_numpy(pictures), **stacked})

    def _attacked(self, images: Tensor, line: SourceLine, network: Extractor) -> tuple[Tensor, float, int, Tensor]:
        """Attacks images: the attacked ones, eps, the number of steps, and which predictions changed (n,), uint8."""
        settings = self.settings
        eps = _evenly_in_logarithm(settings.eps_low, settings.eps)
        steps = round(_evenly_in_logarithm(*line.steps))
        alpha = eps * _evenly_in_logarithm(min(1 / steps, _LARGEST_STEP), _LARGEST_STEP)
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            targets = targets_of(line.kind, network, images)
            attack = label_free_attack(line.kind, network, eps=eps, alpha=alpha, steps=steps, images=images)
            moved = attack(network, images, targets)
            fooled = torch.zeros(len(images), dtype=torch.uint8)
            if targets is not None:
                with torch.no_grad():
                    fooled = (network(moved).argmax(1) != targets.argmax(1)).to(torch.uint8).cpu()
        return moved.cpu(), eps, steps, fooled

    def _clean(self, picture: int) -> Tensor:
        """Returns a clean picture (3, S, S) of the bank, whose shard is written when it is first needed."""
        number = picture // SHARD
        if not self.bank.shard(CLEAN, number).exists():
            members = range(number * SHARD, min((number + 1) * SHARD, len(self.files)))
            self.bank.add_clean(number, torch.stack([self._square(one) for one in members]))
        return self.bank.clean(picture)

    def _square(self, picture: int) -> Tensor:
        pixels, size = read_pixels(self.files[picture]), self.settings.size
        factor = size / min(pixels.shape[:2])
        height, width = (max(size, round(side * factor)) for side in pixels.shape[:2])
        random = np.random.default_rng((self.settings.seed, picture))
        top, left = int(random.integers(height - size + 1)), int(random.integers(width - size + 1))
        square = resized(pixels, height, width)[top : top + size, left : left + size]
        return torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1)))


def source_name(line: SourceLine) -> str:
    """The name of a source, and of its folder: "kl-mobilenet" for PGD on the predictions of the network mobilenet."""
    fewest, most = line.steps
    return f"{line.kind}-{line.extractor}-{fewest}-{most}"


def _evenly_in_logarithm(low: float, high: float) -> float:
    return low * math.exp(torch.rand(()).item() * math.log(high / low))
