"""LitServe: one machine, one worker process for each device, with batches.

cd examples/serving && python litserve_app.py --port 8000
curl --json '{"image": "BASE64 OF THE PICTURE"}' http://127.0.0.1:8000/predict ; curl http://127.0.0.1:8000/metrics/
"""

from __future__ import annotations

import argparse
import base64
import os
import tempfile
from typing import Any

# The worker and the server are processes, whose counters prometheus_client adds up in a folder.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp())

import litserve as ls
from classifier import MOST_BYTES, Classifier, is_attacked, read
from prometheus_client import CollectorRegistry, Counter, make_asgi_app, multiprocess

IMAGES = Counter("images", "Images that were classified")
ATTACKED = Counter("attacked_images", "Images whose attack score is above the threshold")


class API(ls.LitAPI):
    """A picture that cannot be read gets an answer of its own, because an error would end its batch."""

    def setup(self, device: str) -> None:
        self.classifier = Classifier()

    def decode_request(self, request: dict[str, str]) -> Any:
        try:
            return read(base64.b64decode(request["image"], validate=True))
        except (KeyError, TypeError, ValueError) as error:
            return {"detail": str(error) or "expected image"}

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: list[Any]) -> list[dict[str, Any]]:
        answers = iter(self.classifier([one for one in x if not isinstance(one, dict)]))
        found = [one if isinstance(one, dict) else next(answers) for one in x]
        scored = [answer for answer in found if "class" in answer]
        IMAGES.inc(len(scored))
        ATTACKED.inc(sum(map(is_attacked, scored)))
        return found

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
    server = ls.LitServer(
        API(max_batch_size=16, batch_timeout=0.005), accelerator="auto", max_payload_size=MOST_BYTES * 4 // 3
    )
    server.app.mount("/metrics", make_asgi_app(registry=registry))
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False)
