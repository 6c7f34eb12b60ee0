"""MBPP in its own format: prompts, tests behind their set-up code, pass@k by hand, and the task named alone."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer
from typer.testing import CliRunner, Result

from tests.evaluation.known_engine import KnownEngine
from tulu.cli import app
from tulu.config.suite_tasks import suite_tasks
from tulu.config.suite_templates import filled
from tulu.config.suites import load_suite
from tulu.verifiers.code.verifier import CODE
from tulu.verifiers.contract import Case

ROWS: list[dict[str, Any]] = [
    {
        "task_id": 11,
        "text": "Write a function to add two numbers.",
        "code": "def add(a, b):\r\n  return a + b",
        "test_list": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add(2, 2) == 4"],
        "test_setup_code": "",
        "challenge_test_list": ["assert add(0, 0) == 1"],
    },
    {
        "task_id": 12,
        "text": "Write a function to find the depth of a tree.",
        "code": "class Node:\r\n  ...",
        "test_list": ["assert depth(root) == 2", "assert depth(leaf) == 1"],
        "test_setup_code": "leaf = Node() \r\nroot = Node() \r\nroot.left = leaf",
        "challenge_test_list": [],
    },
]
ADD = "```python\ndef add(a, b):\n    return a + b\n```"
ALMOST = "```python\ndef add(a, b):\n    return 3 if b == 2 and a == 1 else abs(a) + b\n```"
TREE = """```python
class Node:
    left = None

def depth(node):
    return 1 + (depth(node.left) if node.left else 0)
```"""

needs_sandbox = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")


@pytest.fixture
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("olmo2", max_position_embeddings=4096)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, model: Path) -> Callable[[Callable[[str, int], str]], KnownEngine]:
    """answering(f) lets everything be answered by f(question, number of the sample); returns the engine."""

    def use(answer: Callable[[str, int], str]) -> KnownEngine:
        engine = KnownEngine(AutoTokenizer.from_pretrained(model), answer)
        monkeypatch.setattr("tulu.evaluation.shared_engine.make_engine", lambda *_, **__: engine)
        return engine

    return use


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mbpp.jsonl", ROWS)
    return tmp_path


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *arguments])


def some(question: str, number: int) -> str:
    """Of twenty answers five add rightly, and the others pass two of three tests; one of the trees is right."""
    if "depth" in question:
        return TREE if number == 0 else "I do not know."
    return ADD if number < 5 else ALMOST


@needs_sandbox
def test_a_local_file_is_asked_graded_and_scored_by_the_share_of_all_draws(place: Path, model: Path, answering: Any) -> None:
    engine = answering(some)
    result = call(str(model), "--task", "mbpp", "--data", "mbpp.jsonl", "--out", "out")
    assert result.exit_code == 0, result.output
    content = json.loads((place / "out" / "results.json").read_text())
    score = content["tasks"]["mbpp"]
    assert (score["metric"], score["better"], score["problems"], score["scored"]) == ("pass@1", "higher", 2, 2)
    assert score["score"] == pytest.approx((5 / 20 + 1 / 20) / 2), "two of three tests are not passed"
    # Chen et al.: 1 - C(n - c, k) / C(n, k).
    tens = [1 - math.comb(20 - right, 10) / math.comb(20, 10) for right in (5, 1)]
    assert score["further"] == {"pass@10": pytest.approx(sum(tens) / 2)}
    assert score["notes"] == ["2 rows, where the original has 500: the figure is not comparable"]
    assert content["weights"]
    assert set(engine.asked) == {
        "Write a Python program for this problem, and give the whole of it in one Python block.\n\n"
        f"{row['text']}\n\nIt has to pass these tests:\n```python\n" + "\n".join(row["test_list"]) + "\n```"
        for row in ROWS
    }
    rows = [json.loads(line) for line in (place / "out" / "mbpp" / "rows.jsonl").read_text().splitlines()]
    assert [row["dataset"] for row in rows] == ["code", "code"]
    assert rows[0]["ground_truth"] == {"tests": ROWS[0]["test_list"], "imports": []}
    assert rows[1]["ground_truth"]["tests"][1] == "leaf = Node() \r\nroot = Node() \r\nroot.left = leaf\nassert depth(leaf) == 1"


@needs_sandbox
def test_greedy_answers_are_one_each(place: Path, model: Path, answering: Any) -> None:
    engine = answering(some)
    mbpp = ("--task", "mbpp", "--data", "mbpp=mbpp.jsonl", "--temperature", "0", "--max-tokens", "99", "--out", "out")
    result = call(str(model), *mbpp)
    assert result.exit_code == 0, result.output
    settings = json.loads((place / "out" / "results.json").read_text())["settings"]["tasks"]["mbpp"]
    assert (settings["samples"], settings["temperature"], settings["max_tokens"]) == (1, 0.0, 99)
    assert json.loads((place / "out" / "results.json").read_text())["average"] == 1.0
    assert len(engine.asked) == 2


@needs_sandbox
def test_a_suite_of_ones_own_names_it_with_another_k(place: Path, model: Path, answering: Any) -> None:
    answering(some)
    tasks = {"mbpp": {"from": "code", "data": "mbpp.jsonl", "metric": "pass@20", "problems": 2}}
    (place / "s.yaml").write_text(yaml.safe_dump({"name": "s", "about": "a test", "tasks": tasks}))
    result = call(str(model), "--suite", "s.yaml", "--out", "out")
    assert result.exit_code == 0, result.output
    score = json.loads((place / "out" / "results.json").read_text())["tasks"]["mbpp"]
    assert (score["score"], score["notes"]) == (1.0, []), "one of the twenty is right for each"
    assert score["further"]["pass@1"] == pytest.approx((5 / 20 + 1 / 20) / 2)


@needs_sandbox
def test_rows_of_ones_own_keep_the_name_and_stand_beside_others(
    place: Path, model: Path, answering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with a ground truth are problems, whatever the task is called."""
    engine = KnownEngine(AutoTokenizer.from_pretrained(model), lambda *_: "4")
    monkeypatch.setattr("tulu.evaluation.candidates.make_engine", lambda *_, **__: engine)
    message = {"role": "user", "content": "2 + 2"}
    write(place / "own.jsonl", [{"messages": [message], "ground_truth": "4", "dataset": "exact"}])
    result = call(str(model), "--task", "mbpp", "--data", "own.jsonl", "--out", "out")
    assert result.exit_code == 0, result.output
    assert json.loads((place / "out" / "results.json").read_text())["accuracy"] == 1.0
    answering(some)
    both = ("--task", "mbpp", "--task", "mine", "--data", "mbpp=mbpp.jsonl", "--data", "mine=own.jsonl", "--temperature", "0")
    result = call(str(model), *both, "--out", "both")
    assert result.exit_code == 0, result.output
    shown = result.output[result.output.index("tasks") :]
    assert [words in shown for words in ("MBPP (pass@1)", "mine", "average", "100.0")] == [True] * 4
    assert json.loads((place / "both" / "mine" / "results.json").read_text())["accuracy"] == 1.0
    assert json.loads((place / "both" / "mbpp" / "results.json").read_text())["average"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--task", "mbpp", "--env", "x.py"], "--env: mbpp is a task of suite code, which says this"),
        (["--task", "humaneval", "--temperature", "0"], "all answers would be the same, and pass@10 needs several"),
        (["--task", "mbpp", "--data", "gone.jsonl"], "--data gone.jsonl: no such file"),
        (["--task", "mbp"], "--task mbp: has no data of its own; did you mean mbpp"),
        (["--task", "drop", "--temperature", "1"], "lm-eval's task drop says this itself"),
        (["--task", "alpaca_eval"], "alpaca_eval: its rows must be fetched by hand"),
        (["--task", "alpaca_eval"], "give --data alpaca_eval=FILE (or leave --task alpaca_eval out)"),
        (["--task", "mbpp", "--data", "odd.jsonl"], "'test_list' is undefined; its columns are task_id, text: correct"),
        (["--task", "mbpp", "--skip", "x"], "--skip: belongs to --suite"),
    ],
)
def test_what_a_task_named_alone_cannot_do_is_told(arguments: list[str], expected: str, place: Path, model: Path) -> None:
    write(place / "odd.jsonl", [{"task_id": 11, "text": "Write."}])
    result = call(str(model), *arguments)
    assert result.exit_code == 2, result.output
    assert expected in " ".join(result.output.split())
    assert "--skip TASK" not in result.output, "there is no suite of which one could be left out"


