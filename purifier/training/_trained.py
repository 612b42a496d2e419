"""Starting from the weights of a trained purifier."""

from __future__ import annotations

from purifier._errors import OptionError
from purifier._purifier import Purifier
from purifier.methods._base import Method


def load_trained(network: Method, source: str) -> None:
    """Loads the weights of a trained purifier of the same kind and size.

    Args:
        network: What is to be trained.
        source: Name or folder of the purifier.

    Raises:
        OptionError: Where its weights are of another kind or size.
    """
    copy_weights(network, Purifier.from_pretrained(source).method, source)


def copy_weights(network: Method, trained: Method, source: str) -> None:
    """Does what `load_trained` does with a purifier that is loaded; `source` is what an error calls it."""
    try:
        network.load_state_dict(trained.state_dict())
    except RuntimeError:
        raise OptionError(
            f"expected init to name a {type(network).__name__} of the size that is trained, {network.options}, got "
            f"{source!r}, a {type(trained).__name__} with {trained.options}; change the settings of the network"
        ) from None
