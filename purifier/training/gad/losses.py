"""The losses of GAD, eq. 1 to 8 of the paper. Their weighted sum, eq. 9 and 10, is in the recipe.

The paper writes ||.|| for every distance. Here images and feature maps are compared by their mean absolute difference,
which does not depend on their size, and feature vectors by their Euclidean distance. Sums over classes are means, so
that weights do not depend on the number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def reconstruction_loss(clean: Tensor, adversarial: Tensor, image: Tensor, goal: Tensor) -> Tensor:
    """L_r (eq. 1): distances of the clean output to the clean image, and of the adversarial output to its goal.

    Args:
        clean: Outputs (N, 3, H, W) for clean images.
        adversarial: Outputs for adversarial images.
        image: The clean images.
        goal: The clean outputs, which is the paper's idea; or the clean images, its "traditional" ablation.
    """
    return (clean - image).abs().mean() + (adversarial - goal).abs().mean()


def maps_distance(maps: Sequence[Tensor], goals: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the distances of feature maps: one of the two sums of L_p (eq. 2), or L_m (eq. 4)."""
    return torch.stack([(one - other).abs().mean() for one, other in zip(maps, goals, strict=True)]).sum()


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """L_GANd (eq. 3): the squared distances of real scores to 1 and of fake scores to 0."""
    return (real - 1).square().mean() + fake.square().mean()


def gan_loss(fake: Tensor) -> Tensor:
    """L_GANg (eq. 3): the squared distance of fake scores to 1."""
    return (fake - 1).square().mean()


def task_loss(clean: Tensor, adversarial: Tensor) -> Tensor:
    """L_Ftask (eq. 5): the task's own loss on clean and on adversarial outputs."""
    return clean + adversarial


def feature_loss(clean: Tensor, adversarial: Tensor, image: Tensor) -> Tensor:
    """L_Frec (eq. 6): distances of both outputs' feature vectors (V, L) to those of the clean image; 0 if V is 0."""
    return _mean((clean - image).norm(dim=1)) + _mean((adversarial - image).norm(dim=1))


def class_centres(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the vectors of each class that occurs: m(k) of eq. 7 and 8.

    Args:
        vectors: Feature vectors (V, L).
        labels: Their classes (V,).

    Returns:
        Centres (K, L) in ascending order of the classes, and the row of each vector's centre (V,).
    """
    classes, rows, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = vectors.new_zeros(len(classes), vectors.shape[1]).index_add(0, rows, vectors)
    return sums / counts.unsqueeze(1), rows


def align_loss(clean: Tensor, adversarial: Tensor) -> Tensor:
    """L_Falign (eq. 7): mean distance of adversarial centres (K, L) to the clean ones of their classes."""
    return _mean((clean - adversarial).norm(dim=1))


def inter_loss(centres: Tensor, margin: float) -> Tensor:
    """L_Finter (eq. 8): how much closer than `margin` the centres (K, L) of two classes are; the mean over all pairs.

    A deviation: eq. 8 has M - distance, which has no lower bound and a gradient without M. Here pairs farther apart
    than M count 0.
    """
    first, second = torch.triu_indices(len(centres), len(centres), 1, device=centres.device)
    return _mean((margin - (centres[first] - centres[second]).norm(dim=1)).clamp_min(0))


def intra_loss(vectors: Tensor, centres: Tensor, rows: Tensor) -> Tensor:
    """L_Fintra (eq. 8): the mean over classes of the mean distance of a class's vectors to its centre.

    Args:
        vectors: Feature vectors (V, L).
        centres: Their centres (K, L).
        rows: The centre of each vector (V,).
    """
    distances = (vectors - centres[rows]).norm(dim=1)
    counts = rows.bincount(minlength=len(centres))
    return _mean(distances.new_zeros(len(centres)).index_add(0, rows, distances) / counts)


def _mean(values: Tensor) -> Tensor:
    """The mean, or 0 if there are no values."""
    return values.sum() / max(1, len(values))
