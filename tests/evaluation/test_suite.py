"""A suite from its YAML to one table: rows, shots, values, groups, the average, what is kept, and every mistake at once."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.endpoint_server import reply, serve
from tests.evaluation.known_engine import KnownEngine
from tests.samples import OneAnHour
from tulu.config.suites import load_suite
from tulu.errors import RecipeError
from tulu.evaluation.suite import run_suite
from tulu.evaluation.suite_request import SuiteRequest, check
from tulu.intervals import wilson
from tulu.train.ledger import read_ledger


def write_rows(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def write_suite(folder: Path, tasks: dict[str, Any], **fields: Any) -> str:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({"name": "mine", "about": "a test", "tasks": tasks, **fields}, sort_keys=False))
    return str(file)


def sums(folder: Path, count: int = 6) -> str:
    rows = [{"question": f"{n} + 1 =", "answer": str(n + 1), "kind": "odd" if n % 2 else "even"} for n in range(count)]
    return write_rows(folder / f"sums-{count}.jsonl", rows)


def sum_task(data: str, **fields: Any) -> dict[str, Any]:
    task = {"title": "Sums", "data": data, "ask": "Q: {{ question }}", "gold": "answer", "verifier": "exact", "max_tokens": 4}
    return {**task, **fields}


def request(model: Path, suite: str, folder: Path, **fields: Any) -> SuiteRequest:
    return SuiteRequest(str(model), load_suite(suite), "tokenizer", folder, engine="transformers", **fields)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, tiny_model: Callable[..., Path]) -> Callable[[Callable[[str, int], str]], None]:
    """answering(f) lets every suite be answered by f(question, number of the sample)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model("olmo2"))

    def use(answer: Callable[[str, int], str]) -> None:
        monkeypatch.setattr("tulu.evaluation.shared_engine.make_engine", lambda *_, **__: KnownEngine(tokenizer, answer))

    return use


def test_a_suite_from_its_yaml_to_one_table(
    tmp_path: Path, tiny_model: Callable[..., Path], answering: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # Right for 0, 1 and 3 of the six sums: 1/3 of the even ones and 2/3 of the odd ones; of four samples only the first is right.
    def answer(question: str, number: int) -> str:
        n = int(question.split()[1])
        return str(n + 1) if n in (0, 1, 3) and number == 0 else "I think that it is 99"

    answering(answer)
    data, out = sums(tmp_path), tmp_path / "out"
    tasks = {
        "plain": sum_task(data),
        "by_kind": sum_task(sums(tmp_path, 5), mean_over="kind", title="By kind"),
        "several": sum_task(data, samples=4, temperature=1.0, metric="pass@2", title="Several"),
        "inside": sum_task(data, gold="['Paris', 'It is 99']", verifier="string_match", metric="contains", title="Inside"),
    }
    scores = run_suite(request(tiny_model("olmo2"), write_suite(tmp_path, tasks), out))
    assert scores["plain"].score == 0.5
    assert scores["plain"].ci95 == wilson(0.5, 6)
    assert scores["by_kind"].score == pytest.approx((1 / 3 + 2 / 2) / 2), "0, 2 and 4 are even; 1 and 3 are odd"
    assert scores["several"].score == pytest.approx(0.5 * 3 / 6), "one right of four: 3 of the 6 pairs hold it"
    assert scores["several"].further == {"pass@1": pytest.approx(0.5 / 4)}
    assert scores["inside"].score == 0.5, "`it is 99` stands in half of the answers, in lower case"
    content = json.loads((out / "results.json").read_text())
    assert content["average"] == pytest.approx((0.5 + 2 / 3 + 0.25 + 0.5) / 4)
    assert content["lacking"] == []
    assert content["settings"]["tasks"]["plain"]["ask"] == "Q: {{ question }}"
    rows = [json.loads(line) for line in (out / "by_kind" / "rows.jsonl").read_text().splitlines()]
    message = {"role": "user", "content": "Q: 0 + 1 ="}
    assert rows[0] == {"messages": [message], "ground_truth": "1", "dataset": "exact", "group": "even"}
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("By kind", "pass@2", "25.0", "average", "47.9"))


