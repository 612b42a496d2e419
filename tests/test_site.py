"""The documentation site builds without a warning, and its links lead somewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

import purifier

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# What a build writes into docs.
WRITTEN = ("_build", "api", "cards", "project", "tour", "__pycache__")
GALLERY = sorted((DOCS / "gallery").glob("plot_*.py"))


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src") and ":" not in value:
                self.links.add(unquote(value))
            if value and name == "id":
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, from a copy of docs, so that building leaves nothing in the checkout."""
    for package in ("sphinx", "furo", "myst_parser", "sphinx_gallery"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'torch-purifier[docs]'")
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns(*WRITTEN))
    for path in ROOT.iterdir():
        if path.name != "docs":
            (root / path.name).symlink_to(path)
    # The programs of the tour run in a test of their own.
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-D", "plot_gallery=0", "docs", "html"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(build, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "html"


@pytest.mark.slow
def test_every_link_of_the_site_leads_to_a_page_and_an_anchor(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 40
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            file = (path.parent / target.partition("?")[0]).resolve() if target else path
            if not file.is_file() or (anchor and anchor not in pages[file].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


@pytest.mark.slow
def test_the_site_documents_every_public_name(site: Path) -> None:
    page = Page(site / "api" / "purifier.html")
    names = [name for name in purifier.__all__ if name != "__version__"]
    assert [name for name in names if f"purifier.{name}" not in page.anchors] == []


@pytest.mark.slow
def test_the_start_page_leads_to_what_readers_ask_first_within_two_clicks(site: Path) -> None:
    first = Page(site / "index.html").links
    second = {
        os.path.normpath(os.path.join(os.path.dirname(link), other))  # noqa: PTH118, PTH120
        for link in first
        if link.endswith(".html")
        for other in Page(site / link).links
    }
    for wanted in (
        "frameworks/transformers.html", "choosing.html", "threats.html",
        "training.html#adapt-alloy-s-to-your-own-model",
    ):  # fmt: skip
        assert wanted in first | second


@pytest.mark.slow
def test_the_programs_of_the_tour_run_offline(tmp_path: Path) -> None:
    environment = os.environ | {"MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"}
    # One after another in one process, which imports torch once.
    code = "import runpy, sys\nfor program in sys.argv[1:]:\n    runpy.run_path(program, run_name='__main__')"
    run = [sys.executable, "-c", code, *map(str, GALLERY)]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert GALLERY and done.returncode == 0, done.stderr