def test_a_recipe_is_told_where_the_task_is(place: Path) -> None:
    (place / "r.yaml").write_text("name: r\nmodel: some/model\nevaluate: {task: mbpp}\n")
    result = call("r.yaml")
    assert result.exit_code == 2
    assert "is a task of a suite; set evaluate.suite to code, or to a file" in " ".join(result.output.split())


def test_every_task_of_the_suites_has_one_place() -> None:
    places = suite_tasks()
    assert [places[name] for name in ("mmlu", "humaneval", "gpqa", "mbpp")] == ["tulu3-dev", "tulu3-dev", "tulu3-unseen", "code"]
    assert "gsm8k" not in places, "the task table has it"


@needs_sandbox
def test_the_edited_rows_have_usable_tests_and_their_own_solutions_pass(shared_data: Path) -> None:
    """Real rows, in the edited form: `prompt` in place of `text`, and imports."""
    task = load_suite("code").tasks["mbpp"]
    rows = [json.loads(line) for line in (shared_data / "mbpp_sanitized" / "test.jsonl").read_text().splitlines()]
    assert task.ask is not None
    assert task.gold is not None
    golds = [filled(task.gold, expression=True)({**row, "row": row}) for row in rows]
    for gold in golds:
        CODE.check(gold)
    assert rows[0]["prompt"] in filled(task.ask)({**rows[0], "row": rows[0]})
    for row, gold in list(zip(rows, golds, strict=True))[::50]:
        assert CODE.strict(Case(f"```python\n{row['code']}\n```", gold)).score == 1, row["prompt"]
        assert CODE.strict(Case("```python\ndef nothing(): ...\n```", gold)).score == 0
