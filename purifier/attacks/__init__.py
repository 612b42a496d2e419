"""Attacks: every one is a callable `attack(model, images, targets) -> images`, in units of the [0, 1] range."""

from purifier.attacks.pgd import PGD

__all__ = ["PGD"]
