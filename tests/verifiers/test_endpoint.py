import time
from typing import Any

import pytest

from tests.endpoint_server import reply, serve
from tulu.verifiers.endpoint import Busy, Endpoint, EndpointError, Refused, TimedOut, Unusable, post_json

QUESTION = [{"role": "user", "content": "?"}]


def test_a_reply_counts_its_tokens_and_a_key_is_sent() -> None:
    requests: list[tuple[dict[str, Any], str | None]] = []

    def rule(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        requests.append((body, headers.get("Authorization")))
        return 200, {**reply("yes")[1], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}

    with serve(rule) as url:
        answer = Endpoint(url + "/", "m", "k").complete(QUESTION, 7, timeout=60, seed=0)
        Endpoint(url, "m").complete(QUESTION, 7, timeout=60)
    assert (answer.text, answer.tokens_in, answer.tokens_out) == ("yes", 3, 1)
    assert requests[0] == ({"model": "m", "messages": QUESTION, "temperature": 0, "max_tokens": 7, "seed": 0}, "Bearer k")
    assert requests[1][1] is None


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (503, {"error": "loading"}, Busy, "503 Service Unavailable: loading"),
        (400, {"error": {"message": "too long"}}, Refused, "400 Bad Request: too long"),
        (401, {"message": "no key"}, Unusable, "401 Unauthorized: no key"),
        (404, b"<html>", Unusable, "404 Not Found: <html>"),
        (302, b"", Unusable, "302"),
        (200, b"<html>", Unusable, "no JSON"),
        (200, [], Unusable, "not an OpenAI-compatible reply"),
        (200, b"[" * 100_000, Unusable, "no JSON"),
    ],
)
def test_what_is_no_reply(status: int, body: Any, kind: type, message: str) -> None:
    with serve(lambda _body, _headers: (status, body)) as url, pytest.raises(EndpointError, match=message) as fault:
        Endpoint(url, "m").complete(QUESTION, 7, timeout=60)
    assert type(fault.value) is kind


def test_a_reply_without_end_is_not_read_to_its_end() -> None:
    with serve(lambda _body, _headers: (200, b" " * 2000)) as url, pytest.raises(Unusable, match="more than 1000 bytes"):
        post_json(url, {}, timeout=60, most=1000)


def test_busy_endpoints_are_tried_again_and_refusals_are_not() -> None:
    statuses = [503, 503, 200]

    def rule(_body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        return statuses.pop(0), reply("yes")[1]

    with serve(rule) as url:
        assert Endpoint(url, "m").complete(QUESTION, 7, timeout=60, pauses=(0, 0)).text == "yes"
        statuses[:] = [400, 200]
        with pytest.raises(Refused):
            Endpoint(url, "m").complete(QUESTION, 7, timeout=60, pauses=(0, 0))
    assert statuses == [200]


def test_an_endpoint_that_is_late_unreachable_or_no_address() -> None:
    def rule(_body: dict[str, Any], _headers: dict[str, str]) -> tuple[int, Any]:
        time.sleep(0.5)
        return reply("late")

    with serve(rule) as url, pytest.raises(TimedOut, match="no answer within"):
        Endpoint(url, "m").complete(QUESTION, 7, timeout=0.05)
    with pytest.raises(Busy):
        Endpoint("http://127.0.0.1:9/v1", "m").complete(QUESTION, 7, timeout=60)
    for address in ("nowhere", "http://[::1", "http://x:y/"):
        with pytest.raises(EndpointError):
            post_json(address, {}, timeout=1)
