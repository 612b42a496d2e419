"""Functions that an option names as "module:function" or "file.py:function"."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from purifier._errors import OptionError, nearest


def import_named(name: str, option: str, known: str = "") -> Callable[..., Any]:
    """Returns the function or class of a name.

    Args:
        name: "module:function", of a module on the path or in the working directory; or "file.py:function".
        option: The option whose value the name is, for messages.
        known: The other values that the option takes, for messages.

    Raises:
        OptionError: If the name has another form, or there is no function or class of that name.
    """
    place, _, attribute = name.rpartition(":")
    if not (place and attribute):
        raise OptionError(
            f"expected {option}={known}{' or ' if known else ''}'module:function' or 'file.py:function', got {name!r}"
        )
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    except (ImportError, OSError, SyntaxError, TypeError, ValueError) as error:
        raise _cannot(name, option, error) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise OptionError(
            f"expected {option} to name a function of {place}, got {attribute!r}, which it does not have"
            f"{nearest(attribute, names)}"
        )
    return found


def make_module(name: str, option: str, known: str = "") -> nn.Module:
    """Calls the function of a name without arguments and returns the module that it makes.

    See `import_named` for the arguments.

    Raises:
        OptionError: If there is no such function, the call fails, or it does not return a module.
    """
    function = import_named(name, option, known)
    try:
        made = function()
    except TypeError as error:
        raise _cannot(name, option, error) from error
    if not isinstance(made, nn.Module):
        raise OptionError(f"expected {name} to return an nn.Module, got {type(made).__name__}")
    return made


def _import_module(place: str) -> ModuleType:
    # A console script, unlike python -m, does not see the modules of the working directory.
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    sys.path.insert(0, here)
    try:
        return importlib.import_module(place)
    finally:
        sys.path.remove(here)


def _import_file(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if found is None or found.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(found)
    # Pickles and type hints look up a class's module by name.
    sys.modules.setdefault(path.stem, module)
    found.loader.exec_module(module)
    return module


def _cannot(name: str, option: str, error: Exception) -> OptionError:
    return OptionError(
        f"expected {option}='module:function' that can be imported and called, got {name!r}: {error}; start in the "
        "module's folder, or add that folder to PYTHONPATH"
    )
