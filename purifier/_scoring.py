"""Scores of a purifier with a gate: how much an image looks attacked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._facts import Facts
from purifier._input import UNIT_ADVICE, check_form, check_range
from purifier._tracing import is_exporting, is_tracing
from purifier.inference.tiling import apply_stage, apply_tiled
from purifier.methods import Method
from purifier.methods._gate import Gate, score_of, watched
from purifier.methods.gated import gate_of


class Scoring(Facts):
    """The part of `Purifier` that scores images."""

    if TYPE_CHECKING:

        def purify(self, images: Tensor) -> Tensor: ...

    def attack_score(self, images: Tensor) -> Tensor:
        """Returns how much each image looks attacked, as the gate of this purifier sees it.

        It is the mean of `attack_map` over its cells of 8 x 8 pixels. Of the statistics that were measured on held-out
        photographs (mean probability, mean logit, quantiles from 0.5 to 1), the mean separates attacks on the whole
        image best, and patches no worse. An attack confined to a patch gets a score of about the patch's share of the
        image: with a patch of a third of the image nearly all are above the clean images, with a tenth few are; look at
        the map for those. The mean does not depend on the size of the image.

        It does not depend on gate_bias, gate_floor and gate_threshold. It is no calibrated probability: `purifier
        detect --calibrate` finds a threshold for one's own pictures. An attacker who knows the detector can evade it.

        Args:
            images: (N, 3, H, W) or (3, H, W), RGB, float, in [0, 1].

        Returns:
            Scores in [0, 1], (N,) or (), float32 or better, on the images' device. Gradients flow to the images. In a
            chain, the purifiers in front of the gated one are applied first.

        Raises:
            InputError: If the images have a wrong shape, kind or range.
            OptionError: If this purifier does not have exactly one gate.

        Example:
            >>> import torch, purifier
            >>> purifier.Purifier.from_pretrained("alloy-s").attack_score(torch.rand(2, 3, 32, 48)).shape
            torch.Size([2])
        """
        check_form(images)
        check_range(images, UNIT_ADVICE)
        return self._scores(images)

    def attack_map(self, images: Tensor) -> Tensor:
        """Returns how much each place looks attacked: the probability of an attack that the gate estimates there.

        Each value is of the surroundings, some 40 pixels each way, so the map does not resolve smaller patches.

        Args:
            images: As in `attack_score`.

        Returns:
            Values in [0, 1], (N, 1, H, W) or (1, H, W), float32 or better, on the images' device. Gradients flow to the
            images.

        Raises:
            InputError: As in `attack_score`.
            OptionError: As in `attack_score`.
        """
        check_form(images)
        check_range(images, UNIT_ADVICE)
        _, gate = self.gated_part()
        height, width = images.shape[-2:]
        if images.is_meta or images.numel() == 0:
            return images.new_empty((*images.shape[:-3], 1, height, width), dtype=torch.float32)
        pixels = gate.spread(self.gate_logits(images).sigmoid(), height, width)
        return pixels.to(images.device).view(*images.shape[:-3], 1, height, width)

    def _scores(self, images: Tensor) -> Tensor:
        """Does `attack_score` without checks of the images."""
        self.gated_part()
        if images.is_meta or images.numel() == 0:
            return images.new_empty(images.shape[:-3], dtype=torch.float32)
        return score_of(self.gate_logits(images)).to(images.device).view(images.shape[:-3])

    def gate_logits(self, images: Tensor) -> Tensor:
        """Returns the gate's logits for the cells of images (..., 3, H, W), (N, 1, ceil(H / 8), ceil(W / 8)).

        Without checks of the images, float32 or better, on the purifier's device.

        Raises:
            OptionError: If this purifier does not have exactly one gate.
        """
        part, gate = self.gated_part()
        batch = images.to(device=self.device, dtype=self.dtype).reshape(-1, *images.shape[-3:])
        tile = None if is_exporting() else self._tile
        with self._grad_mode(batch):
            for link in self.method.sequence:
                if link is part:
                    break
                batch = (link(batch) if tile is None else apply_tiled(link, batch, tile)).clamp(0, 1)
            logits = gate.logits(batch) if tile is None else apply_stage(gate.stage(), batch, tile)
            return _exact(logits)

    def gated_part(self) -> tuple[Method, Gate]:
        """Returns the one method of the sequence that has a gate, and its gate.

        Raises:
            OptionError: If there is none, or there are several.
        """
        found = [(part, gate) for part in self.method.sequence if (gate := gate_of(part)) is not None]
        if len(found) != 1:
            advice = "use one of those purifiers alone" if found else "put one in front: purifier.gated()"
            raise OptionError(
                f"expected a purifier with one gate to score images, such as 'alloy-s', got {self.name!r} with "
                f"{len(found) or 'none'}; {advice}"
            )
        return found[0]

    def purify_and_score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns purified images and their scores, both without checks; see `purify` and `attack_score`.

        The gate is computed once, except by tiled and compiled purifiers and in graphs. The scores have no gradient.
        """
        self.gated_part()
        apart = self._tile is not None or self._compiler is not None or is_tracing() or images.is_meta
        if apart or images.numel() == 0:
            with torch.no_grad():
                scores = self._scores(images)
            return self.purify(images), scores
        with watched() as seen:
            purified = self.purify(images)
        if not seen:  # no application, so the gate was not asked
            with torch.no_grad():
                return purified, self._scores(images)
        # Later applications of the method see purified images.
        scores = score_of(_exact(seen[0].detach()))
        return purified, scores.to(images.device).view(images.shape[:-3])


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def has_gate(purifier: Any) -> bool:
    """Whether this is a purifier with exactly one gate, which scores images."""
    if not isinstance(purifier, Scoring):
        return False
    try:
        purifier.gated_part()
    except OptionError:
        return False
    return True
