"""The three services: they answer with a prediction and the attack score, refuse what is no picture, and count."""

from __future__ import annotations

import base64
import contextlib
import importlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from purifier import Purifier, reference_model
from purifier._images import take_apart
from tests.scale.pictures import encoded

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "serving"
PROGRAMS = {
    "fastapi": ["-m", "uvicorn", "fastapi_app:app", "--port"],
    "litserve": ["litserve_app.py", "--port"],
    "ray": ["-c", "import sys, ray; from ray import serve; from ray_serve_app import app; "
            "ray.init('local', num_cpus=2, object_store_memory=80 << 20, _metrics_export_port=int(sys.argv[1]) + 1); "
            "serve.start(http_options={'port': int(sys.argv[1])}); serve.run(app); serve.run(app, blocking=True)"],
}  # fmt: skip
# Ports of services that take JSON.
TAKES_JSON: set[int] = set()
pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(name: str, tmp_path: Path) -> Iterator[int]:
    """Starts a service, and ends it with everything that it started."""
    port, log = free_port(), tmp_path / "log"
    if name == "litserve":
        TAKES_JSON.add(port)
    # What a cluster of another test has left in the environment would lead to it.
    others = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *PROGRAMS[name], str(port)], cwd=FOLDER, stdout=output, stderr=output,
            start_new_session=True, env={**others, "RAY_AUTH_MODE": "disabled"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 200
        while not answers(port):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.3)
        yield port
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            process.send_signal(signal.SIGINT)
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):  # workers that are left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: int) -> bool:
    try:
        status, answer = post(port, b"no picture")
        return b"expected a PNG" in (answer if status == 400 else json.dumps(answer).encode())
    except (OSError, urllib.error.URLError):
        return False


def post(port: int, content: bytes) -> tuple[int, Any]:
    if port in TAKES_JSON:
        content = json.dumps({"image": base64.b64encode(content).decode()}).encode()
    headers = {"Content-Type": "application/json" if port in TAKES_JSON else "application/octet-stream"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", content, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def count(url: str, name: str) -> float:
    with urllib.request.urlopen(url, timeout=10) as response:
        found = re.findall(rf"^(?:ray_)?{name}(?:_total)?(?:{{.*}})? (\S+)$", response.read().decode(), re.MULTILINE)
    return sum(map(float, found))


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_service_answers_counts_and_refuses(name: str, tmp_path: Path) -> None:
    for package in ("prometheus_client", {"fastapi": "fastapi", "litserve": "litserve", "ray": "ray.serve"}[name]):
        if importlib.util.find_spec(package.split(".")[0]) is None:
            pytest.skip(f"needs {package}")
    pictures = [encoded(number, size=(64, 64) if number % 2 else (48, 40)) for number in range(8)]
    with running(name, tmp_path) as port:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda content: post(port, content), pictures))
        assert post(port, b"x" * (10 * 2**20 + 1))[0] == 413
        metrics = f"http://127.0.0.1:{port + 1}/metrics" if name == "ray" else f"http://127.0.0.1:{port}/metrics/"
        deadline = time.monotonic() + 30  # Ray reports every few seconds
        while count(metrics, "images") < 8:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        attacked = count(metrics, "attacked_images")
    assert [status for status, _ in found] == [200] * 8
    purifier, classifier = Purifier.from_pretrained("alloy-s"), reference_model("demo").eval()
    with torch.inference_mode():
        for content, (_, answer) in zip(pictures, found, strict=True):
            image = take_apart(content).rgb[None]
            assert answer["attack_score"] == pytest.approx(purifier.attack_score(image).item(), abs=1e-4)
            probabilities = classifier(purifier(image)).softmax(1)[0]
            assert answer["class"] == classifier.classes[int(probabilities.argmax())]  # type: ignore[index]
            assert answer["probability"] == pytest.approx(probabilities.max().item(), abs=1e-3)
    assert attacked == sum(answer["attack_score"] > 0.5 for _, answer in found)


def test_a_picture_that_states_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    content = bytearray(encoded(0))
    # The width and height in the header, whose checksum covers them.
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with pytest.raises(ValueError, match="expected at most 4000000 pixels"):
        importlib.import_module("classifier").read(bytes(content))
