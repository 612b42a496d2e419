"""Packages that only some parts need."""

from __future__ import annotations

from importlib.util import find_spec

from purifier._errors import PurifierError


def require_extra(package: str, *, extra: str, what: str) -> None:
    """Checks that an optional package is installed, without importing it.

    Args:
        package: Import name of the package.
        extra: The extra of this library that installs it.
        what: What needs it, such as "purifier demo".

    Raises:
        PurifierError: If it is not installed.
    """
    if find_spec(package) is None:
        raise PurifierError(
            f"expected the package {package!r} for {what}, got none; install it with "
            f'pip install "torch-purifier[{extra}]"'
        )
