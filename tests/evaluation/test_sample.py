"""Rejection sampling: which answers become rows, on paper; and the command, killed, resumed, extended, fed into training."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests import forked
from tests.reward_models.test_grader import oracle, problem
from tulu.cli import app
from tulu.evaluation.candidates import Candidate, ScoredProblem
from tulu.evaluation.sample import rank, select
from tulu.train.ledger import read_ledger


def answer(text: str, score: float | None = None, reward: float | None = None, **fields: Any) -> Candidate:
    return Candidate(text, **{"finish": "stop", "tokens": 1, **fields}, score=score, reward=reward)


def prompt(*answers: Candidate) -> ScoredProblem:
    return ScoredProblem("p", [{"role": "user", "content": "?"}], None, answers)


def texts(rows: list[dict[str, Any]], side: str = "messages") -> list[str]:
    return [row[side][-1]["content"] for row in rows]


@pytest.mark.parametrize(
    ("answers", "order"),
    [
        ([answer("a", None, 0.1), answer("b", None, 0.9), answer("c", None, 0.5)], "bca"),
        # The verifier comes first, the reward decides among equals, and the first of equals stays first.
        ([answer("a", 0, 9.0), answer("b", 1, -3.0), answer("c", 1, 2.0), answer("d", 1, 2.0)], "cdba"),
        ([answer("a", 1), answer("b", 0), answer("c", 1)], "acb"),
        ([answer("a", 1, finish="length"), answer(" ", 1), answer("c", 0), answer("c", 0)], "c"),
        ([answer("a", None, status="timeout"), answer("b", 1, None, reward_detail="too long"), answer("c", 1, 0.0)], "c"),
    ],
)
def test_order_of_answers(answers: list[Candidate], order: str) -> None:
    assert "".join(answer.text for answer in rank(answers)) == order


def test_rows_and_pairs_on_paper() -> None:
    found = [
        prompt(answer("good", 1, 0.2), answer("better", 1, 0.7), answer("wrong", 0, 3.0)),
        prompt(answer("wrong", 0, 1.0), answer("wrong too", 0, 2.0)),
        prompt(answer("x", 1, 1.0, finish="length"), answer("y", 0, 0.0, finish="length")),
        prompt(answer("only", 1, 0.4), answer("only", 1, 0.4)),
        prompt(answer("", 1, 0.4), answer("z", None, status="error")),
    ]
    one = select(found, keep=1, pairs=True)
    assert texts(one.sft) == ["better", "only"]
    assert (texts(one.pairs, "chosen"), texts(one.pairs, "rejected")) == (["better"], ["wrong"])
    assert one.sft[0] == {
        "id": "p",
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "better"}],
        "score": 1,
        "reward": 0.7,
    }
    assert one.pairs[0]["chosen_reward"] == 0.7
    assert one.pairs[0]["rejected_reward"] == 3.0
    assert one.outcomes == {"kept": 2, "no right answer": 1, "no answer that stopped": 1, "no answer that could be used": 1}
    assert texts(select(found, keep=5, pairs=False).sft) == ["better", "good", "only"]


def test_level_answers_make_no_pair() -> None:
    assert select([prompt(answer("a", 1), answer("b", 1))], keep=1, pairs=True).pairs == []


class Place:
    """A folder with prompts, a model and a reward model."""

    def __init__(self, folder: Path, model: Path, reward_model: Path) -> None:
        self.folder, self.model, self.reward_model = folder, model, reward_model
        rows = [{"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "x"}]} for n in range(12)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "mine.py").write_text("def score(completion, ground_truth):\n    return len(completion) % 2\n")

    def words(self, *more: str) -> list[str]:
        size = ["--n", "8", "--max-tokens", "48", "--engine", "transformers"]
        return ["sample", str(self.model), "--data", "rows.jsonl", *size, *more]

    def call(self, *more: str, out: str = "out") -> Result:
        return CliRunner().invoke(app, self.words("--out", out, *more), env={"COLUMNS": "160"})

    def rows(self, name: str, out: str = "out") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / out / name).read_text().splitlines()]


@pytest.fixture
def place(
    tmp_path: Path, tiny_model: Callable[..., Path], tiny_reward_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, tiny_model("olmo2"), tiny_reward_model("olmo2", 3))


def test_the_best_by_a_reward_model(place: Place) -> None:
    result = place.call("--reward-model", str(place.reward_model), "--pairs")
    assert result.exit_code == 0, result.output
    samples = place.rows("samples.jsonl")
    assert [row["id"] for row in samples] == [f"rows.jsonl:{n}" for n in range(1, 13)]
    best, worst = {}, {}
    for row in samples:
        whole = [a for a in row["answers"] if a["finish"] == "stop" and a["text"].strip()]
        if whole:
            best[row["id"]] = max(whole, key=lambda a: a["reward"])
            worst[row["id"]] = min(whole, key=lambda a: a["reward"])
    assert {row["id"]: row["reward"] for row in place.rows("sft.jsonl")} == {name: a["reward"] for name, a in best.items()}
    for row in place.rows("sft.jsonl"):
        question = problem(row["messages"][0]["content"])
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"], "the row's own answer is no prompt"
        assert row["reward"] == pytest.approx(oracle(place.reward_model, question, row["messages"][1]["content"]), abs=1e-5)
    pairs = {row["id"]: (row["chosen_reward"], row["rejected_reward"]) for row in place.rows("pairs.jsonl")}
    assert pairs == {
        name: (best[name]["reward"], worst[name]["reward"]) for name in best if best[name]["reward"] > worst[name]["reward"]
    }
    content = json.loads((place.folder / "out" / "results.json").read_text())
    assert (content["prompts"], content["answers"], content["rows"]) == (12, 96, len(best))
    assert content["reward"]["kept"] > content["reward"]["all"]
    [entry] = read_ledger([place.folder / "out"])
    assert (entry.kwh, entry.state, entry.phases) == (content["energy"]["kwh"], "finished", {"rollout": 1.0})
    assert entry.kwh > 0
    assert "sft.data=out/sft.jsonl" in result.stdout


def test_right_answers_ranked_by_a_reward_model(place: Place) -> None:
    rows = [{"prompt": f"{n}?", "ground_truth": "x", "dataset": f"{place.folder}/mine.py:score"} for n in range(12)]
    (place.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = place.call("--reward-model", str(place.reward_model), "--verifier", "own", "--keep", "2")
    assert result.exit_code == 0, result.output
    kept = place.rows("sft.jsonl")
    assert kept
    assert all(row["score"] == 1 == len(row["messages"][-1]["content"]) % 2 for row in kept)
    for sample in place.rows("samples.jsonl"):
        right = [a for a in sample["answers"] if a["finish"] == "stop" and a["score"] == 1]
        rewards = sorted({a["text"]: a["reward"] for a in right}.values(), reverse=True)[:2]
        assert [row["reward"] for row in kept if row["id"] == sample["id"]] == rewards
    assert place.call("--verifier", f"{place.folder}/mine.py:score", out="alone").exit_code == 0
    assert {row["reward"] for row in place.rows("sft.jsonl", "alone")} == {None}


def test_rows_feed_into_every_stage(place: Place) -> None:
    assert place.call("--reward-model", str(place.reward_model), "--pairs", "--keep", "4", "--n", "16").exit_code == 0
    train = {"max_length": 256, "batch": 2, "steps": 1, "learning_rate": 1e-3, "precision": "fp32"}
    sections = {stage: {**train, "data": "none.jsonl"} for stage in ("sft", "dpo", "rm")}
    (place.folder / "tiny.yaml").write_text(yaml.safe_dump({"name": "tiny", "model": str(place.model), **sections}))
    for stage, file in (("sft", "sft"), ("dpo", "pairs"), ("rm", "pairs")):
        every = [f"{name}.data=out/{'sft' if name == 'sft' else 'pairs'}.jsonl" for name in sections]
        result = CliRunner().invoke(app, [stage, "tiny.yaml", *every])
        assert result.exit_code == 0, result.output
        count = len(place.rows(f"{file}.jsonl"))
        assert f"{count} of {count} rows used" in result.stderr


def test_a_killed_command_ends_as_if_it_had_not_been(place: Place) -> None:
    options = ["--reward-model", str(place.reward_model), "--batch", "8", "--pairs"]
    assert place.call(*options, out="whole").exit_code == 0
    said = place.folder / "said"
    kept = place.folder / "broken" / "samples.jsonl"
    for ending in (signal.SIGKILL, signal.SIGINT):
        size = kept.stat().st_size if kept.exists() else 0
        words = place.words("--out", "broken", *options)
        running = forked.command(*words, output=said, environment={**os.environ, "OMP_NUM_THREADS": "1"})
        while running.poll() is None and not (kept.exists() and kept.stat().st_size > size):
            time.sleep(0.005)
        running.send_signal(ending)
        assert running.wait(timeout=120) in (-signal.SIGKILL, 130, 0), said.read_text()
        errors = said.read_text()
        assert "Traceback" not in errors
    before = kept.read_text()
    kept.write_text(before + '{"id": "half a li')
    result = place.call(*options, out="broken")
    assert result.exit_code == 0, result.output
    assert kept.read_text().startswith(before)
    for name in ("samples.jsonl", "sft.jsonl", "pairs.jsonl"):
        assert place.rows(name, "whole") == place.rows(name, "broken"), name


def test_what_is_kept_is_chosen_again_without_sampling(place: Place) -> None:
    options = ["--reward-model", str(place.reward_model)]
    assert place.call(*options, "--limit", "5").exit_code == 0
    first = (place.folder / "out" / "samples.jsonl").read_text()
    more = place.call(*options, "--limit", "9", "--pairs", "--keep", "3")
    assert more.exit_code == 0, more.output
    assert (place.folder / "out" / "samples.jsonl").read_text().startswith(first)
    assert len(place.rows("samples.jsonl")) == 9
    again = place.call(*options, "--limit", "9", "--keep", "1")
    assert "rollouts:" not in again.stderr, "no engine is started"
    assert len(place.rows("sft.jsonl")) <= 9
    other = place.call(*options, "--temperature", "0.5")
    assert other.exit_code == 2
    assert "temperature: 1.0 -> 0.5" in other.stderr
    assert place.call(*options, "--temperature", "0.5", "--fresh", "--limit", "2").exit_code == 0
    assert len(place.rows("samples.jsonl")) == 2


@pytest.mark.parametrize("by", ["the option", "the rows"])
def test_nothing_left_is_said(place: Place, by: str) -> None:
    (place.folder / "never.py").write_text("def score(completion, ground_truth):\n    return 0\n")
    name = f"{place.folder}/never.py:score"
    rows = [{"prompt": f"{n}?", "ground_truth": "x", "dataset": name} for n in range(3)]
    (place.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verifier = name if by == "the option" else "own"
    result = place.call("--verifier", verifier)
    assert result.exit_code == 1
    assert "no row is left to train on: " in result.stderr
    assert "no right answer" in result.stderr
    assert not (place.folder / "out" / "sft.jsonl").exists()
    assert len(place.rows("samples.jsonl")) == 3
    (place.folder / "never.py").write_text("def score(completion, ground_truth):\n    raise ValueError('no idea')\n")
    result = place.call("--verifier", verifier)
    assert result.exit_code == 2, "another verifier under the same name is another setting"
    assert f"verifiers.{name}: " in result.stderr
    result = place.call("--verifier", verifier, "--fresh")
    assert result.exit_code == 1
    assert "scoring failed 24 times, first of all with error: ValueError: no idea" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing tells good answers from bad ones; give --reward-model RM, --verifier NAME"),
        (["--reward-model", "./none"], "--reward-model ./none: no such folder"),
        (["--reward-model", "MODEL"], "is no reward model: its config.json says Olmo2ForCausalLM"),
        (["--verifier", "maths"], "did you mean math"),
        (["--verifier", "reward_model"], "--reward-model PATH on the command line"),
        (["--verifier", "gsm8k", "--temperature", "0"], "--temperature 0: all 8 answers would be the same"),
        (["--verifier", "gsm8k", "--n", "1", "--pairs"], "--pairs: one answer makes no pair"),
        (["--verifier", "gsm8k", "--data", "nowhere.jsonl"], "--data nowhere.jsonl: no such file or folder"),
        (["--verifier", "gsm8k", "--max-tokens", "512"], "--max-tokens 512: the model has 512 positions"),
        (["--verifier", "gsm8k"], "no columns for rlvr among messages; accepted are"),
    ],
)
def test_wrong_options(place: Place, options: list[str], message: str) -> None:
    result = place.call(*[str(place.model) if word == "MODEL" else word for word in options])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (place.folder / "out").exists()


def test_a_model_that_is_not_there(place: Place) -> None:
    result = CliRunner().invoke(app, ["sample", "./nowhere", "--data", "rows.jsonl", "--verifier", "gsm8k"])
    assert result.exit_code == 2
    assert "./nowhere: no such folder" in result.stderr


def test_the_model_of_a_recipe_is_sampled_at_its_revision(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, cached = "c0ffee" + "0" * 34, tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_model("olmo2"), cached / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    recipe = f"name: mine\nmodel: someone/tiny\nrevision: {commit}\ntemplate: tulu\n"
    (tmp_path / "recipes" / "mine.yaml").write_text(recipe)
    monkeypatch.setattr("tulu.config.load.BUILT_IN", tmp_path / "recipes")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1 + 1 =", "ground_truth": "2"}\n')
    command = ["sample", "mine", "--data", "rows.jsonl", "--verifier", "exact", "--n", "1", "--max-tokens", "4", "--out", "out"]
    # The cache holds this commit alone, and nothing says that it is the main branch.
    result = CliRunner().invoke(app, [*command, "--engine", "transformers"])
    assert "no row is left to train on" in result.stderr, result.output
    assert json.loads((tmp_path / "out" / "samples.settings.json").read_text())["model"] == commit
