"""`tulu evaluate MODEL` from the command line: several tasks, a suite, and what is refused before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tulu.cli import app


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["evaluate", *arguments])


def write_rows(folder: Path, name: str, count: int) -> str:
    rows = [{"prompt": f"{n} + 1 =", "ground_truth": str(n + 1)} for n in range(count)]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def test_several_tasks_are_one_table(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    a, b = write_rows(tmp_path, "a.jsonl", 2), write_rows(tmp_path, "b.jsonl", 3)
    common = ["--verifier", "exact", "--max-tokens", "3", "--engine", "transformers", "--out", str(tmp_path / "out")]
    result = call(str(tiny_model("olmo2")), "--task", "a", "--task", "b", "--data", f"a={a}", "--data", f"b={b}", *common)
    assert result.exit_code == 0, result.output
    counts = {name: json.loads((tmp_path / "out" / name / "results.json").read_text())["problems"] for name in ("a", "b")}
    assert counts == {"a": 2, "b": 3}
    assert "average" in result.output
    assert f"{tmp_path / 'out'}: a folder for each task" in result.output.replace("\n", "")
    assert not (tmp_path / "out" / "results.json").exists(), "nobody is told of a file that is not there"


def test_a_suite_of_ones_own_by_the_name_of_a_run(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model("olmo2"), tmp_path / "runs" / "mine" / "sft" / "model")
    rows = write_rows(tmp_path, "rows.jsonl", 3)
    task = "{title: One, ask: '{{ prompt }}', gold: ground_truth, verifier: exact, max_tokens: 3}"
    (tmp_path / "s.yaml").write_text(f"name: s\nabout: a test\ntasks:\n  one: {task}\n")
    result = call("mine", "--suite", "s.yaml", "--data", f"one={rows}", "--limit", "2", "--engine", "transformers")
    assert result.exit_code == 0, result.output
    [file] = (tmp_path / "runs" / "evaluate").rglob("results.json")
    assert json.loads(file.read_text())["tasks"]["one"]["problems"] == 2
    assert "the first 2 rows only" in result.output


def test_a_task_and_a_suite_of_one_name_do_not_replace_each_others_results(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = write_rows(tmp_path, "rows.jsonl", 2)
    task = f"{{title: One, data: {rows}, ask: '{{{{ prompt }}}}', gold: ground_truth, verifier: exact, max_tokens: 3}}"
    (tmp_path / "s.yaml").write_text(f"name: mine\nabout: a test\ntasks:\n  one: {task}\n")
    suite = [str(tiny_model("olmo2")), "--suite", "s.yaml", "--engine", "transformers"]
    single = [suite[0], "--task", "mine", "--data", rows, "--verifier", "exact", "--max-tokens", "3", *suite[-2:]]
    assert call(*suite).exit_code == 0
    [file] = (tmp_path / "runs" / "evaluate").rglob("results.json")
    before = file.read_bytes()
    refused = call(*single)
    assert refused.exit_code == 2, refused.output
    assert "holds the results of the suite mine, which those of a task would replace" in " ".join(refused.output.split())
    assert file.read_bytes() == before
    assert call(*suite).exit_code == 0, "its own results are no obstacle"
    assert call(*single, "--fresh").exit_code == 0
    assert json.loads(file.read_text())["task"] == "mine"
    refused = call(*suite)
    assert refused.exit_code == 2
    assert "holds the results of the task mine" in " ".join(refused.output.split())


def test_every_task_whose_data_is_not_there_is_named_with_its_cure(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    task = "{title: T, data: nobody/DATA, ask: '{{ prompt }}', gold: ground_truth, verifier: exact}"
    tasks = "".join(f"  {name}: {task.replace('DATA', f'gone-{name}')}\n" for name in ("one", "two"))
    (tmp_path / "s.yaml").write_text(f"name: s\nabout: a test\ntasks:\n{tasks}")
    result = call(str(tiny_model("olmo2")), "--suite", "s.yaml", "--engine", "transformers")
    assert result.exit_code == 2, result.output
    told = " ".join(result.output.split())
    for words in ("one: nobody/gone-one:", "two: nobody/gone-two:", "--skip TASK"):
        assert words in told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model"], "needs --task NAME (gsm8k, math, sums, or any name together with --data FILE), or --suite NAME"),
        (["model", "--suite", "tulu3-def"], "did you mean tulu3-dev"),
        (["model", "--suite", "gone.yaml"], "no such file"),
        (["model", "--suite", "olmo2", "--temperature", "1"], "--temperature: a suite says this of each task"),
        (["model", "--suite", "olmo2", "--data", "rows.jsonl"], "--data rows.jsonl: with several tasks, write --data TASK=FILE"),
        (["model", "--suite", "olmo2", "--judge-endpoint", "http://x"], "--judge-endpoint needs --judge"),
        (["model", "--task", "gsm8k", "--judge", "x"], "--judge: belongs to --suite"),
        (["model", "--task", "gsm8k", "--task", "gsm8k"], "--task gsm8k: given twice"),
        (["model", "--task", "gsm8k", "--task", "math", "--data", "sums=x"], "--data sums: no such --task"),
        (["model", "--task", "gsm8k", "--task", "mine"], "--task mine: has no data of its own"),
        (["model", "--suite", "olmo2", "--task", "gsm9k"], "--task gsm9k: suite olmo2 has no such task"),
        (["RECIPE", "--task", "gsm8k", "--task", "math"], "a recipe evaluates one task"),
        (["RECIPE", "--suite", "olmo3"], "evaluate.suite"),
        (["RECIPE", "--suite", "olmo2", "--skip", "gsm9k"], "olmo2 has no task gsm9k; did you mean gsm8k?"),
        (["RECIPE", "--judge", "x"], "belongs to a suite"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nmodel: some/model\nevaluate: {task: gsm8k}\n")
    result = call(*(str(tmp_path / "mine.yaml") if argument == "RECIPE" else argument for argument in arguments))
    assert result.exit_code == 2, result.output
    assert expected in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_recipe_does_its_suite_beside_its_task(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = write_rows(tmp_path, "rows.jsonl", 2)
    task = f"{{title: One, data: {rows}, ask: '{{{{ prompt }}}}', gold: ground_truth, verifier: exact, max_tokens: 3}}"
    (tmp_path / "s.yaml").write_text(f"name: s\nabout: a test\ntasks:\n  one: {task}\n")
    section = f"{{task: mine, data: {rows}, verifier: exact, max_tokens: 3, engine: transformers, suite: s.yaml}}"
    (tmp_path / "mine.yaml").write_text(f"name: mine\nmodel: {tiny_model('olmo2')}\nevaluate: {section}\n")
    result = call("mine.yaml")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "mine" / "evaluate"
    assert json.loads((folder / "results.json").read_text())["problems"] == 2
    assert json.loads((folder / "s" / "results.json").read_text())["suite"] == "s"
    assert call("mine.yaml", "--limit", "1").exit_code == 0
    assert json.loads((folder / "s" / "results.json").read_text())["tasks"]["one"]["problems"] == 1, "first rows of the suite too"


def test_a_run_does_its_suite_with_its_last_model(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tulu.config.load import load_recipe
    from tulu.stages.pipeline import do_suite

    monkeypatch.chdir(tmp_path)
    rows, base = write_rows(tmp_path, "rows.jsonl", 2), str(tiny_model("olmo2"))
    task = f"{{title: One, data: {rows}, ask: '{{{{ prompt }}}}', gold: ground_truth, verifier: exact, max_tokens: 3}}"
    (tmp_path / "s.yaml").write_text(f"name: s\nabout: a test\ntasks:\n  one: {task}\n  two: {task}\n")
    (tmp_path / "mine.yaml").write_text(
        f"name: mine\nmodel: {base}\nsft: {{data: {rows}, learning_rate: 1.0e-4, epochs: 1, max_length: 64, batch: 2}}\n"
        f"evaluate: {{task: mine, data: {rows}, verifier: exact, engine: transformers, suite: s.yaml, skip: [two]}}\n"
    )
    trained = tmp_path / "runs" / "mine" / "sft"
    shutil.copytree(tiny_model("olmo2", seed=1), trained / "model")
    (trained / "recipe.yaml").write_text(f"model: {base}\nrevision: null\n")
    do_suite(load_recipe("mine.yaml"), Path("runs"))
    results = json.loads((tmp_path / "runs" / "mine" / "evaluate" / "s" / "results.json").read_text())
    assert results["model"] == str(Path("runs", "mine", "sft", "model"))
    assert (list(results["tasks"]), results["lacking"]) == (["one"], ["two"])
