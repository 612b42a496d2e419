"""Self-checks: signs that the figures of an evaluation cannot be trusted.

`probe` examines a defended model on a few images and `inspect` examines finished rows; `CHECKS` lists all checks.
Sources: warnings with a condition and advice as in AutoAttack (Croce & Hein 2020, https://arxiv.org/abs/2003.01690);
the faults are those of Athalye et al. 2018 (https://arxiv.org/abs/1802.00420), Carlini et al. 2019
(https://arxiv.org/abs/1902.06705) and Zimmermann et al. 2022 (https://arxiv.org/abs/2206.13991).
"""

from purifier.evaluation.checks.finding import Check, Finding
from purifier.evaluation.checks.run import CHECKS, inspect, probe

__all__ = ["CHECKS", "Check", "Finding", "inspect", "probe"]
