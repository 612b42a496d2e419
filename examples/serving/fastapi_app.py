"""FastAPI: one process, whose thread pool runs the model. No batches: for a CPU, or a few requests a second.

cd examples/serving && uvicorn fastapi_app:app --port 8000
curl --data-binary @picture.png http://127.0.0.1:8000/predict ; curl http://127.0.0.1:8000/metrics/
"""

from __future__ import annotations

from typing import Any

from classifier import MOST_BYTES, Classifier, is_attacked, read
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from prometheus_client import Counter, Histogram, make_asgi_app

IMAGES = Counter("images", "Images that were classified")
ATTACKED = Counter("attacked_images", "Images whose attack score is above the threshold")
SECONDS = Histogram("predict_seconds", "Time of a prediction")

app = FastAPI()
app.mount("/metrics", make_asgi_app())
classifier = Classifier()


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    """Classifies the picture in the body of the request."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise HTTPException(413, f"expected at most {MOST_BYTES} bytes")
    try:
        with SECONDS.time():
            (answer,) = await run_in_threadpool(lambda: classifier([read(content)]))
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    IMAGES.inc()
    ATTACKED.inc(is_attacked(answer))
    return answer
