"""Self-checks: an evaluation that distrusts itself.

`probe` tries a defended model on a few images, `inspect` reads finished rows; `CHECKS` lists what is looked for. The
idea of warnings that say when they are raised and what to do is AutoAttack's (Croce & Hein 2020); the faults are those
of Carlini et al. 2019, Athalye et al. 2018 and Zimmermann et al. 2022.
"""

from purifier.evaluation.checks.finding import Check, Finding
from purifier.evaluation.checks.run import CHECKS, inspect, probe

__all__ = ["CHECKS", "Check", "Finding", "inspect", "probe"]
