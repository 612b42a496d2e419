"""A vote over several calls of a classifier behind a random purifier.

As in Raff et al., "Barrage of Random Transforms for Adversarially Robust Defense", CVPR 2019,
https://openaccess.thecvf.com/content_CVPR_2019/html/Raff_Barrage_of_Random_Transforms_for_Adversarially_Robust_Defense_CVPR_2019_paper.html,
a vote makes clean accuracy of a random defence steadier. It is no certificate: attackers who average over the draws
(EOT) still bypass most random defences. Judge it with `Aware(samples=..., submissions=...)` and
`EvaluationSettings(votes=...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from purifier._attaching import as_purified_model
from purifier._errors import InputError, OptionError
from purifier._input import check_form
from purifier._options import check_integer
from purifier.smoothing.votes import voted


class Majority:
    """A classifier that predicts the class that most of several calls predict.

    Args:
        model: A classifier behind a random purifier: what `purifier.wrap` returned, or a model with one attached. It
            returns logits (N, K), or an object with them as `.logits`.
        votes: Number of calls for each prediction.

    Raises:
        OptionError: If the model cannot be called, its purifier is not random, or `votes` is no positive integer.

    Example:
        >>> import torch, purifier
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4)).eval()
        >>> voting = Majority(purifier.wrap(model, purifier.Purifier.from_pretrained("gs").dynamic()), votes=5)
        >>> voting.predict(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2])
    """

    def __init__(self, model: Callable[..., Any], *, votes: int = 10) -> None:
        if not callable(model):
            raise OptionError(f"expected a model that maps images to logits, got {type(model).__name__}")
        defended = as_purified_model(model)
        if defended is not None and not getattr(defended.purifier, "random", True):
            name = getattr(defended.purifier, "name", type(defended.purifier).__name__)
            raise OptionError(
                f"expected a random purifier to vote over, got {name!r}, which gives the same result every time; call "
                "the model itself"
            )
        self.model = model
        self.votes = check_integer("votes", votes, low=1)

    @torch.no_grad()
    def counts(self, images: Tensor) -> Tensor:
        """Returns how many of the calls predict each class, (N, K), for images (N, 3, H, W), on their device.

        The images are in the model's own convention: [0, 1], unless it was wrapped for normalised ones.

        Raises:
            InputError: If images or model do not suit.
        """
        check_form(images)
        if images.ndim != 4:
            raise InputError(f"expected images (N, 3, H, W), got shape {tuple(images.shape)}; add images[None]")
        return sum((self._vote(images) for _ in range(self.votes - 1)), start=self._vote(images))

    def predict(self, images: Tensor) -> Tensor:
        """Returns the class with most votes for each image, (N,). Of classes with as many votes, the lowest number.

        Args:
            images: (N, 3, H, W), as for `counts`.

        Raises:
            InputError: If images or model do not suit.
        """
        return self.counts(images).argmax(1)

    def _vote(self, images: Tensor) -> Tensor:
        found = self.model(images)
        logits = getattr(found, "logits", found)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(f"expected logits ({len(images)}, classes) from the model, got {got}; only classes vote")
        return torch.nn.functional.one_hot(voted(logits), logits.shape[1])
