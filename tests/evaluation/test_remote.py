"""Remote models: patience, the cache, and the HTTP client against a real local server."""

import base64
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from PIL import Image

from purifier import InputError, OptionError, Purifier, reference_model
from purifier.attacks import PGD
from purifier.evaluation.remote import HTTPClient, PatientClient, RemoteError, evaluate_remote, path_reader, to_picture
from tests.builders import pictures


def picture(value: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (value, 0, 0))


class Flaky:
    """Fails a number of times, then answers."""

    name = "flaky"

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked = 0

    def __call__(self, image):
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return ["cat", str(image.getpixel((0, 0))[0])]


@pytest.fixture
def naps() -> list[float]:
    return []


def test_an_answer_is_asked_for_once(naps):
    client = Flaky()
    patient = PatientClient(client, sleep=naps.append)
    assert [patient(picture(v)) for v in (1, 2, 1)] == [["cat", "1"], ["cat", "2"], ["cat", "1"]]
    assert client.asked == patient.calls == 2 and naps == []


def test_failures_that_may_pass_are_tried_again_after_growing_waits(naps):
    client = Flaky(TimeoutError("slow"), RemoteError("busy", retry=True), ConnectionError("gone"))
    patient = PatientClient(client, wait=0.5, sleep=naps.append)
    assert patient(picture(1)) == ["cat", "1"]
    assert naps == [0.5, 1.0, 2.0] and patient.calls == 4


def test_the_wait_that_the_server_asks_for_is_kept(naps):
    patient = PatientClient(Flaky(RemoteError("busy", retry=True, wait=7)), wait=0.5, sleep=naps.append)
    patient(picture(1))
    assert naps == [7]


def test_it_gives_up_after_all_tries(naps):
    patient = PatientClient(Flaky(*[TimeoutError("slow")] * 9), retries=2, sleep=naps.append)
    with pytest.raises(RemoteError, match="expected labels from flaky, got 3 failures, the last: slow"):
        patient(picture(1))


def test_failures_that_stay_are_not_tried_again(naps):
    client = Flaky(RemoteError("HTTP 401"))
    with pytest.raises(RemoteError, match="HTTP 401"):
        PatientClient(client, sleep=naps.append)(picture(1))
    with pytest.raises(KeyError):
        PatientClient(Flaky(KeyError("a bug")), sleep=naps.append)(picture(1))
    assert client.asked == 1 and naps == []


def test_calls_keep_to_the_rate(naps):
    now = [0.0]

    def sleep(seconds):
        naps.append(seconds)
        now[0] += seconds

    def clock():
        now[0] += 0.1
        return now[0]

    patient = PatientClient(Flaky(), calls_per_second=2, sleep=sleep, clock=clock)
    for value in range(4):
        patient(picture(value))
    assert naps == pytest.approx([0.4] * 3)


def test_a_stopped_run_pays_for_no_image_twice(tmp_path, naps):
    cache = tmp_path / "answers.jsonl"
    first = PatientClient(Flaky(), cache=cache, sleep=naps.append)
    answers = [first(picture(v)) for v in range(3)]
    # As a kill in the middle of writing leaves it.
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-5])
    again = Flaky()
    second = PatientClient(again, cache=cache, sleep=naps.append)
    assert [second(picture(v)) for v in range(3)] == answers
    assert again.asked == 1
    third = Flaky()
    assert PatientClient(third, cache=cache)(picture(2)) == answers[2] and third.asked == 0


