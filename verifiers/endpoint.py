"""Chat completions from any OpenAI-compatible endpoint, such as `vllm serve`; all of the package's HTTP goes through here.

The client is httpx2, which every install has already: huggingface_hub and openai both stand on it. The openai package itself
would be one more to install, and its own retries would hide what an endpoint answered.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

LARGEST_REPLY = 4 << 20
"""Bytes of a reply that are read."""
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
_REFUSED = (400, 413, 422)


class EndpointError(Exception):
    """An endpoint gave no usable reply; the message says what it answered."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        """The HTTP status, None where there was no answer or one that cannot be read."""


class Busy(EndpointError):
    """The endpoint is overloaded, starting or unreachable, and may answer later."""


class TimedOut(Busy):
    """No answer came in time."""


class Refused(EndpointError):
    """The endpoint will not serve this request however often it is sent, as when it is too long for the model."""


class Unusable(EndpointError):
    """The endpoint serves no request like this one: wrong key, wrong URL, unknown model, or not the expected format."""


@lru_cache(maxsize=1)
def _client() -> Any:
    """One client for the whole process: it is safe to share between threads, and keeps connections open."""
    import httpx2

    return httpx2.Client(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=32))


def post_json(url: str, body: Any, *, timeout: float, headers: Mapping[str, str] | None = None, most: int = LARGEST_REPLY) -> Any:
    """Posts JSON and returns the JSON of the answer; EndpointError where there is none.

    `timeout` is in seconds, for connecting and for each wait of the answer; `most` is in bytes of the answer.
    """
    import httpx2

    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    try:
        with _client().stream("POST", url, content=content, headers=headers, timeout=timeout) as response:
            raw = bytearray()
            for part in response.iter_bytes():
                raw += part
                if len(raw) > most:
                    raise Unusable(f"a reply of more than {most} bytes")
    except httpx2.TimeoutException as fault:
        raise TimedOut(f"no answer within {timeout:.0f} s") from fault
    except httpx2.RequestError as fault:
        raise Busy(f"{type(fault).__name__}: {fault}") from fault
    except (httpx2.InvalidURL, UnicodeError) as fault:
        raise Unusable(str(fault)) from fault
    if not response.is_success:
        status = response.status_code
        kind = Busy if status in _BUSY else Refused if status in _REFUSED else Unusable
        raise kind(f"{status} {response.reason_phrase}: {_error_message(bytes(raw))}", status)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as fault:
        raise Unusable(f"no JSON ({bytes(raw[:120])!r})") from fault


def _error_message(raw: bytes) -> str:
    """The message in the body of an error, such as `{"error": {"message": ...}}`; else the start of the body."""
    try:
        body = json.loads(raw)
        error = body.get("error", body)
        return str(error.get("message", error) if isinstance(error, dict) else error)[:200]
    except (ValueError, AttributeError, RecursionError):
        return raw[:200].decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Reply:
    """The text of one reply, None where the model wrote none, and the tokens that it cost."""

    text: str | None
    tokens_in: int
    tokens_out: int


class Endpoint:
    """One chat model at `BASE/chat/completions`, asked greedily."""

    def __init__(self, base: str, model: str, key: str = "") -> None:
        self.url = base.rstrip("/") + "/chat/completions"
        self.model = model
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def complete(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int,
        *,
        timeout: float,
        pauses: Sequence[float] = (),
        **options: Any,
    ) -> Reply:
        """The reply to a conversation; EndpointError where none comes. `options` are further fields of the request.

        A busy endpoint is tried again after each of the `pauses`, in seconds.
        """
        request = {"model": self.model, "messages": list(messages), "temperature": 0, "max_tokens": max_tokens, **options}
        for pause in pauses:
            try:
                return self._post(request, timeout)
            except Busy:
                time.sleep(pause)
        return self._post(request, timeout)

    def _post(self, request: dict[str, Any], timeout: float) -> Reply:
        body = post_json(self.url, request, timeout=timeout, headers=self._headers)
        try:
            text, usage = body["choices"][0]["message"]["content"], body.get("usage")
        except (KeyError, IndexError, TypeError, AttributeError) as fault:
            raise Unusable(f"not an OpenAI-compatible reply ({json.dumps(body)[:120]})") from fault
        return Reply(text if isinstance(text, str) else None, _tokens(usage, "prompt"), _tokens(usage, "completion"))


def _tokens(usage: Any, kind: str) -> int:
    count = usage.get(f"{kind}_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0
