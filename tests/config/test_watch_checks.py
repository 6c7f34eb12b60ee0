"""What a recipe looks at while it trains: every impossible wish is told, with its cure."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tulu.config.load import load_recipe
from tulu.config.tiny import shrink
from tulu.errors import RecipeError

TRAIN = {"data": "rows.jsonl", "max_length": 64, "batch": 4, "micro_batch": 4, "steps": 2, "learning_rate": 1e-4}
RLVR = {**TRAIN, "prompts": 2, "samples": 2, "max_prompt": 32, "max_tokens": 16}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "own.jsonl"):
        (tmp_path / name).write_text("{}\n")
    return tmp_path


def load(folder: Path, stage: str, **fields: Any) -> Any:
    section = {**(RLVR if stage == "rlvr" else TRAIN), **fields}
    file = folder / "r.yaml"
    file.write_text(yaml.safe_dump({"name": "r", "model": "allenai/OLMo-2-0425-1B", "template": "tulu", stage: section}))
    return load_recipe(str(file), processes=1)


@pytest.mark.parametrize(
    ("stage", "fields", "told"),
    [
        ("sft", {"eval_every": 5}, "there is nothing to look at; set sft.eval_task (a task), or eval_data or held_out"),
        ("rlvr", {"eval_every": 5}, "there is nothing to look at; set rlvr.eval_task (a task)"),
        ("sft", {"eval_task": "sums"}, 'sft.eval_task: "sums": nothing looks at it; set sft.eval_every to a number of steps'),
        ("dpo", {"eval_data": "own.jsonl"}, "nothing looks at it; set dpo.eval_every"),
        ("rm", {"eval_every": 5, "eval_task": "sums"}, "a reward model writes no answers; set eval_data or held_out"),
        ("sft", {"eval_every": 5, "eval_task": "sumz"}, "is no task; did you mean sums?; known are gsm8k, math, sums"),
        ("sft", {"eval_every": 5, "eval_task": "gone.jsonl"}, "gone.jsonl"),
        ("sft", {"eval_every": 5, "eval_data": "gone.jsonl"}, "eval_data.0.name"),
        ("sft", {"eval_every": 5, "eval_data": "own.jsonl", "held_out": 0.1}, "held_out keeps 0.1 of the mix from training too"),
        ("rlvr", {"eval_every": 5, "eval_data": "own.jsonl"}, "eval_data"),
        ("sft", {"eval_every": 0, "held_out": 0.1}, "eval_every"),
        ("sft", {"eval_every": 2, "held_out": 1.0}, "held_out"),
    ],
)
def test_an_impossible_wish(stage: str, fields: dict[str, Any], told: str, folder: Path) -> None:
    with pytest.raises(RecipeError) as error:
        load(folder, stage, **fields)
    assert told in str(error.value)


def test_what_can_be_looked_at(folder: Path) -> None:
    assert load(folder, "sft", eval_every=5, eval_task="own.jsonl").sft.eval_rows == 128
    assert load(folder, "rm", eval_every=5, held_out=0.1).rm.eval_every == 5
    assert load(folder, "dpo", eval_every=5, eval_data="own.jsonl", eval_task="gsm8k").dpo.eval_data[0].fraction == 1.0
    assert load(folder, "rlvr", eval_every=5, eval_task="sums:held_out").rlvr.eval_task == "sums:held_out"


def test_a_tiny_recipe_keeps_what_is_held_out_and_asks_no_data_of_others(folder: Path) -> None:
    recipe = load(folder, "sft", eval_every=500, held_out=0.1).model_copy(update={"tracker": ("wandb",)})
    assert {'tracker="none"', "sft.eval_every=1"} <= set(shrink(recipe, folder / "runs").overrides)
    other = shrink(load(folder, "sft", eval_every=500, eval_data="own.jsonl", eval_task="gsm8k"), folder / "runs")
    assert {"sft.eval_every=null", "sft.eval_data=null", "sft.eval_task=null"} <= set(other.overrides)
