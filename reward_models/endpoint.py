"""A chat model behind an OpenAI-compatible endpoint, such as `vllm serve`."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tulu.errors import EngineError
from tulu.types import Message

THREADS = 10
PATIENCE = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts while an endpoint is busy or unreachable."""
TIMEOUT = 600.0
"""Seconds that one reply may take."""
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)


class Endpoint:
    """Greedy replies from `BASE/chat/completions`."""

    def __init__(self, base: str, model: str, api_key_env: str, patience: Sequence[float] | None = None) -> None:
        if not base.startswith(("http://", "https://")):
            raise EngineError(f"--endpoint {base}: not an address; give the base URL, such as http://localhost:8000/v1")
        self.url = base.rstrip("/") + "/chat/completions"
        self.model = model
        self.patience = PATIENCE if patience is None else patience
        self.headers = {"Content-Type": "application/json"}
        key = os.environ.get(api_key_env)
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        # Where the model is served is not what it says: another port resumes the same evaluation.
        self.settings: dict[str, Any] = {"backend": "endpoint"}

    def close(self) -> None:
        """Nothing is held open."""

    def replies(self, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[str | None]:
        """Replies in order; None for a conversation the server refuses (400: too long for the model).

        Raises EngineError if the server cannot be reached, wants a key, knows no such model, or refuses everything.
        """
        if not chats:
            return []
        with ThreadPoolExecutor(THREADS) as threads:
            futures = [threads.submit(self._reply, chat, max_tokens) for chat in chats]
            try:
                found = [future.result() for future in futures]
            except BaseException:
                # One dead call means a dead server: the other calls need not wait out their attempts too.
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        refusals = [reply.reason for reply in found if isinstance(reply, Refusal)]
        if len(refusals) == len(found):
            raise EngineError(f"{self.url} refuses every request: {refusals[0]}")
        return [None if isinstance(reply, Refusal) else reply for reply in found]

    def _reply(self, chat: Sequence[Message], max_tokens: int) -> "str | Refusal":
        body = {"model": self.model, "messages": list(chat), "temperature": 0, "max_tokens": max_tokens}
        for pause in (*self.patience, None):
            try:
                return self._post(body)
            except _Busy as busy:
                if pause is None:
                    raise EngineError(
                        f"{self.url} does not answer after {len(self.patience) + 1} attempts ({busy}). What was judged is kept: "
                        "run the same command again once the server is up, and it resumes"
                    ) from None
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _post(self, body: dict[str, Any]) -> "str | Refusal":
        request = urllib.request.Request(self.url, json.dumps(body).encode(), self.headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return self._content(response.read())
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.reason}: {_message(error.read())}"
            if error.code in _BUSY:
                raise _Busy(reason) from error
            if error.code in (400, 413, 422):
                return Refusal(reason)
            cure = (
                "set the key's environment variable, or name it with --api-key-env"
                if error.code in (401, 403)
                else "check URL and MODEL"
            )
            raise EngineError(f"{self.url}: {reason}; {cure}") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise _Busy(str(error)) from error

    def _content(self, raw: bytes) -> str:
        try:
            content = json.loads(raw)["choices"][0]["message"]["content"]
        except (json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
            raise EngineError(f"{self.url}: not an OpenAI-compatible reply ({raw[:120]!r}); check the URL") from error
        # A reasoning model that used up its tokens while thinking has said nothing.
        return content if isinstance(content, str) else ""


class Refusal:
    """A request that the server will not serve, however often it is sent."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Busy(Exception):
    """A server that may answer later."""


def _message(raw: bytes) -> str:
    """What an error's body says, in one line."""
    try:
        body = json.loads(raw)
        found = body.get("error", body)
        return str(found.get("message", found) if isinstance(found, dict) else found)[:200]
    except (json.JSONDecodeError, AttributeError):
        return raw[:200].decode("utf-8", "replace")
