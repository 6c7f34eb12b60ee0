"""A judge behind HTTP: replies in order, busy and dead servers, refusals, and an evaluation that resumes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint_server import reply, serve
from tulu.errors import EngineError
from tulu.reward_models import responders
from tulu.reward_models.options import RewardBenchOptions
from tulu.reward_models.responders import EndpointJudge
from tulu.reward_models.rewardbench import run
from tulu.types import Message


def chat(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def test_replies_in_order_greedily_with_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    seen: list[tuple[Any, ...]] = []

    def rule(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        seen.append((body["model"], body["temperature"], body["max_tokens"], headers.get("Authorization")))
        return reply(body["messages"][-1]["content"].upper())

    with serve(rule) as url:
        replies = EndpointJudge(url, "m", "MY_KEY").replies([chat(f"q{k}") for k in range(30)], 7)
    assert replies == [f"Q{k}" for k in range(30)]
    assert set(seen) == {("m", 0, 7, "Bearer k")}


def test_busy_servers_are_asked_again() -> None:
    calls: list[int] = []

    def rule(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        calls.append(1)
        return (503, {"error": "loading"}) if len(calls) < 3 else reply("ok")

    with serve(rule) as url:
        assert EndpointJudge(url, "m", "NO", (0.0, 0.0)).replies([chat("q")], 7) == ["ok"]
    assert len(calls) == 3


def test_too_long_is_refused_alone_and_all_refused_is_an_error() -> None:
    def rule(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        long = "long" in body["messages"][-1]["content"]
        return (400, {"error": {"message": "maximum context length is 8"}}) if long else reply(None)

    with serve(rule) as url:
        judge = EndpointJudge(url, "m", "NO", ())
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
    with serve(lambda body, headers: (status, answer)) as url, pytest.raises(EngineError, match=message):
        EndpointJudge(url, "m", "NO", (0.0,)).replies([chat("q")], 7)


def test_not_an_address() -> None:
    with pytest.raises(EngineError, match="not an address"):
        EndpointJudge("localhost:8000", "m", "NO")


def test_dead_endpoint_is_an_error_and_the_evaluation_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responders, "PAUSES", ())
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"Q{k}", "chosen": "yes", "rejected": "no"}) + "\n" for k in range(100)))
    judged: list[str] = []

    def dying(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        judged.append(body["messages"][-1]["content"])
        return reply("[[A]]") if len(judged) <= 64 else (503, {"error": "gone"})

    def healthy(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        judged.append(body["messages"][-1]["content"])
        return reply("hm" if "Q99" in judged[-1] else "[[A]]")

    def options(url: str) -> RewardBenchOptions:
        return RewardBenchOptions(endpoint=url, out=tmp_path / "out", json_output=True)

    with serve(dying) as url, pytest.raises(EngineError, match="resumes"):
        run("judge", str(pairs), None, options(url))
    assert not (tmp_path / "out" / "results.json").exists()
    done = judged[:64]
    judged.clear()
    with serve(healthy) as url:
        run("judge", str(pairs), None, options(url))
    assert len(judged) == 36
    assert not set(judged) & set(done)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["counts"]["judgements"], results["counts"]["unparsable"]) == (100, 1)
    assert results["settings"]["backend"] == "endpoint"