def test_threads_and_runs_that_share_a_cache_pay_for_no_image_twice(tmp_path):
    cache, times, clients = tmp_path / "answers.jsonl", [], []

    def ask(image):
        times.append(time.monotonic())
        return [str(image.getpixel((0, 0)))]

    for _ in range(2):
        clients.append(PatientClient(ask, name="toy", cache=cache, calls_per_second=100))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(clients[0], [picture(number // 2) for number in range(24)]))
    assert len(times) == 12 and answers[::2] == answers[1::2]
    assert times[-1] - times[0] >= 11 / 100 - 1e-3
    for number in range(12, 20):
        clients[1](picture(number))
    third = PatientClient(ask, name="toy", cache=cache)
    assert [third(picture(number)) for number in range(12)] == answers[::2]
    for number in range(12, 20):
        third(picture(number))
    assert len(times) == 20 and third.calls == 0


def test_answers_are_kept_before_a_failure(tmp_path, naps):
    cache = tmp_path / "answers.jsonl"
    client = Flaky()
    patient = PatientClient(client, cache=cache, retries=0, sleep=naps.append)
    patient(picture(1))
    client.failures = [TimeoutError("slow")]
    with pytest.raises(RemoteError, match="what was answered so far is kept"):
        patient(picture(2))
    assert len(cache.read_text().splitlines()) == 2


def test_the_cache_of_another_client_is_refused(tmp_path):
    cache = tmp_path / "answers.jsonl"
    PatientClient(Flaky(), cache=cache)
    with pytest.raises(OptionError, match="flaky there, model v2 here"):
        PatientClient(Flaky(), cache=cache, name="model v2")


@pytest.mark.parametrize("labels", ["cat", [1, 2], None, {"label": "cat"}])
def test_answers_that_are_no_labels_are_refused(labels):
    with pytest.raises(RemoteError, match="expected a list of labels"):
        PatientClient(lambda image: labels, name="odd")(picture(1))


@pytest.mark.parametrize("options", [{"retries": -1}, {"wait": -1}, {"calls_per_second": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(OptionError, match="expected retries >= 0"):
        PatientClient(Flaky(), **options)


# -- a real server ------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Classifies with the demo model; some paths misbehave."""

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, dict(self.headers)))
        kind, _, _ = self.path.strip("/").partition("?")
        getattr(self, f"_{kind}")(data)

    def _answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _classify(self, png: bytes) -> None:
        pixels = torch.frombuffer(bytearray(Image.open(io.BytesIO(png)).convert("RGB").tobytes()), dtype=torch.uint8)
        size = Image.open(io.BytesIO(png)).size
        images = pixels.view(1, size[1], size[0], 3).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            order = self.server.model(images)[0].argsort(descending=True)[:5].tolist()
        found = [{"name": self.server.model.classes[k]} for k in order]
        self._answer(200, json.dumps({"outputs": [{"concepts": found}]}).encode())

    def _json(self, data: bytes) -> None:
        message = json.loads(data)
        self.server.messages.append({k: v for k, v in message.items() if k != "inputs"})
        self._classify(base64.b64decode(message["inputs"][0]["image"]))

    def _form(self, data: bytes) -> None:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
                 for part in message_from_bytes(head + data).get_payload()}  # fmt: skip
        self.server.messages.append(parts["model"])
        self._classify(parts["photo"])

    def _raw(self, data: bytes) -> None:
        self._classify(data)

    def _busy(self, data: bytes) -> None:
        busy = len([path for path, _ in self.server.seen if path == "/busy"]) == 1
        if busy:
            self._answer(429, b"too many", Retry_After="3")
        else:
            self._raw(data)

    def _forbidden(self, data: bytes) -> None:
        self._answer(401, b"no such key")

    def _page(self, data: bytes) -> None:
        self._answer(200, b"<html>hello</html>")

    def _moved(self, data: bytes) -> None:
        self._answer(302, b"", Location=f"http://localhost:{self.server.server_port}/raw")

    def _slow(self, data: bytes) -> None:
        self.server.released.wait(5)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.model, served.seen, served.messages = reference_model("demo"), [], []
    served.released = threading.Event()
    served.daemon_threads = True
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{served.server_port}"
    yield served
    served.released.set()
    served.shutdown()
    served.server_close()
    thread.join()


PATH = "outputs[0].concepts[*].name"


def expected(server, image):
    with torch.inference_mode():
        order = server.model((image * 255).round().div(255)[None])[0].argsort(descending=True)[:5]
    return [server.model.classes[k] for k in order.tolist()]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("json", {"field": "inputs[0].image", "extra": {"model": "v1"}}, {"model": "v1"}),
        ("form", {"field": "photo", "body": "multipart", "extra": {"model": "v1"}}, b"v1"),
        ("raw", {"body": "raw"}, None),
    ],
)
def test_the_client_reads_the_labels_of_a_real_server(server, kind, options, message):
    image = pictures(3, 40, 48)
    client = HTTPClient(f"{server.url}/{kind}?key=secret", PATH, headers={"Authorization": "Key 7"}, **options)
    assert client(to_picture(image)) == expected(server, image)
    assert server.seen[0][1]["Authorization"] == "Key 7"
    assert server.messages == ([] if message is None else [message])
    assert "secret" not in client.name and "Key 7" not in repr(client)


def test_labels_may_be_read_by_a_function(server):
    client = HTTPClient(
        f"{server.url}/raw", lambda answer: [answer["outputs"][0]["concepts"][0]["name"].upper()], body="raw"
    )
    image = pictures(3, 40, 48)
    assert client(to_picture(image)) == [expected(server, image)[0].upper()]


def test_a_busy_server_is_asked_again_when_it_says(server, naps):
    client = PatientClient(HTTPClient(f"{server.url}/busy", PATH, body="raw"), sleep=naps.append)
    assert len(client(to_picture(pictures(3, 40, 40)))) == 5
    assert naps == [3] and client.calls == 2


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("forbidden", "got HTTP 401 Unauthorized: 'no such key'; check the key in headers"),
        ("page", "expected JSON from http://127.0.0.1:[0-9]+/page, got '<html>hello</html>'"),
        ("moved", "got HTTP 302 Found: ''; give the URL it redirects to"),
    ],
)
def test_answers_of_another_kind_get_an_error_and_no_retry(server, naps, path, text):
    client = PatientClient(HTTPClient(f"{server.url}/{path}", PATH, body="raw"), sleep=naps.append)
    with pytest.raises(RemoteError, match=text):
        client(picture(1))
    assert naps == [] and len(server.seen) == 1


