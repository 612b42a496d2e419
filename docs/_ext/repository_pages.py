"""Makes pages of texts that stand elsewhere in the repository, and mends the links to them.

A Markdown link such as `[card](../weights/gs/README.md)` works on a git host as it stands. On the site it leads to the
page that is made of that file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "project/security.md",
    "benchmarks/KIT.md": "project/kit.md",
    "benchmarks/README.md": "project/benchmarks.md",
}
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
# A line of a toctree that names the pages that a later version may have.
_PATTERN = re.compile(r"^([\w/]+\*)\n", re.MULTILINE)
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def pages() -> dict[Path, Path]:
    """Returns the page of each text that becomes one."""
    cards = {path: DOCS / "cards" / f"{path.parent.name}.md" for path in ROOT.glob("weights/*/README.md")}
    return cards | {ROOT / text: DOCS / page for text, page in PAGES.items()}


def relink(text: str, source: Path, page: Path) -> str:
    """Returns a text of the file `source` with the links that the page `page` needs."""

    def link(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / match[2]))
        if "://" in match[2] or not target.exists():
            return match[0]
        target = known.get(target, target)
        return f"{match[1]}{os.path.relpath(target, page.parent)}{match[3] or ''}{match[4]}"

    known = pages()
    return _LINK.sub(link, text)


def write_pages(app: Sphinx) -> None:
    """Writes the pages whose texts have changed."""
    for source, page in pages().items():
        if page.name != "index.md":
            text = relink(_FRONT.sub("", source.read_text(encoding="utf-8")), source, page)
            write(page, text)


def write(page: Path, text: str) -> None:
    """Writes a page, unless it is there."""
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        page.parent.mkdir(exist_ok=True)
        page.write_text(text, encoding="utf-8")


def mend_links(app: Sphinx, docname: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(docname))
    if page.suffix == ".md" and page.parent.name not in ("cards", "project"):
        text = _PATTERN.sub(lambda match: match[0] if any(page.parent.glob(f"{match[1]}.*")) else "", source[0])
        source[0] = relink(text, page, page)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write_pages)
    app.connect("source-read", mend_links)
    return {"parallel_read_safe": True}
