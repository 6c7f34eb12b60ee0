"""A judge behind an OpenAI-compatible endpoint: many conversations at once, and a message with a cure where it fails."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tulu.errors import EngineError
from tulu.types import Message
from tulu.verifiers.endpoint import Busy, Endpoint, EndpointError, Refused

THREADS = 10
"""Conversations that are under way at once."""
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts while an endpoint is busy or unreachable."""
TIMEOUT = 600.0
"""Seconds that one reply may take."""


class EndpointJudge:
    """Greedy replies of the model that a base URL serves under a name."""

    def __init__(self, base: str, model: str, api_key_env: str, pauses: Sequence[float] | None = None) -> None:
        if not base.startswith(("http://", "https://")):
            raise EngineError(f"--endpoint {base}: not an address; give the base URL, such as http://localhost:8000/v1")
        self.pauses = PAUSES if pauses is None else pauses
        self._endpoint = Endpoint(base, model, os.environ.get(api_key_env, ""))
        # The address is no setting of the judge: an evaluation resumes on another port.
        self.settings: dict[str, Any] = {"backend": "endpoint"}

    def close(self) -> None:
        """Does nothing: the process keeps one HTTP client for all endpoints."""

    def replies(self, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[str | None]:
        """Replies in order; None for a conversation that the server refuses (400: too long for the model).

        Raises EngineError if the server cannot be reached, wants a key, knows no such model, or refuses everything.
        """
        if not chats:
            return []
        with ThreadPoolExecutor(THREADS) as threads:
            futures = [threads.submit(self._reply, chat, max_tokens) for chat in chats]
            try:
                results = [future.result() for future in futures]
            except BaseException:
                # One dead call means a dead server: the other calls need not wait out their attempts too.
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        refusals = [result for result in results if isinstance(result, Refused)]
        if len(refusals) == len(results):
            raise EngineError(f"{self._endpoint.url} refuses every request: {refusals[0]}")
        return [None if isinstance(result, Refused) else result for result in results]

    def _reply(self, chat: Sequence[Message], max_tokens: int) -> str | Refused:
        url = self._endpoint.url
        try:
            # A reasoning model that used up its tokens while thinking has written no text.
            return self._endpoint.complete(chat, max_tokens, timeout=TIMEOUT, pauses=self.pauses).text or ""
        except Refused as refusal:
            return refusal
        except Busy as busy:
            raise EngineError(
                f"{url} does not answer after {len(self.pauses) + 1} attempts ({busy}). What was judged is kept: "
                "run the same command again once the server is up, and it resumes"
            ) from busy
        except EndpointError as error:
            key = error.status in (401, 403)
            cure = "set the key's environment variable, or name it with --api-key-env" if key else "check URL and MODEL"
            raise EngineError(f"{url}: {error}; {cure}") from error
