"""RLVR with a reward model through the command line: from the recipe to what is logged, and what a recipe may get wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoTokenizer
from typer.testing import CliRunner, Result

from tests.reward_models.test_grader import oracle, problem
from tulu.cli import app
from tulu.verifiers.text import has_content

RLVR: dict[str, Any] = {
    "max_length": 72,
    "batch": 8,
    "prompts": 2,
    "samples": 4,
    "max_prompt": 64,
    "max_tokens": 8,
    "steps": 1,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "engine": "transformers",
    "refill": False,
}


class Place:
    """A folder with a recipe for a tiny model, and rows."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        (folder / "mine.py").write_text("def score(completion, ground_truth):\n    return len(completion) % 2\n")
        self.verifier = f"{folder}/mine.py:score"

    def call(self, *changes: str, rows: list[dict[str, Any]] | None = None, **fields: Any) -> Result:
        rows = rows or [{"messages": [{"role": "user", "content": f"{n}?"}], "ground_truth": "x"} for n in range(4)]
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        section = {**RLVR, "data": str(self.folder / "rows.jsonl"), **fields}
        recipe = self.folder / "tiny.yaml"
        recipe.write_text(yaml.safe_dump({"name": "tiny", "model": str(self.model), "template": "tulu", "rlvr": section}))
        return CliRunner().invoke(app, ["rlvr", str(recipe), *changes, "--runs", str(self.folder / "runs")])

    @property
    def stage(self) -> Path:
        return self.folder / "runs" / "tiny" / "rlvr"

    def rollouts(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.stage / "rollouts" / "step-000001.parquet").to_pylist()
        return rows


@pytest.fixture
def place(tmp_path: Path, tiny_model: Callable[..., Path]) -> Place:
    return Place(tmp_path, tiny_model("olmo2"))


def test_rewards_are_scale_times_verifier_plus_weight_times_score(place: Place, tiny_reward_model: Callable[..., Path]) -> None:
    judge = tiny_reward_model("qwen3", 3)
    signal = {"path": str(judge), "weight": 0.5}
    result = place.call(verifier=place.verifier, reward_model=signal, reward_scale=10.0)
    assert result.exit_code == 0, result.output
    rows = place.rollouts()
    assert len(rows) == 8
    tokenizer = AutoTokenizer.from_pretrained(place.model)
    for row in rows:
        asked = problem(f"{int(row['id'].rpartition(':')[2]) - 1}?")
        assert row["reward_model"] == pytest.approx(oracle(judge, asked, row["completion"]), abs=1e-5)
        assert row["reward"] == pytest.approx(10 * row["score"] + 0.5 * row["reward_model"], abs=1e-5)
        assert tokenizer.decode(tokenizer(row["completion"]).input_ids) == row["completion"]
    [logged] = [json.loads(line) for line in (place.stage / "metrics.jsonl").read_text().splitlines()]
    assert logged["solved"] == pytest.approx(sum(row["score"] for row in rows) / 8)
    assert logged["reward_model"] == pytest.approx(sum(row["reward_model"] for row in rows) / 8)
    assert logged["reward"] == pytest.approx(sum(row["reward"] for row in rows) / 8)


def test_prompts_alone_are_enough_where_only_a_reward_model_judges(place: Place, tiny_reward_model: Callable[..., Path]) -> None:
    rows = [{"messages": [{"role": "user", "content": f"{n}?"}]} for n in range(4)]
    result = place.call(verifier="reward_model", reward_model=str(tiny_reward_model("olmo2")), rows=rows)
    assert result.exit_code == 0, result.output
    found = place.rollouts()
    assert all(row["score"] is None and row["reward"] == pytest.approx(row["reward_model"], abs=1e-6) for row in found)
    assert "solved" not in json.loads((place.stage / "metrics.jsonl").read_text())


