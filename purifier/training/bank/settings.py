"""Settings of trainings on attacked crops, some or all of which come from a bank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from purifier._options import check_number
from purifier.data.crops import RandomCrops
from purifier.training.bank.pairs import BankPairs
from purifier.training.bank.store import Bank
from purifier.training.settings import PhotographTraining


@dataclass(frozen=True, kw_only=True)
class AttackedTraining(PhotographTraining):
    """Settings of a training on attacked crops, which can come from a bank.

    Attributes:
        bank: Folder of a bank of attacks that `purifier bank make` has made; "" means none. It must not grow during
            the training.
        bank_share: Share of the samples that come from the bank. The training perturbs the others itself.
        bank_degraded: Share of the bank's pairs that are sharpened, made noisy or compressed: half of them before the
            perturbation is added, half of them after. 0 suits a gate, which cannot tell a compressed attack from a
            compressed clean picture.
        bank_sources: Names of the bank's sources to use; by default all.
    """

    bank: str = ""
    bank_share: float = 1.0
    bank_degraded: float = 0.3
    bank_sources: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("bank_share", self.bank_share, low=0.0, high=1.0)
        check_number("bank_degraded", self.bank_degraded, low=0.0, high=1.0)

    def crops_and_validation(self) -> tuple[Dataset[Any], list[Path]]:
        """Returns the crops, or pairs of a bank, to train on, and the files held out for validation."""
        crops, validation = super().crops_and_validation()
        if not self.bank:
            return crops, validation
        assert isinstance(crops, RandomCrops)
        sources = () if "*" in self.bank_sources else self.bank_sources
        pairs = BankPairs(Bank(self.bank), crops, share=self.bank_share, sources=sources, degraded=self.bank_degraded)
        return pairs, validation
