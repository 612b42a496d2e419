"""The three services: they answer with a prediction and the attack score, refuse what is no picture, and count."""

from __future__ import annotations

import importlib
import importlib.util
import re
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.scale.services import FOLDER, PROGRAMS, Client, running
from purifier import Purifier, reference_model
from purifier._images import take_apart
from tests.scale.pictures import encoded

pytestmark = pytest.mark.slow


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

    def post(content: bytes) -> tuple[int, Any]:
        with closing(Client(name, port)) as client:
            return client.post(content)

    # Ray reports its metrics every ten seconds otherwise.
    with running(name, tmp_path / "log", RAY_metrics_report_interval_ms="500") as (port, _):
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(post, pictures))
        assert post(b"x" * (10 * 2**20 + 1))[0] == 413
        metrics = f"http://127.0.0.1:{port + 1}/metrics" if name == "ray" else f"http://127.0.0.1:{port}/metrics/"
        deadline = time.monotonic() + 30
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
