"""Banks of attacks: attacked pictures that are made once and serve many trainings."""

from purifier.training.bank.making import BankSettings, make_bank
from purifier.training.bank.pairs import BankPairs
from purifier.training.bank.store import Bank

__all__ = ["Bank", "BankPairs", "BankSettings", "make_bank"]
