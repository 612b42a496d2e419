"""What a configuration names as "module:function"."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from torch import nn

from purifier._errors import OptionError


def import_named(name: str, option: str, known: str = "") -> Any:
    """Returns what "module:function" names; the module is on the path or in the working directory.

    Args:
        name: The name.
        option: The option that it came in, for messages.
        known: What else the option may be, for messages.

    Raises:
        OptionError: Where the name has another form, or cannot be imported.
    """
    module, _, function = name.partition(":")
    if not (module and function):
        raise OptionError(f"expected {option}={known}{' or ' if known else ''}'module:function', got {name!r}")
    # A console script, unlike python -m, does not see modules of the working directory.
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, TypeError) as error:
        raise _cannot(name, option, error) from error
    finally:
        sys.path.remove(here)


def make_module(name: str, option: str, known: str = "") -> nn.Module:
    """Returns the module that the function of "module:function" makes without arguments; arguments as above.

    Raises:
        OptionError: Where the name has another form, cannot be imported or called, or makes no module.
    """
    function = import_named(name, option, known)
    try:
        made = function()
    except TypeError as error:
        raise _cannot(name, option, error) from error
    if not isinstance(made, nn.Module):
        raise OptionError(f"expected {name} to return an nn.Module, got {type(made).__name__}")
    return made


def _cannot(name: str, option: str, error: Exception) -> OptionError:
    return OptionError(
        f"expected {option}='module:function' that can be imported and called, got {name!r}: {error}; start where the "
        "module is, or put its folder on PYTHONPATH"
    )
