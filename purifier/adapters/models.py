"""A defended model as one module of images in [0, 1], for libraries that attack such models."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from purifier._attaching import as_purified_model
from purifier._errors import InputError, OptionError
from purifier._purifier import Purifier
from purifier.attacks.bpda import straight_through, through_floors
from purifier.attacks.losses import logits_in
from purifier.attacks.threats import whole_model
from purifier.models.layers import in_eval


class Attackable(nn.Module):
    """Purifier and model as a function of RGB images (N, 3, H, W) in [0, 1] that returns logits (N, K).

    The model is called in eval mode; its own mode does not change. Gradients are exact. Of a purifier without a useful
    one, such as "jpeg", they are those of the identity (BPDA).

    Args:
        defended: What `purifier.wrap` returned, or a model with a purifier attached.

    Raises:
        OptionError: If it has no purifier.
    """

    def __init__(self, defended: Callable[..., Any]) -> None:
        super().__init__()
        found = as_purified_model(defended)
        if found is None:
            raise OptionError(
                f"expected a model behind a purifier, got {type(defended).__name__}; call purifier.wrap first"
            )
        exact = getattr(found.purifier, "differentiable", True)
        self.defended = whole_model(through_floors(found) if exact else straight_through(found))
        # Not eval(), which would change the mode of the model too.
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits.

        Raises:
            InputError: If the model returns something else.
        """
        with in_eval(self):
            logits = logits_in(self.defended(images))
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise InputError(f"expected logits (N, K) from the model, got {type(logits).__name__}")
        return logits


def as_robustbench(defended: Callable[..., Any]) -> nn.Module:
    """Returns a defended classifier as RobustBench and AutoAttack take it: images in [0, 1] to logits.

    Args:
        defended: What `purifier.wrap` returned, or a model with a purifier attached. It is shared, not copied.

    Returns:
        A module that calls the model in eval mode, without changing the model's own. Gradients are exact; those of a
        purifier without useful ones are the identity's (BPDA).

    Raises:
        OptionError: If it has no purifier.

    Example:
        >>> import torch, purifier
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10)).eval()
        >>> as_robustbench(purifier.wrap(model, "gs"))(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 10])
    """
    return Attackable(defended)


def as_foolbox(defended: Callable[..., Any], **options: Any) -> Any:
    """Returns a defended classifier as a `foolbox.PyTorchModel` with bounds (0, 1), which Foolbox's attacks take.

    Args:
        defended: What `purifier.wrap` returned, or a model with a purifier attached. It is shared, not copied.
        options: Options of `foolbox.PyTorchModel` other than bounds and preprocessing, such as device="cpu".

    Raises:
        OptionError: If it has no purifier.
        InputError: If Foolbox is not installed.
    """
    check_installed("foolbox", "foolbox")
    import foolbox

    return foolbox.PyTorchModel(Attackable(defended), bounds=(0, 1), **options)


def check_purifier(purifier: object) -> None:
    """Checks that something is a purifier.

    Raises:
        OptionError: If it is not.
    """
    if not isinstance(purifier, Purifier):
        raise OptionError(f"expected a Purifier, got {type(purifier).__name__}; call Purifier.from_pretrained first")


def check_installed(package: str, distribution: str) -> None:
    """Checks that another library is installed, without importing it.

    Raises:
        InputError: If it is not.
    """
    if find_spec(package) is None:
        raise InputError(f"expected the package {package}, got none; install it with pip install {distribution}")
