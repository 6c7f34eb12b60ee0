"""Best of N through the command line: picks, a kill in the middle, and what one can get wrong."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests import forked
from tests.reward_models.test_grader import oracle, problem
from tulu.cli import app


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [{"messages": [{"role": "user", "content": f"{n}?"}], "ground_truth": "x"} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text("def score(completion, ground_truth):\n    return len(completion) % 3 == 0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(model: Path, reward_model: Path, *more: str) -> list[str]:
    own = ["--task", "mine", "--data", "rows.jsonl", "--verifier", f"{Path.cwd()}/mine.py:score", "--max-tokens", "8"]
    return ["evaluate", str(model), *own, "--best-of", "4", "--reward-model", str(reward_model), "--out", "out", *more]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_picks_and_figures(place: Path, tiny_model: Callable[..., Path], tiny_reward_model: Callable[..., Path]) -> None:
    reward_model = tiny_reward_model("olmo2", 3)
    result = CliRunner().invoke(app, arguments(tiny_model("olmo2"), reward_model))
    assert result.exit_code == 0, result.output
    samples, answers = lines(place / "out" / "samples.jsonl"), lines(place / "out" / "answers.jsonl")
    assert [row["id"] for row in samples] == [f"rows.jsonl:{n}" for n in range(1, 13)]
    for number, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        assert len({candidate["text"] for candidate in sample["answers"]}) > 1, "sampled, not greedy"
        for candidate in sample["answers"]:
            assert candidate["reward"] == pytest.approx(oracle(reward_model, problem(f"{number}?"), candidate["text"]), abs=1e-5)
        best = max(sample["answers"], key=lambda candidate: candidate["reward"])
        assert (answer["completion"], answer["score"]) == (best["text"], best["score"])
    content = json.loads((place / "out" / "results.json").read_text())
    picked = sum(answer["score"] for answer in answers) / 12
    assert content["accuracy"] == content["best_of"]["picked"]["value"] == pytest.approx(picked)
    every = [candidate["score"] for sample in samples for candidate in sample["answers"]]
    assert content["best_of"]["single"]["value"] == pytest.approx(sum(every) / 48)
    reached = sum(max(candidate["score"] for candidate in sample["answers"]) for sample in samples) / 12
    assert content["best_of"]["oracle"]["value"] == pytest.approx(reached)
    assert f"mine, best of 4: {100 * picked:.1f} % right" in result.stdout
    assert "pass@n" in result.stdout
    assert "gain over one answer" in result.stdout


def test_a_killed_evaluation_ends_as_if_it_had_not_been(
    place: Path, tiny_model: Callable[..., Path], tiny_reward_model: Callable[..., Path]
) -> None:
    recipe = place / "tiny.yaml"
    evaluate = {"task": "mine", "data": "rows.jsonl", "verifier": f"{place}/mine.py:score", "max_tokens": 8, "best_of": 4}
    reward_model = {"reward_model": str(tiny_reward_model("olmo2")), "temperature": 1.0, "batch": 8, "engine": "transformers"}
    content = {"name": "tiny", "model": str(tiny_model("olmo2")), "template": "tulu", "evaluate": {**evaluate, **reward_model}}
    recipe.write_text(yaml.safe_dump(content))
    assert CliRunner().invoke(app, ["evaluate", str(recipe), "--runs", "whole"]).exit_code == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kept = place / "broken" / "tiny" / "evaluate" / "samples.jsonl"
    words = ["evaluate", str(recipe), "--runs", "broken"]
    running = forked.command(*words, output=place / "said", environment=environment)
    while not kept.exists() and running.poll() is None:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=60)
    before = kept.read_text()
    kept.write_text(before + '{"id": "half a li')
    result = CliRunner().invoke(app, ["evaluate", str(recipe), "--runs", "broken"])
    assert result.exit_code == 0, result.output
    if 0 < len(before.splitlines()) < 12:
        assert f"holds the answers to {len(before.splitlines())} of 12 problems already" in result.stderr
    assert kept.read_text().startswith(before)
    folders = [place / runs / "tiny" / "evaluate" for runs in ("whole", "broken")]
    answers = [(folder / "answers.jsonl").read_text() for folder in folders]
    assert answers[0] == answers[1]
    figures = [json.loads((folder / "results.json").read_text()) for folder in folders]
    assert all(found.pop("energy")["kwh"] > 0 for found in figures), "which no two runs have in common"
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--reward-model", ""], "--best-of needs --reward-model RM"),
        (["--best-of", ""], "--reward-model needs --best-of N"),
        (["--temperature", "0"], "--temperature 0: all 4 answers would be the same"),
        (["--verifier", "reward_model"], "it cannot say which answers are right"),
        (["--reward-model", "./none"], "--reward-model ./none: no such folder"),
        (["--best-of", "1"], "Invalid value for '--best-of'"),
    ],
)
def test_wrong_options(place: Path, tiny_reward_model: Callable[..., Path], changes: list[str], message: str) -> None:
    words = arguments(Path("none"), tiny_reward_model("olmo2"))
    place_of = words.index(changes[0]) if changes[0] in words else len(words)
    words[place_of : place_of + 2] = changes if changes[1] else []
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (place / "out").exists()


def test_a_reward_model_answers_nothing(place: Path, tiny_reward_model: Callable[..., Path]) -> None:
    reward_model = tiny_reward_model("olmo2")
    sampling = ["sample", str(reward_model), "--data", "rows.jsonl", "--verifier", "exact"]
    for words in (arguments(reward_model, reward_model), sampling):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, result.output
        assert f"{reward_model}: is a reward model, which scores answers and gives none" in result.stderr


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"best_of": 4}, "evaluate.best_of: 4: nothing picks among the answers; set reward_model"),
        ({"reward_model": "a/b"}, "it picks among several answers; set best_of, such as 16"),
        ({"best_of": 4, "reward_model": "a/b"}, "evaluate.temperature: 0.0: all 4 answers would be the same"),
        ({"best_of": 4, "reward_model": {}, "temperature": 1.0}, "evaluate.reward_model.path: missing"),
        ({"verifier": "reward_model"}, "a reward model cannot say which answers are right"),
        ({"best_of": 1, "reward_model": "a/b"}, "evaluate.best_of: 1: should be greater than or equal to 2"),
    ],
)
def test_mistakes_of_a_recipe(place: Path, tiny_model: Callable[..., Path], fields: dict[str, Any], message: str) -> None:
    section = {"task": "mine", "data": "rows.jsonl", **fields}
    (place / "tiny.yaml").write_text(yaml.safe_dump({"name": "tiny", "model": str(tiny_model("olmo2")), "evaluate": section}))
    result = CliRunner().invoke(app, ["evaluate", "tiny.yaml"])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