def test_a_suite_that_was_killed_asks_only_what_it_has_not(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tulu.rollout.transformers_engine import TransformersEngine

    data, model, out = sums(tmp_path), tiny_model("olmo2"), tmp_path / "out"
    suite = write_suite(tmp_path, {"one": sum_task(data), "two": sum_task(data, title="Two", ask="again: {{ question }}")})
    asked: list[int] = []
    generate = TransformersEngine.generate

    def counting(self: Any, problems: Any, n: int, params: Any) -> Any:
        if sum(asked) >= 8:
            raise KeyboardInterrupt
        asked.append(len(problems))
        return generate(self, problems, n, params)

    monkeypatch.setattr(TransformersEngine, "generate", counting)
    monkeypatch.setattr("tulu.train.measured.EnergyMeter", OneAnHour)
    with pytest.raises(KeyboardInterrupt):
        run_suite(request(model, suite, out, batch=4))
    assert asked == [4, 2, 4], "batches of four over six problems, and the second task was begun"
    assert [(one.state, one.kwh) for one in read_ledger([out])] == [("unfinished", 1.0)]
    kept = (out / "two" / "samples.jsonl").read_text()
    asked.clear()
    killed = run_suite(request(model, suite, out, batch=4))
    assert asked == [2], "the rest of the second task"
    assert (out / "two" / "samples.jsonl").read_text().startswith(kept)
    asked.clear()
    assert run_suite(request(model, suite, out, batch=4)) == killed
    assert asked == [], "what is finished starts no engine"
    content = json.loads((out / "results.json").read_text())
    assert content["energy"]["kwh"] == 3.0, "of all sessions"
    (out / "results.json").write_text(json.dumps({**content, "weights": "of another model"}))
    run_suite(request(model, suite, out, batch=4))
    told = [(one.state, one.kwh, one.phases) for one in read_ledger([out])]
    assert told == [("finished, started over", 3.0, {"evaluation": 1.0}), ("finished", 1.0, {"evaluation": 1.0})]
    monkeypatch.setattr(TransformersEngine, "generate", generate)
    assert run_suite(request(model, suite, tmp_path / "whole", batch=4)) == killed


def test_shots_are_turns_and_are_not_asked(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    data, out = sums(tmp_path), tmp_path / "out"
    shots = {"count": 2, "answer": "{{ answer }}", "data": {"name": data, "fraction": 1.0}}
    suite = write_suite(tmp_path, {"one": sum_task(data, shots=shots)})
    scores = run_suite(request(tiny_model("olmo2"), suite, out))
    assert scores["one"].problems == 4
    first = json.loads((out / "one" / "rows.jsonl").read_text().splitlines()[0])
    assert [(turn["role"], turn["content"]) for turn in first["messages"]] == [
        ("user", "Q: 0 + 1 ="),
        ("assistant", "1"),
        ("user", "Q: 1 + 1 ="),
        ("assistant", "2"),
        ("user", "Q: 2 + 1 ="),
    ]


def test_tasks_are_chosen_and_the_average_says_what_it_lacks(
    tmp_path: Path, tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = sums(tmp_path)
    tasks = {name: sum_task(data, title=name) for name in ("a", "b", "c")}
    suite = write_suite(tmp_path, tasks, groups={"both": ["b", "c"]}, average=["a", "both"])
    scores = run_suite(request(tiny_model("olmo2"), suite, tmp_path / "out", tasks=("both",), limit=2))
    assert list(scores) == ["b", "c", "both"]
    assert scores["both"].problems == 4
    assert scores["b"].notes == ("the first 2 rows only",)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["lacking"] == ["a"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "mine (1 of 2 tasks: not the report's average)" in shown
    assert "average of 1 of 2" in shown
    assert "the average is over 1 of 2 tasks, without a and over the first 2 rows of each task: it is not the report's" in shown


def test_answers_and_prompts_fit_the_model(
    tmp_path: Path, tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": "1 + 1 =", "answer": "2"}, {"question": "long " * 200, "answer": "2"}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    suite = write_suite(tmp_path, {"one": sum_task(data, max_tokens=400)})
    model = tiny_model("olmo2", max_position_embeddings=128)
    score = run_suite(request(model, suite, tmp_path / "out"))["one"]
    assert (score.problems, score.left_out) == (1, 1)
    assert score.notes == ("answers of at most 64 tokens: the model has 128 positions",)
    assert capsys.readouterr().out.count("1 rows not asked") == 1


def test_every_mistake_of_a_suite_is_told_at_once(tmp_path: Path) -> None:
    tasks = {
        "a": {"title": "A", "verifier": "exactly"},
        "b": {"title": "B", "verifier": "exact", "metric": "pass@4", "samples": 2},
        "c": {"title": "C"},
        "d": {"title": "D", "verifier": "exact", "ask": "{{ question", "gold": "answer +"},
        "e": {"title": "E", "harness": "drop/drop", "gold": "answer"},
        "f": {"title": "F", "reference": "output", "metric": "accuracy"},
        "g": {"title": "G", "verifier": "exact", "shots": {"count": 1, "answer": "x"}},
        "h": {"title": "H", "harness": "drop/drop", "metric": "f1", "mean_over": "subject"},
        "i": {"title": "I", "reference": "output", "metric": "win_rate", "mean_over": "kind", "samples": 2, "temperature": 1.0},
    }
    suite = write_suite(tmp_path, tasks, average=["a", "z"], groups={"b": ["a"]})
    with pytest.raises(RecipeError) as caught:
        load_suite(suite)
    text = str(caught.value)
    expected = (
        "tasks.a.verifier: verifier 'exactly' is unknown; did you mean exact",
        "tasks.b.metric: pass@4 needs samples of at least 4, and there are 2",
        "tasks.b.samples: 2 greedy answers are all the same",
        "tasks.c: give exactly one of verifier, harness and reference",
        "tasks.d.ask: no Jinja template",
        "tasks.d.gold: no Jinja expression",
        "tasks.e.gold: lm-eval's task says this itself",
        "tasks.f.metric: accuracy: of a judge there are win_rate",
        "tasks.g.shots: give exactly one of harness, data and rows",
        "tasks.h.mean_over: subject: lm-eval's problems are grouped by their task alone",
        "tasks.i.mean_over: a judge compares one answer to each problem",
        "tasks.i.samples: a judge compares one answer to each problem",
        "groups.b: a task has this name",
        "average: no task 'z'",
    )
    assert [line for line in expected if line not in text] == [], text
    assert f"{suite}:" in text, "with the line of each"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name: x\nabout: y\ntasks: {}\n", "tasks"),
        ("name: x\nabout: y\n", "tasks: missing; add it"),
        ("name: x\nabout: y\ntasks: {a: {title: A, verifer: exact}}\n", "unknown key; did you mean verifier?"),
        ("name: x\nabuot: y\ntasks: {a: {titel: A, verifier: exact}}\n", "x.yaml: 2 problems\n"),
        ("name: x\nabout: y\ntasks: {a: {titel: A}, b: {verifier: exact}}\n", "tasks.b.title: missing; add it"),
        ("name: x\nabout: y\ntasks: {a: {from: tulu3-dev}}\n", "tulu3-dev has no task a of its own"),
        ("name: x\nabout: y\ntasks: {a: {title: A, verifier: exact, samples: many}}\n", "tasks.a.samples"),
        ("- 1\n", "mapping"),
        ("name: x\nabout: y\ntasks: {../../a: {title: A, verifier: exact}}\n", "tasks.../../a: should begin with a letter"),
        ("name: ../x\nabout: y\ntasks: {a: {title: A, verifier: exact}}\n", "name: should begin with a letter"),
    ],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(content)
    with pytest.raises(RecipeError, match=r"x\.yaml") as caught:
        load_suite(str(file))
    assert expected in str(caught.value)


def test_an_unknown_suite_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"tulu3: unknown; did you mean .*; known are code, olmo2, tulu3-dev, tulu3-unseen"):
        load_suite("tulu3")


def test_what_this_machine_lacks_is_told_before_the_model_is_loaded(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    data = sums(tmp_path)
    judged = {"title": "J", "data": data, "ask": "{{ question }}", "reference": "answer", "metric": "win_rate"}
    tasks = {"a": sum_task(str(tmp_path / "none.jsonl")), "b": sum_task(data, obtain="ask around") | {"data": None}, "j": judged}
    suite = write_suite(tmp_path, tasks)
    with pytest.raises(RecipeError) as caught:
        check(request(tiny_model("olmo2"), suite, tmp_path / "out", data={"x": "y"}))
    lines = str(caught.value).splitlines()
    assert lines[0] == "--data x: suite mine has no such task; it has a, b, j"
    assert "no such file" in lines[1]
    assert lines[1].endswith("(or --skip a)")
    assert lines[2] == "b: its rows must be fetched by hand (ask around); give --data b=FILE (or --skip b)"
    assert lines[3].startswith("j: needs a judge; give --judge MODEL")
    assert not (tmp_path / "out").exists()
    check(request(tiny_model("olmo2"), suite, tmp_path / "out", skip=("b", "j"), data={"a": data}))


def test_nothing_scored_is_no_average(tmp_path: Path) -> None:
    from tulu.evaluation.suite_scores import average

    suite = load_suite(write_suite(tmp_path, {"one": sum_task(sums(tmp_path))}))
    mean, _, lacking = average(suite, {})
    assert math.isnan(mean)
    assert lacking == ["one"]


def test_a_judge_compares_with_another_models_answer(tmp_path: Path, tiny_model: Callable[..., Path], answering: Any) -> None:
    """The judge prefers whatever says "good": the model wins 2 of 4, whichever answer it is shown first."""
    answering(lambda question, _: "good" if question in ("0", "1") else "bad and long")
    rows = [{"instruction": str(n), "output": "other"} for n in range(4)]
    data, judged = write_rows(tmp_path / "pairs.jsonl", rows), list[str]()

    def rule(body: dict[str, Any], _headers: Any) -> tuple[int, Any]:
        text = body["messages"][-1]["content"]
        judged.append(text)
        other, own = text.index("other"), max(text.find("good"), text.find("bad and long"))
        own_is_first = own < other
        return reply("[[A]]" if own_is_first == ("good" in text) else "[[B]]")

    task = {"title": "Wins", "data": data, "ask": "{{ instruction }}", "reference": "output", "metric": "win_rate"}
    suite = write_suite(tmp_path, {"one": task})
    with serve(rule) as url:
        wanted = request(tiny_model("olmo2"), suite, tmp_path / "out", judge="judge", endpoint=url)
        score = run_suite(wanted)["one"]
        assert (score.score, score.scored, score.metric) == (0.5, 4, "win_rate")
        assert set(score.further) == {"length_controlled_win_rate"}
        assert len(judged) == 8, "both orders of each pair"
        assert run_suite(wanted)["one"] == score
        assert len(judged) == 8, "verdicts are kept"
