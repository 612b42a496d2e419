"""Ray Serve: replicas on a cluster, each with batches. For many requests a second, GPUs and several machines.

cd examples/serving && serve run ray_serve_app:app
curl --data-binary @picture.png http://127.0.0.1:8000/predict

Ray exports the counters with its own metrics, for Prometheus:
https://docs.ray.io/en/latest/cluster/metrics.html
"""

from __future__ import annotations

import asyncio
from typing import Any

from classifier import MOST_BYTES, Classifier, is_attacked, read
from ray import serve
from ray.util.metrics import Counter, Histogram
from starlette.requests import Request
from starlette.responses import JSONResponse


@serve.deployment(num_replicas=1, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Service:
    """A replica. Give it a GPU with ray_actor_options={"num_gpus": 1}, and move the model there."""

    def __init__(self) -> None:
        self.classifier = Classifier()
        self.images = Counter("images", "Images that were classified")
        self.attacked = Counter("attacked_images", "Images whose attack score is above the threshold")
        self.sizes = Histogram("batch_images", "Images in a batch", boundaries=[1, 2, 4, 8, 16])

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def classify(self, images: list[Any]) -> list[dict[str, Any]]:
        """Classifies a batch; the classifier groups it by size."""
        self.sizes.observe(len(images))
        return await asyncio.to_thread(self.classifier, images)

    async def __call__(self, request: Request) -> Any:
        content = b""
        async for chunk in request.stream():
            content += chunk
            if len(content) > MOST_BYTES:
                return JSONResponse({"detail": f"expected at most {MOST_BYTES} bytes"}, 413)
        try:
            image = await asyncio.to_thread(read, content)
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, 400)
        answer = await self.classify(image)
        self.images.inc()
        if is_attacked(answer):
            self.attacked.inc()
        return answer


app = Service.bind()
