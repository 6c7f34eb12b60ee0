"""lm-eval over the package's engines: log-probs as transformers computes them, answers up to their stops, and the cache."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2 import Template
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.evaluation.known_engine import KnownEngine
from tulu.config.suite_needs import harness_folder, has_lm_eval
from tulu.config.suites import SuiteTask
from tulu.errors import DataError, RecipeError
from tulu.evaluation.harness_tasks import config_of, examples_of, specs

pytestmark = pytest.mark.skipif(not has_lm_eval(), reason="lm-eval is not installed: pip install 'tulu[eval]'")


def write_rows(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def suite_of(folder: Path, task: dict[str, Any]) -> Any:
    from tulu.config.suites import Suite

    return Suite(name="mine", about="a test", tasks={"one": SuiteTask.model_validate(task)})


def run_one(model: Path, task: dict[str, Any], data: Path, out: Path) -> Any:
    from tulu.evaluation.suite import run_suite
    from tulu.evaluation.suite_request import SuiteRequest

    suite = suite_of(out, task)
    return run_suite(SuiteRequest(str(model), suite, "tokenizer", out, "transformers", data={"one": str(data)}))["one"]


def expected_logp(folder: Path, prompt: str, answer: str) -> float:
    """The log-prob of a text behind another by transformers' own forward pass."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    context = tokenizer.encode(prompt, add_special_tokens=False)
    whole = tokenizer.encode(prompt + answer, add_special_tokens=False)
    with torch.no_grad():
        logps = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return float(sum(logps[place - 1, whole[place]] for place in range(len(context), len(whole))))


