"""Writes one page for each public module, from its `__all__` and its docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import repository_pages
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import purifier

_PRIVATE = ("purifier.cli", "purifier.commands", "purifier.weights")
# Where each public class and function is documented, by where it is defined, and by its full and its short name.
_NAMES: dict[str, str] = {}


def public_modules() -> list[ModuleType]:
    """Returns every module that states its public names in `__all__`, except those that start with an underscore."""
    names = [found.name for found in pkgutil.walk_packages(purifier.__path__, "purifier.")]
    names = sorted(name for name in names if not name.startswith(_PRIVATE) and "._" not in name)
    modules = [importlib.import_module(name) for name in names]
    return [purifier, *(module for module in modules if hasattr(module, "__all__"))]


def page(module: ModuleType) -> str:
    """Returns the page of a module. A name that several modules export is documented on the first page only."""
    elsewhere = {}
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            full = f"{module.__name__}.{name}"
            first = _NAMES.setdefault(f"{value.__module__}.{value.__qualname__}", full)
            _NAMES[full] = first
            _NAMES.setdefault(name, first)
            if first != full:
                elsewhere[name] = first
    title = f"{module.__name__}\n{'=' * len(module.__name__)}\n\n"
    if not elsewhere:
        return f"{title}.. automodule:: {module.__name__}\n"
    links = ", ".join(f":py:obj:`{first}`" for first in elsewhere.values())
    excluded = ", ".join(elsewhere)
    return f"{title}.. automodule:: {module.__name__}\n   :exclude-members: {excluded}\n\nAlso exported: {links}.\n"


def write_pages(app: Sphinx) -> None:
    modules = public_modules()
    for module in modules:
        repository_pages.write(Path(app.srcdir) / "api" / f"{module.__name__}.rst", page(module))
    entries = "\n".join(f"   {module.__name__}" for module in modules)
    index = (
        "API reference\n=============\n\nEvery public name, by the module that exports it.\n\n"
        f".. toctree::\n   :maxdepth: 1\n\n{entries}\n"
    )
    repository_pages.write(Path(app.srcdir) / "api" / "index.rst", index)


def name_role(name: str, raw: str, text: str, line: int, inliner: Any, *_: Any) -> tuple[list[nodes.Node], list[Any]]:
    """A name in single backquotes: a link if it is public, else as it stands."""
    shown = nodes.literal(raw, text)
    public = _NAMES.get(text.removesuffix("()"))
    if public is None:
        return [shown], []
    where = inliner.document.settings.env.docname
    return [pending_xref(raw, shown, refdoc=where, refdomain="py", reftype="obj", reftarget=public)], []


def end_names(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Lets letters follow a name in backquotes, as in `Row`s, which reStructuredText does not."""
    lines[:] = [re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", line) for line in lines]


def overview(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Lists the functions and classes of a module at its beginning, with the first sentence of each."""
    if what != "module":
        return
    named = {name: getattr(obj, name) for name in obj.__all__}
    functions = {name: value for name, value in named.items() if inspect.isfunction(value)}
    classes = {
        name: value for name, value in named.items() if inspect.isclass(value) and not issubclass(value, BaseException)
    }
    entries = [(name, _sentence(value)) for name, value in (functions | classes).items()]
    lines += ["", *(f"- :py:obj:`{name} <{_NAMES[f'{obj.__name__}.{name}']}>`: {text}" for name, text in entries), ""]


def _sentence(value: Any) -> str:
    """Returns the first sentence of a docstring."""
    paragraph = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.:])\s(?=[A-Z])", paragraph)[0]


def find(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    """Leads a type to where it is documented; one that is not documented stays text."""
    if node.get("refdomain") != "py":
        return None
    public = _NAMES.get(node["reftarget"])
    domain = env.get_domain("py")
    found = public and domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, content)
    return found or content


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("public", name_role)
    app.connect("autodoc-process-docstring", overview)
    app.connect("autodoc-process-docstring", end_names)
    app.connect("builder-inited", write_pages)
    app.connect("missing-reference", find)
    return {"parallel_read_safe": True}
