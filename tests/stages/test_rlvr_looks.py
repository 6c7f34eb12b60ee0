"""Looks at a task in RLVR: the run's own engine answers, no weight moves by it, and no trained problem is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.test_looks import metrics_of, same_weights, samples_of, write
from tulu.config.job import Job
from tulu.config.schema import Recipe
from tulu.errors import DataError, TuluError
from tulu.stages import rlvr

LENGTHS = {"max_prompt": 64, "max_tokens": 5, "max_length": 72}
SECTION = {
    **{"prompts": 4, "samples": 4, "batch": 16, "steps": 3, "learning_rate": 3e-3, "schedule": "constant", "precision": "fp32"},
    # A random model solves nothing, but some of its answers stop and others do not, so that rewards differ.
    **{"engine": "transformers", "refill": False, "no_stop_score": -1.0, "stop": list("0123456789 abcdefghij"), **LENGTHS},
}


def problems(first: int, last: int) -> list[dict[str, Any]]:
    return [{"messages": [{"role": "user", "content": f"p{at}"}], "ground_truth": str(at)} for at in range(first, last)]


def job(folder: Path, model: Path, name: str, **fields: Any) -> Job:
    data = write(folder / "rows.jsonl", problems(0, 8))
    section = {**SECTION, "data": data, "verifier": "gsm8k", **fields}
    recipe = Recipe.model_validate({"name": name, "model": str(model), "template": "tulu", "rlvr": section})
    return Job(recipe, "rlvr", folder / "runs" / name / "rlvr", str(model))


@pytest.mark.parametrize("fields", [{}, {"max_staleness": 1, "lora": {"rank": 4, "alpha": 8, "dropout": 0.2}}])
def test_a_run_with_looks_ends_with_the_weights_of_one_without(
    fields: dict[str, Any], tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    asked = {"eval_task": write(tmp_path / "asked.jsonl", problems(6, 13)), "eval_every": 2, "eval_rows": 4}
    found = [rlvr.run(job(tmp_path, tiny_model(), name, **fields, **more)) for name, more in (("with", asked), ("without", {}))]
    assert same_weights(*found)
    first, second = (metrics_of(folder.parent) for folder in found)
    assert [line["reward"] for line in first] == [line["reward"] for line in second]
    assert [[name for name in line if name.startswith("eval/")] != [] for line in first] == [False, True, True]
    rows = samples_of(found[0].parent, 3)
    assert [row["prompt"] for row in rows] == ["p8", "p9", "p10", "p11"], "p6 and p7 are trained on, and four are enough"
    assert [row["score"] for row in rows] == [0.0] * 4
    assert first[-1]["eval/asked/accuracy"] == 0.0
    assert first[-1]["eval/asked/truncated"] == sum(row["finish"] == "length" for row in rows) / 4
    assert {"faults", "learner_tokens_per_second", "engines_tokens_per_second", "completion_tokens_max"} <= first[0].keys()
    assert first[0]["faults"] == 0.0
    journal = (found[0].parent / "journal").read_text()
    assert "asked.jsonl" not in journal
    pinned = json.loads((found[0].parent / "manifest.json").read_text())["pinned"]
    assert len(pinned["eval_task"]) == 32


def test_a_task_whose_problems_are_all_trained_on_is_refused(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    asked = {"eval_task": write(tmp_path / "asked.jsonl", problems(2, 5)), "eval_every": 1}
    with pytest.raises(DataError, match=r"rlvr\.eval_task: all problems of .*asked\.jsonl are trained on"):
        rlvr.run(job(tmp_path, tiny_model(), "t", **asked))


ENVIRONMENT = """
class Echo:
    def reset(self, **row):
        self.truth = int(row["ground_truth"])

    def get_reward(self):
        return self.truth / 16
"""


def test_where_the_policy_acts_in_an_environment_it_does_so_in_a_look(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """The environment scores its episodes: those of problems 8 and 9 get 8/16 and 9/16."""
    (tmp_path / "echo.py").write_text(ENVIRONMENT)
    asked = {"eval_task": write(tmp_path / "asked.jsonl", problems(8, 10)), "eval_every": 1}
    small = {"steps": 1, "prompts": 2, "samples": 2, "batch": 4, "no_stop_score": None, "verifier": None}
    made = job(tmp_path, tiny_model(), "t", **asked, **small, env=f"{tmp_path}/echo.py")
    with pytest.raises(TuluError, match="trained"):
        # All answers to a problem get the same here, so that there is nothing to learn.
        rlvr.run(made)
    folder = made.folder
    assert [row["score"] for row in samples_of(folder, 1)] == [8 / 16, 9 / 16]
    assert metrics_of(folder)[0]["eval/asked/accuracy"] == 17 / 32
