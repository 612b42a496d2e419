"""A client for classifiers behind HTTP: sends an image, reads ranked labels out of the JSON that comes back."""

from __future__ import annotations

import base64
import copy
import io
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from purifier._errors import OptionError
from purifier.evaluation.remote_calls import RemoteError

if TYPE_CHECKING:
    from PIL.Image import Image

Body = Literal["json", "multipart", "raw"]
_PNG = "image/png"
_LARGEST_ANSWER = 10_000_000
_SHOWN = 200
# Statuses of a server that is busy or out of order for now.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_STEP = re.compile(r"\[(\d+|\*)\]|([^.\[\]]+)|\.(?=[^.\[\]])")


class HTTPClient:
    """Posts an image as PNG and returns the labels in the answer.

    Redirects are not followed, so that keys in the headers reach no other server. Wrap it in a `PatientClient` for
    retries, a rate and a cache.

    Args:
        url: Where to post, http or https.
        parse: Where the labels are in the JSON answer, the likeliest first, such as "outputs[0].concepts[*].name"; or a
            function of the parsed JSON.
        field: Name of the image in the request: a key of the JSON object, with dots and numbers for nested ones
            ("inputs[0].image"), or the multipart field.
        body: "json" (the PNG in base64), "multipart" (a form with a file), or "raw" (the PNG alone).
        extra: What else the JSON object or the form holds.
        headers: Headers of the request, such as an API key; they appear in no message and no file.
        timeout: Seconds to wait for an answer.
        name: What the client is called in messages and caches; the address without its query where None.

    Raises:
        OptionError: Where an option is not understood.

    Example:
        >>> HTTPClient("https://example.org/v1/classify", "labels[*].name", headers={"Authorization": "Key ..."})
        HTTPClient('https://example.org/v1/classify', body='json')
    """

    def __init__(
        self,
        url: str,
        parse: str | Callable[[Any], Sequence[str]] = "labels[*]",
        *,
        field: str = "image",
        body: Body = "json",
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        name: str | None = None,
    ) -> None:
        if not re.match(r"https?://[^/\s]+", url):
            raise OptionError(f"expected a URL that begins with http:// or https://, got {url!r}")
        if body not in ("json", "multipart", "raw"):
            raise OptionError(f"expected body='json', 'multipart' or 'raw', got {body!r}")
        if not timeout > 0:
            raise OptionError(f"expected a timeout in seconds, above 0, got {timeout}")
        self.url, self.body, self.timeout = url, body, timeout
        # A query may hold a key.
        self.name = name or re.split(r"[?#]", url)[0]
        self._parse = path_reader(parse) if isinstance(parse, str) else parse
        self._field, self._extra, self._headers = field, dict(extra or {}), dict(headers or {})
        if body == "json":
            self._message("")
        self._opener = build_opener(_NoRedirects())

    def __repr__(self) -> str:
        return f"HTTPClient({self.name!r}, body={self.body!r})"

    def __call__(self, image: Image) -> list[str]:
        """Returns the labels of an image.

        Raises:
            RemoteError: Where the server cannot be reached, refuses, or answers something else; `retry` says whether
                the same call may succeed later.
        """
        file = io.BytesIO()
        image.save(file, "PNG")
        data, kind = self._encode(file.getvalue())
        headers = {"Content-Type": kind, "Accept": "application/json", **self._headers}
        answer = self._post(Request(self.url, data=data, headers=headers, method="POST"))
        try:
            parsed = json.loads(answer)
        except ValueError:
            raise RemoteError(f"expected JSON from {self.name}, got {_shown(answer)}; check the URL") from None
        return list(self._parse(parsed))

    def _encode(self, png: bytes) -> tuple[bytes, str]:
        """Returns the request's body and its content type."""
        if self.body == "raw":
            return png, _PNG
        if self.body == "json":
            return json.dumps(self._message(base64.b64encode(png).decode())).encode(), "application/json"
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in self._extra.items()
        ]
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{self._field}"; filename="image.png"\r\n'
        parts += [f"{head}Content-Type: {_PNG}\r\n\r\n".encode(), png, f"\r\n--{boundary}--\r\n".encode()]
        return b"".join(parts), f"multipart/form-data; boundary={boundary}"

    def _message(self, image: str) -> Any:
        """Returns the JSON object of a request."""
        try:
            return _put(copy.deepcopy(self._extra), self._field, image)
        except (TypeError, AttributeError, KeyError):
            raise OptionError(
                f"expected a field that fits into extra, got {self._field!r} and the keys {', '.join(self._extra)}"
            ) from None

    def _post(self, request: Request) -> bytes:
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                answer: bytes = response.read(_LARGEST_ANSWER + 1)
        except HTTPError as error:
            raise self._refused(error) from None
        except (OSError, HTTPException) as error:  # no connection, no answer in time, an answer cut off
            reason = getattr(error, "reason", error)
            raise RemoteError(
                f"expected an answer from {self.name}, got none: {reason}; check the address and the network, or give "
                f"a timeout above {self.timeout:g} s",
                retry=True,
            ) from error
        if len(answer) > _LARGEST_ANSWER:
            raise RemoteError(f"expected an answer of labels from {self.name}, got over {_LARGEST_ANSWER} bytes")
        return answer

    def _refused(self, error: HTTPError) -> RemoteError:
        with error:
            try:
                said = _shown(error.read(_SHOWN * 4))
            except (OSError, HTTPException):
                said = "nothing"
        advice = {
            401: "check the key in headers",
            403: "check the key in headers",
            404: "check the URL",
            413: "send smaller images",
            415: "try another body",
            429: "lower calls_per_second",
        }.get(error.code, "give the URL it redirects to" if 300 <= error.code < 400 else "check the request's form")
        wait = (error.headers.get("Retry-After") or "") if error.headers else ""
        return RemoteError(
            f"expected labels from {self.name}, got HTTP {error.code} {error.reason}: {said}; {advice}",
            retry=error.code in _PASSING,
            wait=float(wait) if wait.isdecimal() else None,
        )


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def path_reader(path: str) -> Callable[[Any], list[str]]:
    """Returns a function that reads text out of parsed JSON.

    Args:
        path: Keys with dots between, [2] for an item of a list, [*] for each of them.

    Raises:
        OptionError: Where the path is not understood.

    Example:
        >>> path_reader("outputs[0].concepts[*].name")({"outputs": [{"concepts": [{"name": "cat"}, {"name": "pet"}]}]})
        ['cat', 'pet']
    """
    steps = _steps(path, wild=True)

    def read(answer: Any) -> list[str]:
        values, where = [answer], "the answer"
        for step in steps:
            values = [inner for value in values for inner in _inside(value, step, path, where)]
            where = f"{where}[{step}]" if isinstance(step, int) or step == "*" else f"{where}.{step}"
        return values

    return read


