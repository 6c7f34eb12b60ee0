"""A judge behind HTTP: replies in order, busy and dead servers, refusals, and an evaluation that resumes."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tulu.errors import EngineError
from tulu.reward_models import endpoint as endpoint_module
from tulu.reward_models.endpoint import Endpoint
from tulu.reward_models.options import RewardBenchOptions
from tulu.reward_models.rewardbench import run
from tulu.types import Message

Rule = Callable[[dict[str, Any], dict[str, str]], tuple[int, Any]]


@contextmanager
def server(rule: Rule) -> Iterator[str]:
    """An OpenAI-compatible server that answers by a rule on body and headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = rule(body, dict(self.headers))
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

    made = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}/v1"
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def said(content: str | None) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": content}}]}


def chat(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def test_replies_in_order_greedily_with_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    seen: list[tuple[Any, ...]] = []

    def rule(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        seen.append((body["model"], body["temperature"], body["max_tokens"], headers.get("Authorization")))
        return said(body["messages"][-1]["content"].upper())

    with server(rule) as url:
        replies = Endpoint(url, "m", "MY_KEY").replies([chat(f"q{k}") for k in range(30)], 7)
    assert replies == [f"Q{k}" for k in range(30)]
    assert set(seen) == {("m", 0, 7, "Bearer k")}


def test_busy_servers_are_asked_again() -> None:
    calls: list[int] = []

    def rule(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        calls.append(1)
        return (503, {"error": "loading"}) if len(calls) < 3 else said("ok")

    with server(rule) as url:
        assert Endpoint(url, "m", "NO", (0.0, 0.0)).replies([chat("q")], 7) == ["ok"]
    assert len(calls) == 3


def test_too_long_is_refused_alone_and_all_refused_is_an_error() -> None:
    def rule(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        long = "long" in body["messages"][-1]["content"]
        return (400, {"error": {"message": "maximum context length is 8"}}) if long else said(None)

    with server(rule) as url:
        judge = Endpoint(url, "m", "NO", ())
        assert judge.replies([chat("long"), chat("short")], 7) == [None, ""]
        with pytest.raises(EngineError, match=r"refuses every request: 400 .*maximum context length is 8"):
            judge.replies([chat("long"), chat("longer")], 7)


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (401, {"error": {"message": "bad key"}}, "bad key; set the key"),
        (404, {"message": "no model m"}, "404 .*no model m; check URL and MODEL"),
        (200, {"hello": 1}, "not an OpenAI-compatible reply"),
        (500, {"error": "boom"}, r"does not answer after 2 attempts \(500 .*boom"),
    ],
)
def test_what_no_retry_mends(status: int, answer: Any, message: str) -> None:
    with server(lambda body, headers: (status, answer)) as url, pytest.raises(EngineError, match=message):
        Endpoint(url, "m", "NO", (0.0,)).replies([chat("q")], 7)


def test_not_an_address() -> None:
    with pytest.raises(EngineError, match="not an address"):
        Endpoint("localhost:8000", "m", "NO")


def test_dead_endpoint_is_an_error_and_the_evaluation_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "PATIENCE", ())
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"Q{k}", "chosen": "yes", "rejected": "no"}) + "\n" for k in range(100)))
    judged: list[str] = []

    def dying(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        judged.append(body["messages"][-1]["content"])
        return said("[[A]]") if len(judged) <= 64 else (503, {"error": "gone"})

    def healthy(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        judged.append(body["messages"][-1]["content"])
        return said("hm" if "Q99" in judged[-1] else "[[A]]")

    def options(url: str) -> RewardBenchOptions:
        return RewardBenchOptions(endpoint=url, out=tmp_path / "out", json_output=True)

    with server(dying) as url, pytest.raises(EngineError, match="resumes"):
        run("judge", str(pairs), None, options(url))
    assert not (tmp_path / "out" / "results.json").exists()
    done = judged[:64]
    judged.clear()
    with server(healthy) as url:
        run("judge", str(pairs), None, options(url))
    assert len(judged) == 36
    assert not set(judged) & set(done)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["counts"]["judgements"], results["counts"]["unparsable"]) == (100, 1)
    assert results["settings"]["backend"] == "endpoint"
