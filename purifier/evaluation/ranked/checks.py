"""Checks of what an evaluation of a service is given, before the service is asked anything."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from purifier._errors import InputError, OptionError, PurifierError, shown
from purifier._identity import purifier_identity
from purifier._options import check_integer
from purifier._purifier import Purifier
from purifier.attacks import Attack, Ensemble
from purifier.data.sets import ImageSet
from purifier.evaluation.plan import UNDEFENDED, check_named
from purifier.models.layers import check_eval


def check_kinds(client: Any, data: Any, attack: Any) -> None:
    """Checks the kinds of client, images and attack.

    Raises:
        OptionError: If one is something else.
        InputError: If there are no images.
    """
    if not callable(client):
        raise OptionError(f"expected a function from a picture to labels as client, got {shown(client)}")
    if not isinstance(data, ImageSet):
        raise OptionError(f"expected a set of images, such as unlabelled_images(folder, 224), got {shown(data)}")
    if not isinstance(attack, Attack):
        raise OptionError(f"expected an attack such as PGD(targeted=True), got {shown(attack)}")
    if not len(data):
        raise InputError("expected at least one image, got none")


def service_name(client: Callable[..., Any], name: Any) -> str:
    """Returns the name that tells a service from others in the records.

    Raises:
        OptionError: If the client is no plain function, and no name is given.
    """
    if not isinstance(name, str):
        raise OptionError(f"expected name as a text, got {shown(name)}")
    if name:
        return name
    if not inspect.isfunction(client) or "<" in client.__qualname__:
        raise OptionError(
            f"expected name=..., which tells services apart in the records, with a client that is no plain function, "
            f"got {shown(client)}"
        )
    return f"{client.__module__}:{client.__qualname__}"


def check_purifiers(purifiers: Any, iterations: Any) -> list[int]:
    """Checks the purifiers, and sets every number of iterations once; returns the numbers in order.

    Raises:
        OptionError: If purifiers are not given by name, or numbers are none of iterations.
    """
    check_named("purifiers", purifiers, "Purifier", lambda one: isinstance(one, Purifier))
    if UNDEFENDED in purifiers:
        raise OptionError(f"expected another name than {UNDEFENDED!r}, which is that of no purifier")
    if not isinstance(iterations, Sequence) or isinstance(iterations, str):
        raise OptionError(f"expected iterations as a list of numbers, got {shown(iterations)}")
    numbers = sorted({check_integer("iterations", number, low=1) for number in iterations})
    for purifier in purifiers.values():
        purifier_identity(purifier)
        if hasattr(purifier, "iterations"):
            tried = copy.deepcopy(purifier)
            for number in numbers:
                tried.iterations = number
    return numbers


def together(surrogates: Any, data: ImageSet, device: torch.device) -> Ensemble:
    """Returns the surrogates as one model, after a try with one image.

    Raises:
        OptionError: If there is none, or one cannot be called.
        InputError: If one is not in eval mode, fails, or does not classify, or if they have different classes.
    """
    if not isinstance(surrogates, Sequence):
        raise OptionError(f"expected surrogates as a list of models, got {shown(surrogates)}")
    surrogate = Ensemble(*surrogates)
    image = _first(data)[None].to(device)
    shapes = []
    for model in surrogates:
        check_eval(model)
        shapes.append(_shape(model, image))
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or shapes[0][0] != 1 or shapes[0][1] < 2:
        raise InputError(
            f"expected surrogates that classify, with the same classes: logits (1, classes) of one image, got "
            f"{', '.join(map(str, shapes))}; leave out those that differ"
        )
    return surrogate


def _first(data: ImageSet) -> Tensor:
    """Returns the first image that can be read."""
    for index in range(len(data)):
        try:
            image: Tensor = data.load([index])[0][0]
        except InputError:
            continue
        return image
    raise InputError(f"expected images that can be read in {data.root}, got {len(data)} that cannot")


@torch.no_grad()
def _shape(model: Callable[..., Any], image: Tensor) -> tuple[int, ...]:
    try:
        found = model(image)
    except PurifierError:
        raise
    except Exception as error:  # of a model that we do not know
        raise InputError(
            f"expected surrogates that take images {tuple(image.shape)} in [0, 1], got {shown(error)}; resize the "
            "images"
        ) from error
    logits = getattr(found, "logits", found)
    if not isinstance(logits, Tensor):
        raise InputError(f"expected surrogates that return logits, got {shown(found)}")
    return tuple(logits.shape)
