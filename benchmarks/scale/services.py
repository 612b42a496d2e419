"""Starts the example services, and asks them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "serving"
PROGRAMS = {
    "fastapi": ["-m", "uvicorn", "--log-level", "warning", "fastapi_app:app", "--port"],
    "litserve": ["litserve_app.py", "--port"],
    "ray": ["-c", "import sys, ray; from ray import serve; from ray_serve_app import app; "
            "ray.init('local', num_cpus=2, object_store_memory=80 << 20, _metrics_export_port=int(sys.argv[1]) + 1); "
            "serve.start(http_options={'port': int(sys.argv[1])}); serve.run(app); serve.run(app, blocking=True)"],
}  # fmt: skip
# Seconds that the start of a service may take.
_LIMIT = 200


class Client:
    """A connection to a service, which stays open.

    Args:
        program: Name of the service.
        port: Its port.
    """

    def __init__(self, program: str, port: int) -> None:
        self._json = program == "litserve"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def post(self, content: bytes) -> tuple[int, Any]:
        """Sends a picture; returns the status, and the answer, as bytes if it is an error."""
        if self._json:
            content = json.dumps({"image": base64.b64encode(content).decode()}).encode()
        headers = {"Content-Type": "application/json" if self._json else "application/octet-stream"}
        self._connection.request("POST", "/predict", content, headers)
        response = self._connection.getresponse()
        answer = response.read()
        return response.status, json.loads(answer) if response.status == 200 else answer

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(program: str, log: Path, **variables: str) -> Iterator[tuple[int, int]]:
    """Starts a service, yields its port and process, and ends it with everything that it started.

    Args:
        program: Name of the service.
        log: File for its output.
        variables: Environment variables, such as PURIFIER="none".
    """
    port = free_port()
    # What another cluster has left in the environment would lead to it.
    others = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *PROGRAMS[program], str(port)], cwd=FOLDER, stdout=output, stderr=output,
            start_new_session=True, env={**others, "RAY_AUTH_MODE": "disabled", **variables},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _LIMIT
        while not _answers(program, port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{program} did not start: {log.read_text()[-3000:]}")
            time.sleep(0.3)
        yield port, process.pid
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            process.send_signal(signal.SIGINT)
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):  # workers that are left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(program: str, port: int) -> bool:
    try:
        with contextlib.closing(Client(program, port)) as client:
            return "expected a PNG" in str(client.post(b"no picture")[1])
    except (OSError, http.client.HTTPException):
        return False
