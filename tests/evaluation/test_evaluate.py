"""Accuracy with its interval: Wilson's numbers, answers that nobody could grade, and the command from rows to results."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.samples import OneAnHour
from tulu.config.job import Job, make_job
from tulu.config.load import load_recipe
from tulu.config.schema import Evaluate
from tulu.config.tasks import TASKS
from tulu.errors import RecipeError, TuluError
from tulu.evaluation.evaluate import Answer, answer_all, evaluate_model, run, summarise
from tulu.evaluation.options import EvaluateOptions
from tulu.intervals import wilson
from tulu.rollout.transformers_engine import TransformersEngine
from tulu.train.ledger import read_ledger
from tulu.verifiers.registry import check_name


def answer(score: float | None, status: str = "ok", finish: str = "stop") -> Answer:
    return Answer("row:1", "1 + 1 =", "2", "2", score, status, "", finish)


def test_answers_that_could_not_be_graded_are_counted_and_not_scored() -> None:
    answers = [answer(1.0), answer(0.0), answer(0.0, finish="length"), answer(1.0), answer(None, "timeout", "length")]
    result = summarise(answers, "gsm8k", "model")
    assert (result.accuracy, result.problems, result.judged, result.truncated) == (0.5, 5, 4, 2)
    assert result.statuses == {"ok": 4, "timeout": 1}
    assert result.ci95 == wilson(0.5, 4), "of four, not of five"


def test_nothing_graded_is_no_accuracy() -> None:
    result = summarise([answer(None, "error")] * 3, "gsm8k", "model")
    assert math.isnan(result.accuracy)
    assert (result.ci95, result.judged, result.problems) == ((0.0, 1.0), 0, 3)


def test_partial_scores_are_averaged() -> None:
    assert summarise([answer(0.25), answer(0.75)], "own", "model").accuracy == 0.5


def test_every_task_has_a_verifier_that_exists() -> None:
    for task in TASKS.values():
        if task.verifier is not None:
            check_name(task.verifier)


def test_unknown_task_needs_data() -> None:
    with pytest.raises(RecipeError, match=r"--task gsm9k: has no data of its own; known are gsm8k, math, sums, or give --data"):
        evaluate_model("model", EvaluateOptions(task=("gsm9k",)))


def test_a_recipe_without_a_model_has_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no model to evaluate yet"):
        run(Job(load_recipe("quickstart"), "evaluate", tmp_path / "evaluate", None))


def test_rows_of_ones_own_to_results(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    rows = [{"messages": [{"role": "user", "content": f"{n} + 1 ="}], "ground_truth": str(n + 1)} for n in range(6)]
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = str(tiny_model("olmo2"))
    options = EvaluateOptions(task=("mine",), data=(str(file),), verifier="exact", limit=4, max_tokens=5, out=out)
    result = evaluate_model(model, options)
    assert (result.problems, result.judged, result.accuracy, result.task) == (4, 4, 0.0, "mine")
    written = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert [line["ground_truth"] for line in written] == ["1", "2", "3", "4"]
    assert [line["id"] for line in written] == [f"{file}:{n}" for n in range(1, 5)], "in order, the first ones"
    content = json.loads((out / "results.json").read_text())
    assert (content["accuracy"], tuple(content["ci95"])) == (0.0, result.ci95)
    assert (content["settings"]["max_tokens"], content["settings"]["verifier"]) == (5, "exact")
    again = evaluate_model(model, options)
    assert again == result, "greedy answers are the same every time"
    assert sorted(file.name for file in out.iterdir() if file.is_file()) == ["answers.jsonl", "energy.json", "results.json"]


def test_where_nothing_is_graded_there_is_no_result(
    tmp_path: Path, tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    file, mine, out = tmp_path / "rows.jsonl", tmp_path / "mine.py", tmp_path / "out"
    file.write_text("".join(json.dumps({"prompt": f"{n} + 1 =", "ground_truth": str(n)}) + "\n" for n in range(3)))
    mine.write_text("def score(completion, ground_truth):\n    raise KeyError('no ' + ground_truth[:0] + 'idea')\n")
    options = EvaluateOptions(task=("mine",), data=(str(file),), verifier=f"{mine}:score", max_tokens=3, out=out)
    model = str(tiny_model("olmo2"))
    told = rf"3 of 3 answers could not be graded, 3 of them with error: KeyError: 'no idea' \(first at {file}:1\)"
    with pytest.raises(TuluError, match=rf"{told}; they are in {out}/answers\.jsonl; mend the verifier"):
        evaluate_model(model, options)
    assert len((out / "answers.jsonl").read_text().splitlines()) == 3
    assert not (out / "results.json").exists()
    mine.write_text("def score(completion, ground_truth):\n    return None if ground_truth == '1' else 1\n")
    result = evaluate_model(model, options)
    assert (result.accuracy, result.judged, result.problems) == (1.0, 2, 3), "all of them are asked again"
    assert (
        f"1 of 3 answers could not be graded, 1 of them with error: the verifier returned None (first at {file}:2)" in caplog.text
    )


def broken_off_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the engine be interrupted once it has sampled so many batches more; the one number of the list may be set anew."""
    generate, most = TransformersEngine.generate, [calls]

    def interrupted(self: Any, problems: Any, n: int, params: Any) -> Any:
        most[0] -= 1
        if most[0] < 0:
            raise KeyboardInterrupt
        return generate(self, problems, n, params)

    monkeypatch.setattr(TransformersEngine, "generate", interrupted)
    return most