def _steps(path: str, *, wild: bool) -> list[str | int]:
    """Takes a path apart into keys, positions and "*"; keys that look like positions are written with a dot."""
    steps: list[str | int] = []
    end = 0
    for match in _STEP.finditer(path):
        if match.start() != end:
            break
        end = match.end()
        position, key = match.groups()
        if key is not None:
            steps.append(key)
        elif position is not None:
            steps.append("*" if position == "*" else int(position))
    if end != len(path) or not steps or ("*" in steps and not wild):
        form = "a path such as outputs[0].concepts[*].name" if wild else "a field such as image or inputs[0].image"
        raise OptionError(f"expected {form}, got {path!r}")
    return steps


def _inside(value: Any, step: str | int, path: str, where: str) -> list[Any]:
    if step == "*" and isinstance(value, list):
        return value
    if isinstance(step, int) and isinstance(value, list) and step < len(value):
        return [value[step]]
    if isinstance(step, str) and isinstance(value, dict) and step in value:
        return [value[step]]
    if isinstance(value, dict):
        got = f"the keys {', '.join(map(str, value)) or 'none'}"
    else:
        got = f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
    raise RemoteError(f"expected {step!r} of the path {path!r} in {where}, got {got}; give the path that the API has")


def _put(message: Any, field: str, value: str) -> Any:
    """Puts a value into a message at a path, making the objects and lists on the way."""
    steps = _steps(field, wild=False)
    place = message
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        fresh: Any = value if after is None else [] if isinstance(after, int) else {}
        if isinstance(step, int):
            while len(place) <= step:
                place.append({} if len(place) < step else fresh)
        elif after is None or step not in place:
            place[step] = fresh
        if after is None:
            place[step] = value
        place = place[step]
    return message


def _shown(answer: bytes) -> str:
    text = " ".join(answer.decode("utf-8", "replace").split())
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