def test_no_server_and_a_slow_server_may_be_tried_again(server):
    with pytest.raises(RemoteError, match=r"got none: .*; check the address") as raised:
        HTTPClient(f"{server.url}/slow", PATH, body="raw", timeout=0.2)(picture(1))
    assert raised.value.retry
    # A port that was free a moment ago.
    spare = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    spare.server_close()
    with pytest.raises(RemoteError, match="got none") as raised:
        HTTPClient(f"http://127.0.0.1:{spare.server_port}", PATH)(picture(1))
    assert raised.value.retry


@pytest.mark.parametrize(
    ("path", "answer", "text"),
    [
        ("labels[*].name", {"tags": []}, "expected 'labels' of the path .* in the answer, got the keys tags"),
        ("labels[2]", {"labels": ["a"]}, "expected 2 of the path .* in the answer.labels, got a list of 1"),
        ("labels[*].name", {"labels": [3]}, r"in the answer.labels\[\*\], got int"),
    ],
)
def test_a_path_that_does_not_fit_says_where(path, answer, text):
    with pytest.raises(RemoteError, match=text):
        path_reader(path)(answer)


def test_paths_are_read():
    assert path_reader("[*]")(["a", "b"]) == ["a", "b"]
    assert path_reader("a.b[1][*]")({"a": {"b": [[], ["c"]]}}) == ["c"]


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        (("ftp://example.org",), {}, "expected a URL that begins with http"),
        (("file:///etc/hostname",), {}, "expected a URL that begins with http"),
        (("http://example.org", "labels["), {}, "expected a path such as"),
        (("http://example.org", ""), {}, "expected a path such as"),
        (("http://example.org",), {"field": "a[*]"}, "expected a field such as"),
        (("http://example.org",), {"field": "a.b", "extra": {"a": 3}}, "expected a field that fits into extra"),
        (("http://example.org",), {"field": "[0]"}, "expected a field that fits into extra"),
        (("http://example.org",), {"body": "xml"}, "expected body='json', 'multipart' or 'raw', got 'xml'"),
        (("http://example.org",), {"timeout": 0}, "expected a timeout in seconds"),
    ],
)
def test_clients_that_cannot_work_are_refused(arguments, options, text):
    with pytest.raises(OptionError, match=text):
        HTTPClient(*arguments, **options)


# -- the evaluation -----------------------------------------------------------------------------------------------


def test_purifiers_are_scored_by_the_labels_of_a_real_server(server, tmp_path):
    clean = pictures(3, 3, 48, 48)
    with torch.inference_mode():
        own = server.model(clean).argmax(1)
    attacked = PGD(eps=16 / 255, steps=5, random_start=False)(server.model, clean, own)
    client = HTTPClient(f"{server.url}/raw", PATH, body="raw")
    purifiers = {"gs": Purifier.from_pretrained("gs", iterations=1)}
    cache = tmp_path / "answers.jsonl"
    none, gs = evaluate_remote(PatientClient(client, cache=cache), list(clean), list(attacked), purifiers)
    assert none.purifier == "none" and none.standard.prediction_accuracy == 1.0
    assert none.blind.top1_accuracy == 0.0
    assert gs.standard.images == gs.blind.images == 3
    calls = len(server.seen)
    assert calls == 12
    again = evaluate_remote(PatientClient(client, cache=cache), list(clean), list(attacked), purifiers)
    assert again == [none, gs] and len(server.seen) == calls
    assert json.loads(json.dumps(gs.to_dict()))["threat"] == "transfer"


def test_images_are_sent_and_purified_as_eight_bits():
    sent, seen = [], []

    def client(image):
        sent.append(image)
        return ["cat"]

    def purify(image):
        seen.append(image)
        return image + 0.001

    image = pictures(3, 5, 6)
    evaluate_remote(client, [image], [image], {"own": purify})
    assert all(torch.equal((x * 255).round() / 255, x) for x in seen) and len(seen) == 2
    # The two images are alike, and a thousandth more rounds to the same pixels: one call does for all four.
    assert len(sent) == 1 and sent[0].size == (6, 5) and sent[0].mode == "RGB"


@pytest.mark.parametrize(
    ("clean", "attacked", "purifiers", "text"),
    [
        ([], [], {}, "expected clean images and as many attacked ones, got 0 and 0"),
        ([torch.rand(3, 4, 4)], [torch.rand(3, 4, 5)], {}, "to have the shape"),
        ([torch.rand(3, 4, 4) * 255], [torch.rand(3, 4, 4)], {}, r"expected images in \[0, 1\]"),
        ([torch.rand(3, 4, 4)], [torch.rand(3, 4, 4)], {"none": torch.nn.Identity()}, "other names than 'none'"),
    ],
)
def test_images_that_are_no_pairs_are_refused(clean, attacked, purifiers, text):
    with pytest.raises(InputError, match=text):
        evaluate_remote(lambda image: ["cat"], clean, attacked, purifiers)
