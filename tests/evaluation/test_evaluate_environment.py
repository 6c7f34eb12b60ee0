"""Evaluation with an environment: every answer is an episode, scored by the environment or by the verifier of its row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.environments.test_turns import TEMPLATE
from tests.rollout.test_episodes import SHOP, Speaker, calls
from tulu.config.schema import Evaluate
from tulu.evaluation import candidates
from tulu.evaluation.evaluate import answer_all

ADDER = """
class Adder:
    def reset(self, **row): pass
    def add(self, x: int, y: int) -> int:
        '''Add.

        Args:
            x: One.
            y: The other.
        '''
        return x + y
"""


def run(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, script: Any, env: str, **fields: Any
) -> tuple[Any, list[Any]]:
    (folder / "tools.jinja").write_text(TEMPLATE)
    rows = [{"messages": [{"role": "user", "content": f"q{n}"}], "ground_truth": str(n), "dataset": "gsm8k"} for n in range(3)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    speaker = Speaker(script)
    monkeypatch.setattr(candidates, "make_engine", lambda *_, **__: speaker)
    data = [{"name": str(folder / "rows.jsonl"), "fraction": 1.0}]
    settings = Evaluate.model_validate({"task": "own", "data": data, "env": {"path": env}, "max_tokens": 200, **fields})
    result = answer_all(str(model), settings, str(folder / "tools.jinja"), folder / "out")
    lines = (folder / "out" / "answers.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


def test_the_environment_scores(tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(name: str, turn: int) -> str:
        # An odd counter of 13 has no score, which is not 0.
        return "Done." if turn else calls(int(name.rpartition(":")[2]) if not name.endswith("3") else 13)

    result, answers = run(tmp_path, tiny_model(), monkeypatch, script, SHOP)
    assert [answer["score"] for answer in answers] == [1.0, 2.0, None]
    assert (result.accuracy, result.judged, result.statuses) == (1.5, 2, {"ok": 2, "error": 1})
    assert answers[0]["completion"] == "Done."


def test_the_verifier_reads_the_last_turn(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adder.py").write_text(ADDER)

    def script(name: str, turn: int) -> str:
        return "The answer is 2." if turn else "<tool_call>add(x=0, y=1)</tool_call>"

    result, answers = run(tmp_path, tiny_model(), monkeypatch, script, str(tmp_path / "adder.py"))
    assert [answer["score"] for answer in answers] == [0.0, 0.0, 1.0]
    assert result.accuracy == pytest.approx(1 / 3)
