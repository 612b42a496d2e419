"""Makes pages of texts that stand elsewhere in the repository, and mends links and line breaks.

A Markdown link such as `[card](../weights/gs/README.md)` works on a git host as it stands. On the site it leads to the
page that is made of that file. A link whose text is the name of a file gets the title of the page instead.
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
# The text of a link, if that is the name of a file; its target and anchor.
_LINK = re.compile(r"(\[[\w./-]+\.md)?\]\(([^)\s#]+)(#[^)\s]*)?\)")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
# A line of a toctree that names the pages that a later version may have.
_PATTERN = re.compile(r"^([\w/]+\*)\n", re.MULTILINE)
# An interval in a table, such as (84-90), which a browser would break at the hyphen.
_INTERVAL = re.compile(r"\((\d+)-(\d+)\)")
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
        text = f"[{_TITLE.findall(target.read_text(encoding='utf-8'))[0]}" if match[1] else ""
        target = known.get(target, target)
        return f"{text}]({os.path.relpath(target, page.parent)}{match[3] or ''})"

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


def mend(app: Sphinx, docname: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(docname))
    source[0] = _INTERVAL.sub("(\\1\N{NON-BREAKING HYPHEN}\\2)", source[0])
    if page.suffix == ".md" and page.parent.name not in ("cards", "project"):
        text = _PATTERN.sub(lambda match: match[0] if any(page.parent.glob(f"{match[1]}.*")) else "", source[0])
        source[0] = relink(text, page, page)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write_pages)
    app.connect("source-read", mend)
    return {"parallel_read_safe": True}
