"""Two image services behind purifiers, under attacks that are made without them: the table of the NCIS paper's Table 2.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.services mobilenet_v2
    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.services lite1

A service is a local HTTP server that gets a PNG file and answers with its five likeliest labels. The attack is that of
the paper: targeted PGD, eps 16/255, on several classifiers at once, MobileNetV2, EfficientNet-Lite0 and Lite1. The
service's own network is one of them, so the attack is stronger than one on other networks alone. Pairs, choice of
iterations and measures are those of `purifier.evaluation.evaluate_ranked`.

A run that was stopped resumes from --work. Results: services_<service>.json. The Lite classifiers come from PyPI:
`pip install "torch-purifier[judges]"`.
"""

from __future__ import annotations

import argparse
import io
import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from benchmarks import kit
from benchmarks.lite import lite0, lite1
from benchmarks.markdown import percent, table
from purifier import Purifier
from purifier.evaluation import RankedSettings, evaluate_ranked, unlabelled_images
from purifier.evaluation.ranked.table import as_json

SERVICES = {
    "mobilenet_v2": lambda: kit.model("mobilenet_v2"),
    "lite0": lite0,
    "lite1": lite1,
}
PURIFIERS = ("jpeg", "median", "gs", "ncis", "alloy-s", "nrp-resg")
ITERATIONS = (1, 2, 3, 5, 7)
MEASURES = {"prediction_accuracy": "prediction", "top1_accuracy": "top 1", "top5_accuracy": "top 5"}


@contextmanager
def serving(model: nn.Module) -> Iterator[str]:
    """Serves a classifier of images in [0, 1] on a free port of this machine; yields the address.

    A POST of a picture file gives a JSON list of the five likeliest classes, as texts.
    """
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            pixels = pil_to_tensor(Image.open(io.BytesIO(body)).convert("RGB"))[None].float() / 255
            with lock, torch.inference_mode():
                labels = [f"{index}" for index in model(pixels)[0].topk(5).indices.tolist()]
            answer = json.dumps(labels).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def client(address: str, picture: Image.Image) -> list[str]:
    """Sends a picture as PNG; returns the labels."""
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    with urllib.request.urlopen(address, buffer.getvalue(), timeout=60) as answer:
        labels: list[str] = json.load(answer)
    return labels


def markdown(service: str, found: Mapping[str, Any]) -> str:
    """The table of a service's result file."""
    heads = ["purifier", *(f"{kind}: {key}" for kind in ("clean", "attacked") for key in MEASURES.values()), "mean"]
    lines = []
    for row in found["rows"]:
        name = row["purifier"] if row["iterations"] is None else f"{row['purifier']} i={row['iterations']}"
        cells = [row[kind][key] for kind in ("clean", "attacked") for key in MEASURES]
        shares = [percent(cell["share"], cell["interval"]) for cell in cells]
        lines.append([name, *shares, percent(row["mean"])])
    text = f"{service}: {found['pairs']} pairs, of {found['tried']} images tried."
    return f"{text}\n\n{table(heads, lines)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("service", choices=[*SERVICES])
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--validation-pairs", type=int, default=20)
    parser.add_argument("--purifiers", nargs="+", default=list(PURIFIERS))
    parser.add_argument("--work", type=Path, default=Path("runs/services"), help="folder for answers and pictures")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    networks = {name: make() for name, make in SERVICES.items()}
    purifiers = {name: Purifier.from_pretrained(name, dtype="float32") for name in args.purifiers}
    with serving(networks[args.service]) as address, tqdm(unit="answer") as bar:
        found = evaluate_ranked(
            lambda picture: client(address, picture),
            unlabelled_images(kit.kit() / "imagenet_nips400" / "images", 224),
            surrogates=list(networks.values()),
            purifiers=purifiers,
            out=args.work / args.service,
            name=args.service,
            iterations=ITERATIONS,
            settings=RankedSettings(pairs=args.pairs, validation_pairs=args.validation_pairs),
            progress=bar.update,
        )
    result = as_json(found) | {"weights": kit.weights_of(purifiers), "environment": kit.environment()}
    kit.write_result(f"services_{args.service}", result)
    print(markdown(args.service, result))


if __name__ == "__main__":
    main()
