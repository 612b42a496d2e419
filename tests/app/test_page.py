"""The page in a real browser: a picture goes in, a changed prediction comes back, and nothing else comes out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale.services import free_port
from purifier.app.page import MOST_BYTES
from purifier.commands.demo import default_photographs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("gradio", reason="needs gradio, of the extra app")
    address, log = f"http://127.0.0.1:{free_port()}", tmp_path_factory.mktemp("app") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "purifier", "app", "--port", address.rsplit(":", 1)[1]],
            cwd=ROOT, stdout=output, stderr=output, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while status(address) != 200:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def status(url: str, data: bytes | None = None, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


@pytest.fixture
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs a browser: chromium")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def _motorbike() -> Path:
    """Returns a photograph whose predictions are sure, so that they are the same on every kind of processor."""
    return next(path for path in default_photographs() if path.name.startswith("motorcycle"))


def attack_and_purify(page: Any, address: str) -> dict[str, str]:
    """Drops a photograph of a motorbike on the page; returns the captions of the pictures that come back."""
    page.goto(address)
    page.locator("input[type=file]").first.set_input_files(str(_motorbike()))
    page.get_by_role("img").first.wait_for(timeout=60_000)
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Attack and purify").click()
    page.get_by_text("attack map").wait_for(timeout=120_000)
    page.wait_for_timeout(1000)
    captions = page.locator(".caption-label").all_inner_texts()
    return {name.strip(): text.strip() for name, _, text in (caption.partition(":") for caption in captions)}


def test_an_attack_changes_the_prediction_and_a_purifier_changes_it_back(address: str, browser: Any) -> None:
    found = attack_and_purify(browser.new_page(viewport={"width": 1200, "height": 900}), address)
    assert list(found) == ["clean", "attacked", "alloy-s", "gs", "perturbation x 10", "attack map"]
    assert found["clean"].startswith("motorbike") and not found["attacked"].startswith("motorbike"), found
    assert found["alloy-s"].startswith("motorbike") and found["gs"].startswith("motorbike"), found


@pytest.mark.parametrize("path", ["/etc/passwd", str(ROOT / "setup.cfg"), "setup.cfg", "../../etc/passwd"])
def test_files_of_the_machine_are_not_served(address: str, path: str) -> None:
    assert status(f"{address}/gradio_api/file={path}") in (403, 404)
    assert status(f"{address}/file={path}") in (403, 404)


def test_uploads_are_bounded(address: str) -> None:
    def upload(size: int) -> int:
        body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + b"x" * size
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        return status(f"{address}/gradio_api/upload", body + b"\r\n--x--\r\n", **headers)

    assert upload(100) == 200 and upload(MOST_BYTES + 100) == 413
