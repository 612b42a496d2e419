"""Pairs of clean and attacked crops, drawn from a bank at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from purifier._errors import InputError, OptionError, nearest
from purifier._images import to_uint8
from purifier.data.crops import RandomCrops
from purifier.data.degrade import degraded
from purifier.data.images import to_tensor
from purifier.training.bank.store import Bank, Entry

# How a pair is varied: the share of weakened attacks, and the weakest factor; the share whose channels are permuted.
_WEAKENED, _WEAKEST = 0.2, 0.5
_PERMUTED = 0.2

# A batch of a training: clean crops (N, 3, H, W), or what torch collates of `BankPairs`.
Batch = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Pairs:
    """Clean crops and what a purifier sees of them.

    Attributes:
        clean: (N, 3, H, W) in [0, 1].
        perturbed: The same crops, attacked or not.
        attacked: Which of them are attacked, (N,), bool.
        drawn: Which of them come from a bank, (N,), bool. The others are perturbed by the training itself.
    """

    clean: Tensor
    perturbed: Tensor
    attacked: Tensor
    drawn: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Pairs:
        """Reads a batch of a training: clean crops (N, 3, H, W), or a batch of `BankPairs`."""
        if isinstance(batch, Tensor):
            none = torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
            return cls(batch, batch, none, none)
        return cls(batch["clean"], batch["perturbed"], batch["attacked"], batch["drawn"])

    def completed(self, perturb: Callable[[Tensor], Tensor], *, attacked: bool = True) -> Pairs:
        """Perturbs the crops that do not come from a bank.

        Args:
            perturb: Maps clean crops (M, 3, H, W), M > 0, to perturbed ones.
            attacked: Whether they count as attacked then.
        """
        own = ~self.drawn
        if not own.any():
            return self
        if own.all():
            return replace(self, perturbed=perturb(self.clean), attacked=torch.full_like(own, attacked))
        perturbed, labels = self.perturbed.clone(), self.attacked.clone()
        perturbed[own], labels[own] = perturb(self.clean[own]), attacked
        return replace(self, perturbed=perturbed, attacked=labels)


class BankPairs(Dataset[dict[str, Tensor]]):
    """Random crops of a bank's attacked pictures, mixed with clean crops that a training perturbs itself.

    Sample k is a function of the bank, the seed and k, so a resumed run gets the same samples as an unbroken one. A
    crop is flipped at random, and its channels are permuted in a fifth of the cases. A fifth of the perturbations are
    scaled by a factor from 0.5 to 1. `degraded` of the pictures are degraded.

    Args:
        bank: The bank. It must not grow during the training.
        crops: Clean crops for the samples that do not come from the bank; also the size, the number and the seed.
        share: Share of the samples that come from the bank, in (0, 1].
        sources: Names of the bank's sources to use; empty means all. Each is drawn in proportion to its pictures.
        degraded: Share of the pairs that are sharpened, made noisy or compressed: half of them before the perturbation
            is added, half of them after.

    Raises:
        InputError: If the bank holds no attacked picture of the sources.
        OptionError: If the bank has no such source, or its pictures are smaller than the crops.
    """

    def __init__(
        self,
        bank: Bank,
        crops: RandomCrops,
        *,
        share: float = 1.0,
        sources: tuple[str, ...] = (),
        degraded: float = 0.3,
    ) -> None:
        self.bank, self.crops, self.share, self.degraded = bank, crops, share, degraded
        names = list(bank.sources)
        for name in sources:
            if name not in names:
                raise OptionError(
                    f"expected sources of the bank ({', '.join(names)}), got {name!r}{nearest(name, names)}"
                )
        self._names = list(sources) or names
        counts = [bank.count(name) for name in self._names]
        if not sum(counts):
            raise InputError(f"expected attacked pictures in {bank.folder}, got none; run `purifier bank make` further")
        if bank.size < crops.crop_size:
            raise OptionError(
                f"expected crops of at most {bank.size} pixels, the size of the bank's pictures, got "
                f"{crops.crop_size}; lower crop_size"
            )
        self._ends = np.cumsum(counts)
        # What a resumed training compares: the files, and how much of the bank there is.
        self.items = [*crops.paths, *zip(self._names, counts, strict=True)]

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Returns sample number `index`: "clean", "perturbed" (3, H, W), "attacked" and "drawn" (scalars, bool)."""
        random = np.random.default_rng((self.crops.seed, index, 1))
        if random.random() >= self.share:
            clean = self.crops[index]
            return _sample(clean, clean, attacked=False, drawn=False)
        place = int(random.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, place, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        return self._varied(self.bank.entry(self._names[number], place - start), random)

    def _varied(self, entry: Entry, random: np.random.Generator) -> dict[str, Tensor]:
        side = self.crops.crop_size
        top, left = random.integers(self.bank.size - side + 1, size=2)
        area = (slice(None), slice(top, top + side), slice(left, left + side))
        clean, perturbation = entry.clean[area], entry.perturbation[area]
        if random.random() < 0.5:
            clean, perturbation = clean.flip(2), perturbation.flip(2)
        if random.random() < _PERMUTED:
            order = torch.from_numpy(random.permutation(3))
            clean, perturbation = clean[order], perturbation[order]
        if random.random() < _WEAKENED:
            perturbation = perturbation * random.uniform(_WEAKEST, 1.0)
        if random.random() < self.degraded / 2:
            clean = _degraded(clean, random)
        perturbed = (clean + perturbation).clamp(0, 1)
        if random.random() < self.degraded / 2:
            perturbed = _degraded(perturbed, random)
        return _sample(clean.contiguous(), perturbed.contiguous(), attacked=True, drawn=True)


def _degraded(image: Tensor, random: np.random.Generator) -> Tensor:
    return to_tensor(degraded(to_uint8(image), random))


def _sample(clean: Tensor, perturbed: Tensor, *, attacked: bool, drawn: bool) -> dict[str, Tensor]:
    return {"clean": clean, "perturbed": perturbed, "attacked": torch.tensor(attacked), "drawn": torch.tensor(drawn)}