def test_rows_mix_verifiers_and_reward_model(place: Place, tiny_reward_model: Callable[..., Path]) -> None:
    def row(n: int, dataset: Any, **columns: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": f"{n}?"}], "dataset": dataset, **columns}

    rows = [
        row(0, place.verifier, ground_truth="x"),
        row(1, "reward_model"),
        row(2, [place.verifier, "Reward_Model"], ground_truth=["x", None]),
        row(3, place.verifier, ground_truth="x"),
    ]
    signal = {"path": str(tiny_reward_model("olmo2")), "rows": "named", "combine": "gate"}
    result = place.call(rows=rows, reward_model=signal, prompts=4, batch=16, reward_scale=1.0)
    assert result.exit_code == 0, result.output
    for each in place.rollouts():
        line = int(each["id"].rpartition(":")[2])
        asked = line == 2 or (line == 3 and each["score"] > 0)
        assert (each["reward_model"] is not None) == asked
        assert each["reward"] == pytest.approx((each["score"] or 0.0) + (each["reward_model"] or 0.0), abs=1e-6)


def test_another_reward_model_is_another_run(place: Place, tiny_reward_model: Callable[..., Path]) -> None:
    judge = place.folder / "judge"
    judge.symlink_to(tiny_reward_model("olmo2"))
    assert place.call(verifier=place.verifier, reward_model=str(judge), save_every=1).exit_code == 0
    judge.unlink()
    judge.symlink_to(tiny_reward_model("olmo2", 5))
    manifest = place.stage / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "finished": False}))
    result = place.call(verifier=place.verifier, reward_model=str(judge), save_every=1)
    assert result.exit_code == 2
    assert "what this run began with has changed" in result.stderr
    assert "\n  reward_model: " in result.stderr


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"verifier": "reward_model"}, "there is no reward model; set rlvr.reward_model.path"),
        (
            {"reward_model": "no where/rm"},
            'rlvr.reward_model.path: "no where/rm": is neither a folder here nor',
        ),
        ({"reward_model": "./rm"}, "no such folder"),
        ({"reward_model": {}}, "rlvr.reward_model.path: missing; name a reward model, or add an rm section"),
        ({"reward_model": {"path": "a/b", "combine": "gat"}}, "did you mean gate?"),
        ({"reward_model": {"path": "a/b", "weigth": 1.0}}, "rlvr.reward_model.weigth: unknown key; did you mean weight?"),
        ({"reward_model": {"path": "a/b", "weight": 0}}, "rlvr.reward_model.weight: 0: should be greater than 0"),
        ({"reward_model": 3}, "rlvr.reward_model: 3: wrong type, should be a section"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_mistakes_of_a_recipe_come_before_a_model_is_loaded(place: Place, fields: dict[str, Any], said: str) -> None:
    result = place.call(**fields)
    assert result.exit_code == 2, result.output
    assert said in result.stderr.replace("\n", " ")
    assert not place.stage.exists()


def test_a_policy_is_no_reward_model(place: Place) -> None:
    result = place.call(verifier=place.verifier, reward_model=str(place.model))
    assert result.exit_code == 2
    assert "is no reward model: its config.json says Olmo2ForCausalLM" in result.stderr


def test_rows_that_ask_for_a_reward_model_that_nobody_named(place: Place, tiny_reward_model: Callable[..., Path]) -> None:
    row = {"messages": [{"role": "user", "content": "?"}], "dataset": "reward_model"}
    result = place.call(rows=[row])
    assert result.exit_code == 2
    assert "set rlvr.reward_model.path in the recipe" in result.stderr
    assert "rows.jsonl:1" in result.stderr
    signal = {"path": str(tiny_reward_model("olmo2")), "rows": "named"}
    result = place.call("name=other", verifier=place.verifier, reward_model=signal)
    assert result.exit_code == 2
    assert "no row's verifiers name reward_model" in result.stderr


def test_a_recipes_own_reward_model_must_be_there(place: Place) -> None:
    changes = [f"rm={{data: {place.folder}/rows.jsonl, max_length: 72, batch: 2, steps: 1, learning_rate: 0.1}}"]
    result = place.call(*changes, verifier=place.verifier, reward_model={})
    assert result.exit_code == 2, result.output
    assert "tiny/rm/model yet; run `tulu rm` first" in result.stderr


def test_verify_asks_a_reward_model(place: Place, tiny_reward_model: Callable[..., Path]) -> None:
    judge, file, out = tiny_reward_model("olmo2"), place.folder / "in.jsonl", place.folder / "out.jsonl"
    messages = [{"role": "user", "content": "one?"}]
    file.write_text("".join(json.dumps({"completion": said, "messages": messages}) + "\n" for said in ("yes", "x" * 900)))
    arguments = ["--in", str(file), "--out", str(out)]
    result = CliRunner().invoke(app, ["verify", "reward_model", *arguments, "--reward-model", str(judge)])
    assert result.exit_code == 0, result.output
    scored, long = (json.loads(line) for line in out.read_text().splitlines())
    assert scored["score"] == pytest.approx(oracle(judge, problem("one?"), "yes"), abs=1e-5)
    assert (long["score"], long["detail"]) == (None, "a conversation of 929 tokens, and the reward model reads 512")
    for wrong, said in (
        (["reward_model"], "--reward-model PATH on the command line"),
        (["math", "--reward-model", str(judge)], "--reward-model belongs to the verifier reward_model, not to math"),
        (["reward_model", "--reward-model", str(place.model)], "is no reward model: its config.json says Olmo2ForCausalLM"),
        (["reward_model", "--reward-model", "./nowhere"], "no such folder"),
    ):
        result = CliRunner().invoke(app, ["verify", *wrong, *arguments])
        assert result.exit_code == 2, wrong
        assert said in result.stderr


def test_a_verifier_of_length_is_told_how_many_tokens_a_completion_took(place: Place) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}], "ground_truth": "8", "dataset": "up_to_max_length"} for n in range(4)
    ]
    result = place.call(rows=rows)
    found = place.rollouts()
    by_row: dict[str, set[float]] = {}
    for row in found:
        by_row.setdefault(row["id"], set()).add(row["score"])
    # A step over groups whose answers all earn the same moves nothing, and a run of such steps has no model.
    assert result.exit_code == (0 if any(len(scores) > 1 for scores in by_row.values()) else 1), result.output
    assert {row["status"] for row in found} == {"ok"}
    # No completion is longer than max_tokens, 8; one that shows nothing is no answer.
    assert [row["score"] for row in found] == [float(has_content(row["completion"])) for row in found]
    assert 1.0 in {row["score"] for row in found}