def test_answers_by_a_verifier_that_was_edited_are_not_gone_on_with(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, mine = tmp_path / "rows.jsonl", tmp_path / "mine.py"
    name = f"{mine}:score"
    rows = [{"prompt": f"{n} + 1 =", "ground_truth": "1", "dataset": name} for n in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"task": "mine", "data": str(file), "max_tokens": 3, "batch": 2, "engine": "transformers"}
    settings, model = Evaluate.model_validate(given), str(tiny_model("olmo2"))
    most = broken_off_after(1, monkeypatch)
    mine.write_text("def score(completion, ground_truth):\n    return 0\n")
    with pytest.raises(KeyboardInterrupt):
        answer_all(model, settings, "tokenizer", tmp_path / "out")
    mine.write_text("def score(completion, ground_truth):\n    return 1\n")
    most[0] = 9
    assert answer_all(model, settings, "tokenizer", tmp_path / "out").accuracy == 1.0, "no half of it is the old one's"


def test_its_energy_is_that_of_all_sessions_and_what_is_done_again_stays_on_record(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session takes 1 kWh: two are broken off, the third ends, a fourth does it anew, and another task comes beside it."""
    monkeypatch.setattr("tulu.train.measured.EnergyMeter", OneAnHour)
    file, out = tmp_path / "rows.jsonl", tmp_path / "evaluate" / "m"
    rows = [{"messages": [{"role": "user", "content": f"{n} + 1 ="}], "ground_truth": str(n + 1)} for n in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"task": "mine", "data": str(file), "verifier": "exact", "max_tokens": 3, "batch": 2, "engine": "transformers"}
    settings, model = Evaluate.model_validate(given), str(tiny_model("olmo2"))
    most = broken_off_after(0, monkeypatch)
    for most[0] in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            answer_all(model, settings, "tokenizer", out / "mine")
    [entry] = read_ledger([out])
    assert (entry.name, entry.state, entry.kwh) == ("evaluate/m/mine", "unfinished", 2.0)
    for most[0], kwh in ((9, 3.0), (9, 1.0)):
        answer_all(model, settings, "tokenizer", out / "mine")
        assert json.loads((out / "mine" / "results.json").read_text())["energy"]["kwh"] == kwh
    most[0] = 9
    answer_all(model, settings, "tokenizer", out / "other")
    found = [(one.name, one.state, one.kwh, one.phases) for one in read_ledger([out])]
    assert found == [
        ("evaluate/m/mine, attempt 1", "finished, started over", 3.0, {"evaluation": 1.0}),
        ("evaluate/m/mine", "finished", 1.0, {"evaluation": 1.0}),
        ("evaluate/m/other", "finished", 1.0, {"evaluation": 1.0}),
    ]


def test_the_base_model_of_a_recipe_is_evaluated_at_its_revision(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, cached = "c0ffee" + "0" * 34, tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_model("olmo2"), cached / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1 + 1 =", "ground_truth": "2", "dataset": "exact"}\n')
    evaluate = "{task: mine, data: rows.jsonl, max_tokens: 4, engine: transformers}"
    (tmp_path / "r.yaml").write_text(f"name: a\nmodel: someone/tiny\nrevision: {commit}\ntemplate: tulu\nevaluate: {evaluate}\n")
    # The cache holds this commit alone, and nothing says that it is the main branch.
    run(make_job(load_recipe("r.yaml"), "evaluate", tmp_path / "runs"))
    assert json.loads((tmp_path / "runs" / "a" / "evaluate" / "results.json").read_text())["judged"] == 1
