"""Recipes that cannot train are refused with one message, exit code 2, and before torch is imported: that takes seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

CALLS = """
import json, sys
from typer.testing import CliRunner
from tulu.cli import app

for name, arguments in json.loads(sys.argv[1]).items():
    result = CliRunner().invoke(app, arguments)
    print(json.dumps([name, result.exit_code, result.stdout, result.stderr, "torch" in sys.modules]))
"""
REFUSED: Mapping[str, tuple[list[str], str]] = {
    "an unknown template": (["sft", "tulu3-8b", "template=tullu"], "did you mean tulu"),
    "a template file that does not render": (["sft", "tulu3-8b", "template=bad.jinja"], "bad.jinja"),
    "a template file that is not there": (["sft", "tulu3-8b", "template=none.jinja"], "none.jinja"),
    "a field that was never published": (["rlvr", "olmo2-instruct"], "rlvr.beta: swept over 0.03, 0.05, 0.07 and 0.1"),
    "the same in a run of all stages": (["run", "olmoe-0125"], "3 fields were never published"),
    "two RLVR stages of one name": (["rlvr", "olmo2-1b", "rlvr.math.name=mixed"], "mixed"),
    "a start that is not there": (["sft", "olmo2-1b", "sft.start=/nowhere/at/all"], "/nowhere/at/all"),
    "a start in the working folder that is not there": (["dpo", "olmo2-1b", "dpo.start=./nowhere"], "./nowhere"),
    "a step that the earlier stage does not keep": (
        ["rlvr", "olmo2-13b", "rlvr.gsm.start=mixed@step-470"],
        "mixed@step-470",
    ),
    "a step that was kept and is gone": (
        ["rlvr", "olmo2-13b", "--stage", "gsm", "rlvr.gsm.template=tulu_bos"],
        "has no model of step 480; it kept those of 420",
    ),
    "a pinned template of another text": (["sft", "tulu3-8b", "template_hash=0123456789abcdef"], "template_hash"),
    "all of them at once": (
        ["rlvr", "olmo2-13b", "template=tullu", "rlvr.gsm.name=math", "rlvr.mixed.start=nobody@step-3"],
        "problems",
    ),
}
OF_A_MODEL: Mapping[str, tuple[list[str], str]] = {
    "sample without anything that tells good answers": (
        ["sample", "model", "--data", "rows.jsonl"],
        "nothing tells good answers",
    ),
    "sample with an unknown verifier": (
        ["sample", "model", "--data", "rows.jsonl", "--verifier", "maths"],
        "did you mean math",
    ),
    "sample of no data": (["sample", "model", "--data", "none.jsonl", "--verifier", "math"], "--data none.jsonl: no such file"),
    "evaluate without a task": (["evaluate", "model"], "needs --task NAME"),
    "evaluate of an unknown task": (["evaluate", "model", "--task", "gsm9k"], "--task gsm9k: has no data of its own"),
    "evaluate of several tasks": (
        ["evaluate", "model", "--task", "gsm8k", "--task", "math", "--verifier", "maths"],
        "did you mean math",
    ),
    "evaluate by an unknown template": (["evaluate", "model", "--task", "gsm8k", "--template", "tullu"], "did you mean tulu"),
    "evaluate of a suite": (["evaluate", "model", "--suite", "tulu3-dev", "--task", "x"], "suite tulu3-dev has no such task"),
    "chat with nobody": (["chat", "./nowhere"], "./nowhere: no such folder"),
    "chat by an unknown template": (["chat", "model", "--template", "tullu"], "--template tullu: unknown template"),
    "verify by an unknown verifier": (["verify", "maths", "--in", "rows.jsonl", "--out", "out"], "did you mean math"),
    "verify of odd rows": (["verify", "math", "--in", "rows.jsonl", "--out", "out.jsonl"], "2 of 2 rows cannot be graded"),
    "an attack by odd golds": (["verify", "--attack", "math", "--golds", "rows.jsonl"], "2 of 2 rows cannot be attacked"),
    "rewardbench of nothing": (["rewardbench"], "give a model"),
    "rewardbench of a model that is not there": (["rewardbench", "./nowhere", "--data", "v2"], "./nowhere: no such folder"),
    "rewardbench of options that exclude each other": (
        ["rewardbench", "model", "--kind", "dpo", "--data", "rows.jsonl"],
        "a DPO policy needs --reference",
    ),
    "rewardbench of odd rows": (["rewardbench", "model", "--data", "rows.jsonl"], "2 of 2 rows cannot be used"),
    "odd scores": (["rewardbench", "--scores", "rows.jsonl"], "2 of 2 rows cannot be used"),
    "data of no recipe": (["data", "quickstrat"], "did you mean quickstart"),
    "data that is not there": (["data", "quickstart", "sft.data=none.jsonl"], "none.jsonl"),
    "an export of no run": (["export", "nowhere", "out"], "nowhere: no run with a model"),
    "a push of no run": (["push", "nowhere", "me/it"], "nowhere: no run with a model"),
}
"""Commands that take no folder of runs."""
ALL = {**REFUSED, **OF_A_MODEL}


@dataclass(frozen=True)
class Refusal:
    exit_code: int
    stdout: str
    stderr: str
    torch: bool


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """What each command answers, all of them in one process that has imported nothing before."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "bad.jinja").write_text("{{ nothing.at.all }}")
    trained = folder / "runs" / "olmo2-13b" / "mixed"
    (trained / "models" / "step-000420").mkdir(parents=True)
    (trained / "model").mkdir()
    (trained / "model" / "config.json").write_text("{}")
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "TULU_SHARED")}
    (folder / "rows.jsonl").write_text('{"x": 1}\n{\n')
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"]}')
    asked = {name: [*arguments, "--runs", "runs"] for name, (arguments, _) in REFUSED.items()}
    calls = json.dumps(asked | {name: arguments for name, (arguments, _) in OF_A_MODEL.items()})
    command = [sys.executable, "-c", CALLS, calls]
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[2]), environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=120, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: Refusal(*rest) for name, *rest in answers}


@pytest.mark.parametrize("name", ALL)
def test_one_message_exit_code_2_and_no_torch(name: str, refusals: dict[str, Refusal]) -> None:
    refusal = refusals[name]
    assert refusal.exit_code == 2, refusal.stderr
    assert not refusal.torch
    assert ALL[name][1] in refusal.stderr
    assert refusal.stdout == ""
    assert "Traceback" not in refusal.stderr
    assert refusal.stderr.count("Error") <= 1