def test_the_probability_of_true_answers_is_that_of_transformers(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = tiny_model("olmo2", max_position_embeddings=2048)
    targets: dict[str, Any] = {"choices": ["Yes.", "No.", "Perhaps so."], "labels": [1, 0, 1]}
    rows = [{"question": text, "mc1_targets": targets, "mc2_targets": targets} for text in ("Is it?", "Is it not?")]
    data = Path(write_rows(tmp_path / "rows.jsonl", rows))
    task = {"title": "T", "harness": "truthfulqa/truthfulqa_mc2", "metric": "acc"}
    score = run_one(model, task, data, tmp_path / "out")
    text = config_of("truthfulqa/truthfulqa_mc1")["doc_to_text"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    shares = []
    for row in rows:
        chat = [{"role": "user", "content": Template(text).render(row)}]
        prompt = str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        # lm-eval puts its delimiter, a space, before each choice unless the prompt ends in white space.
        gaps: list[str] = [("" if prompt[-1].isspace() else " ") + choice for choice in targets["choices"]]
        chances = [math.exp(expected_logp(model, prompt, choice)) for choice in gaps]
        shares.append((chances[0] + chances[2]) / sum(chances))
    values = [json.loads(line)["value"] for line in (tmp_path / "out" / "one" / "values.jsonl").read_text().splitlines()]
    assert values == pytest.approx(shares, rel=1e-4)
    assert score.score == pytest.approx(sum(shares) / 2, rel=1e-4)
    assert (score.problems, score.truncated) == (2, 0)


def test_a_group_of_tasks_from_local_files_and_nothing_asked_twice(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("olmo2", max_position_embeddings=8192)
    engine = KnownEngine(AutoTokenizer.from_pretrained(model), lambda *_: "So the answer is True.</s> So the answer is False.")
    monkeypatch.setattr("tulu.evaluation.shared_engine.make_engine", lambda *_, **__: engine)
    folder = tmp_path / "bbh"
    folder.mkdir()
    first = [{"input": f"not {n} is", "target": target} for n, target in enumerate(("True", "True", "False"))]
    write_rows(folder / "bbh_cot_fewshot_boolean_expressions.jsonl", first)
    write_rows(folder / "bbh_cot_fewshot_navigate.jsonl", [{"input": "Do you?", "target": "False"}])
    task = {"title": "B", "harness": "bbh/cot_fewshot/bbh_cot_fewshot", "metric": "exact_match,get-answer", "stop": ["</s>"]}
    score = run_one(model, task, folder, tmp_path / "out")
    assert (score.score, score.problems) == (0.5, 4), "two of four questions, however they are spread over the tasks"
    assert len(engine.asked) == 4
    assert engine.asked[0].count("Q: ") == 4, "three examples before the question"
    macro = run_one(model, {**task, "mean_over": "task"}, folder, tmp_path / "out")
    assert macro.score == pytest.approx((2 / 3 + 0) / 2), "the mean of two tasks, whatever their sizes"
    assert len(engine.asked) == 4, "the answers are kept"


def test_solved_examples_of_a_task_are_read_without_lm_eval() -> None:
    examples = examples_of("gsm8k/gsm8k_cot")
    assert len(examples) == 8
    assert set(examples[0]) == {"question", "target"}
    with pytest.raises(DataError, match="writes no solved examples"):
        examples_of("drop/drop")


def test_what_lm_eval_has_not_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="have no folder 'nowhere'"):
        harness_folder("nowhere/drop")
    with pytest.raises(RecipeError, match="no task or group of this name"):
        config_of("drop/dorp")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no TASK.jsonl"):
        specs("drop/drop", tmp_path / "empty")


def test_local_files_by_task_and_split(tmp_path: Path) -> None:
    for name in ("drop.train.jsonl", "drop.validation.jsonl"):
        (tmp_path / name).write_text("{}\n")
    [spec] = specs("drop/drop", tmp_path)
    assert isinstance(spec, dict)
    [spec] = spec["task"]
    files = {"train": str(tmp_path / "drop.train.jsonl"), "validation": str(tmp_path / "drop.validation.jsonl")}
    assert spec == {"task": "drop", "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}


def test_data_that_cannot_be_had_is_an_error_with_its_cure(tmp_path: Path) -> None:
    from tulu.evaluation.harness import load_tasks

    task = SuiteTask(title="DROP", harness="drop/drop", metric="f1")
    with pytest.raises(DataError, match=r"DROP: lm-eval cannot load drop/drop .*--data TASK=PATH"):
        load_tasks(task, Path(write_rows(tmp_path / "rows.jsonl", [{"no": "column"}])))


def test_a_metric_that_there_is_not_names_those_that_there_are() -> None:
    from tulu.evaluation.harness import values_of

    samples = {"drop": [{"doc_id": 3, "filter": "none", "metrics": ["em", "f1"], "em": 0, "f1": 0.4}]}
    assert values_of(samples, "f1") == [("drop", "drop:3", 0.4)]
    with pytest.raises(RecipeError, match=r"metric acc: lm-eval's task has none such; it has em,none, f1,none"):
        values_of(samples, "acc")


def test_drop_of_the_package_is_plain_text_and_keeps_its_decimals(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tulu.config.suites import load_suite
    from tulu.evaluation.suite import run_suite
    from tulu.evaluation.suite_request import SuiteRequest

    def row(number: str) -> dict[str, Any]:
        answer = {"number": number, "date": {"day": "", "month": "", "year": ""}, "spans": []}
        others = {"number": [number], "date": [answer["date"]], "spans": [["x"]]}
        about = {"query_id": number, "passage": f"It took {number} days.", "question": "How many days?"}
        return {**about, "answer": answer, "validated_answers": others}

    write_rows(tmp_path / "drop.train.jsonl", [row("1")])
    write_rows(tmp_path / "drop.validation.jsonl", [row("17.5"), row("18")])
    model = tiny_model("olmo2", max_position_embeddings=2048)
    engine = KnownEngine(AutoTokenizer.from_pretrained(model), lambda *_: " 17.5\n\nPassage: It took 18 days.")
    monkeypatch.setattr("tulu.evaluation.shared_engine.make_engine", lambda *_, **__: engine)
    data = {"drop": str(tmp_path)}
    wanted = SuiteRequest(str(model), load_suite("tulu3-dev"), "tokenizer", tmp_path / "out", tasks=("drop",), data=data)
    with pytest.raises(
        DataError, match=r"DROP \(3 shot, F1\): lm-eval cannot use its rows .*as many solved examples as it draws"
    ):
        run_suite(wanted)
    write_rows(tmp_path / "drop.train.jsonl", [row(str(n)) for n in range(1, 6)])
    assert run_suite(wanted)["drop"].score == 0.5
    assert engine.asked[0].endswith("It took 17.5 days. How many days?"), "no chat template"
    assert engine.asked[0].count("How many days?") == 4
