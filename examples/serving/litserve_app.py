"""LitServe: one machine, one worker process for each device, with batches.

cd examples/serving && python litserve_app.py --port 8000
curl --data-binary @picture.png http://127.0.0.1:8000/predict ; curl http://127.0.0.1:8000/metrics/
"""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import Any

# The worker and the server are processes, whose counters prometheus_client adds up in a folder.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp())

import litserve as ls
from classifier import MOST_BYTES, Classifier, is_attacked, read
from fastapi import HTTPException, Request
from prometheus_client import CollectorRegistry, Counter, make_asgi_app, multiprocess

IMAGES = Counter("images", "Images that were classified")
ATTACKED = Counter("attacked_images", "Images whose attack score is above the threshold")


class API(ls.LitAPI):
    """Bodies in, answers out; a picture that cannot be read is an answer of its own and leaves its batch alone."""

    def setup(self, device: str) -> None:
        self.classifier = Classifier()

    async def decode_request(self, request: Request) -> Any:
        content = b""
        async for chunk in request.stream():
            content += chunk
            if len(content) > MOST_BYTES:
                raise HTTPException(413, f"expected at most {MOST_BYTES} bytes")
        try:
            return read(content)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: list[Any]) -> list[dict[str, Any]]:
        answers = self.classifier(x)
        IMAGES.inc(len(answers))
        ATTACKED.inc(sum(map(is_attacked, answers)))
        return answers

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    server = ls.LitServer(API(max_batch_size=16, batch_timeout=0.005), accelerator="auto")
    server.app.mount("/metrics", make_asgi_app(registry=registry))
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False)
