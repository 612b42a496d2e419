"""Purifiers in front of a remote model that answers with ranked labels, such as a vision API.

Cha et al., "NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024, section 5
(Table 2) and supplement 4: the attack is made elsewhere (transfer, purifier-blind), and the truth is what the remote
model says of the clean image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from purifier._errors import InputError
from purifier._input import check_form, check_range
from purifier.evaluation.metrics.ranked import RankedScores, ranked_scores
from purifier.evaluation.remote_calls import Client, PatientClient, RemoteError
from purifier.evaluation.remote_http import HTTPClient, path_reader

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["HTTPClient", "PatientClient", "RemoteError", "RemoteRow", "evaluate_remote", "path_reader", "to_picture"]


@dataclass(frozen=True, kw_only=True)
class RemoteRow:
    """What one purifier does for a remote model.

    Attributes:
        purifier: Its name; "none" for no defence.
        standard: Labels of purified clean images against those of the clean ones.
        blind: Labels of purified attacked images against those of the clean ones. The attacker knows neither the
            purifier nor the model.
    """

    purifier: str
    standard: RankedScores
    blind: RankedScores

    def to_dict(self) -> dict[str, Any]:
        """Returns names and figures, ready for JSON."""
        return {
            "purifier": self.purifier,
            "threat": "transfer",
            "standard": self.standard.to_dict(),
            "blind": self.blind.to_dict(),
        }


def evaluate_remote(
    client: Client,
    clean: Sequence[Tensor],
    attacked: Sequence[Tensor],
    purifiers: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    k: int = 5,
) -> list[RemoteRow]:
    """Asks a remote model for labels of clean, attacked and purified images, and compares them.

    Every image is sent as 8-bit RGB, as any API gets it: attacked ones are rounded before they are purified, purified
    ones again. An image costs two calls, and two for each purifier; give a `PatientClient` with a cache, so that a run
    that stopped goes on without paying again.

    Args:
        client: Maps a PIL image to its labels, the likeliest first.
        clean: Images (3, H, W), float, in [0, 1]; their sizes may differ.
        attacked: The same images attacked, on a surrogate, since a remote model gives no gradients.
        purifiers: By name, maps of an image (3, H, W) to a purified one.
        k: How many labels count; 5 in the paper.

    Returns:
        A row for no defence, named "none", then one for each purifier.

    Raises:
        InputError: Where images are not pairs in [0, 1], or the client has no label for a clean one.
        RemoteError: Where the client does not answer.
    """
    from tqdm import tqdm

    _check_pairs(clean, attacked)
    patient = client if isinstance(client, PatientClient) else PatientClient(client)
    steps: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda image: image, **purifiers}
    if len(steps) != len(purifiers) + 1:
        raise InputError("expected purifiers of other names than 'none', which stands for no defence")
    answers: dict[str, tuple[list[list[str]], list[list[str]]]] = {name: ([], []) for name in steps}
    with tqdm(total=2 * len(clean) * len(steps), unit="call", disable=None) as bar:
        for pair in zip(clean, attacked, strict=True):
            for name, purify in steps.items():
                for image, lists in zip(pair, answers[name], strict=True):
                    with torch.inference_mode():
                        purified = purify(_rounded(image))
                    lists.append(patient(to_picture(purified)))
                    bar.update()
    truth = answers["none"][0]
    return [
        RemoteRow(
            purifier=name,
            standard=ranked_scores(truth, calm, k=k),
            blind=ranked_scores(truth, hostile, k=k),
        )
        for name, (calm, hostile) in answers.items()
    ]


def to_picture(image: Tensor) -> Image:
    """Returns a PIL image, RGB of 8 bits, of a tensor (3, H, W) in [0, 1]."""
    from PIL import Image

    return Image.fromarray((_rounded(image) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def _rounded(image: Tensor) -> Tensor:
    return (image.detach().float().cpu().clamp(0, 1) * 255).round() / 255


def _check_pairs(clean: Sequence[Tensor], attacked: Sequence[Tensor]) -> None:
    if len(clean) != len(attacked) or len(clean) == 0:
        raise InputError(f"expected clean images and as many attacked ones, got {len(clean)} and {len(attacked)}")
    for before, after in zip(clean, attacked, strict=True):
        for image in (before, after):
            check_form(image)
            check_range(image, "divide by 255, or undo your model's normalisation")
        if before.shape != after.shape or before.ndim != 3:
            raise InputError(
                f"expected each attacked image to have the shape (3, H, W) of its clean one, got {tuple(before.shape)} "
                f"and {tuple(after.shape)}"
            )
