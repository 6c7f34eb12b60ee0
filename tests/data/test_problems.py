"""Problems: verifiers and ground truths are checked when rows are read, not when they are graded."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tulu.config.schema import Source
from tulu.data.chat import apply_template, encode_prompt, make_byte_tokenizer
from tulu.data.problems import Problems, load_problems
from tulu.errors import DataError, RecipeError
from tulu.verifiers import proof


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = make_byte_tokenizer()
    apply_template(made, "tulu")
    return made


def written(folder: Path, rows: list[dict[str, Any]]) -> list[Source]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [Source(name=str(path), fraction=1.0)]


def row(content: str, truth: Any = "7", dataset: Any = "gsm8k") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "ground_truth": truth, "dataset": dataset}


def test_problems_reach_other_processes_as_they_are(tmp_path: Path, tokenizer: Any) -> None:
    """The main process reads and proves them, and sends them to the others."""
    problems = load_problems(
        written(tmp_path, [row("3+4?"), row("a", dataset="math"), row("x", "?")]), tokenizer, 100, bad_golds="skip"
    )
    sent = pickle.loads(pickle.dumps(problems))
    assert sent.digest == problems.digest
    assert list(sent) == list(problems)
    assert [problem.row["dataset"] for problem in sent] == ["gsm8k", "math"]
    assert sent.report == problems.report
    assert sent.report.golds() == problems.report.golds()


def test_prompts_end_in_the_generation_prompt(tmp_path: Path, tokenizer: Any) -> None:
    [problem] = load_problems(written(tmp_path, [row("3+4?")]), tokenizer, 100)
    assert bytes(problem.prompt).decode() == "<|user|>\n3+4?\n<|assistant|>\n"
    assert problem.prompt == encode_prompt(tokenizer, problem.messages)
    assert (problem.ground_truth, problem.verifiers, problem.id) == ("7", ("gsm8k",), f"{tmp_path}/rows.jsonl:1")
    assert problem.row["dataset"] == "gsm8k"


def test_long_prompts_and_unusable_ground_truths_are_counted(tmp_path: Path, tokenizer: Any) -> None:
    rows = [row("ok"), row("x" * 100), row("no number", "seven"), row(" "), row("two", ["7", "8"], ["gsm8k", "exact"])]
    found = load_problems(written(tmp_path, rows), tokenizer, 60, bad_golds="skip")
    assert [each.messages[0]["content"] for each in found] == ["ok", "two"]
    assert {reason: tally.first[0][-1] for reason, tally in found.report.dropped.items()} == {
        "prompt longer than 60 tokens": "2",
        "gsm8k cannot use the ground truth": "3",
        "no user turn to answer": "4",
    }
    assert (found.report.rows, found.report.used) == (5, 2)
    assert found[1].ground_truth == ["7", "8"]


def test_unknown_verifiers_are_one_error(tmp_path: Path, tokenizer: Any) -> None:
    rows = [row("a"), row("b", dataset="gsm9k"), row("c", dataset="nothing-like-it"), row("d", dataset="gsm9k")]
    with pytest.raises(RecipeError) as error:
        load_problems(written(tmp_path, rows), tokenizer, 100)
    assert "'gsm9k' is unknown; did you mean gsm8k" in str(error.value)
    assert "did you mean gsm8k? One of your own is named as path/to/mine.py:score; rows:" in str(error.value)
    assert "'nothing-like-it' is unknown" in str(error.value)
    assert "rows.jsonl:2, :4" in str(error.value)
    with pytest.raises(RecipeError, match="'maths' is unknown; did you mean math"):
        load_problems(written(tmp_path, rows), tokenizer, 100, "maths")


def test_a_named_verifier_replaces_the_rows_own(tmp_path: Path, tokenizer: Any) -> None:
    found = load_problems(written(tmp_path, [row("a", dataset="unknown to us")]), tokenizer, 100, "math")
    assert found[0].verifiers == ("math",)


def test_nothing_left_is_an_error(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="none of 1 rows can be used: prompt longer than 5 tokens"):
        load_problems(written(tmp_path, [row("a")]), tokenizer, 5)


def test_digest_follows_the_content(tmp_path: Path, tokenizer: Any) -> None:
    first = load_problems(written(tmp_path, [row("a"), row("b")]), tokenizer, 100)
    assert load_problems(written(tmp_path, [row("a"), row("b")]), tokenizer, 100).digest == first.digest
    assert load_problems(written(tmp_path, [row("a"), row("b", "8")]), tokenizer, 100).digest != first.digest
    assert len(first[0:1]) == 1


def test_columns_that_only_verifiers_read_have_a_digest_of_their_own(tmp_path: Path, tokenizer: Any) -> None:
    first, same, other = (
        load_problems(written(tmp_path, [{**row("a"), "note": note, "taken": taken}]), tokenizer, 100)
        for note, taken in (("x", 1), ("x", 1), ("y", 1))
    )
    assert first.columns == same.columns != other.columns
    assert first.digest == other.digest
    odd = (
        Problems([replace(first[0], row={"image": object()})], first.report),
        Problems([replace(first[0], row={"image": object()})], first.report),
    )
    assert odd[0].columns == odd[1].columns, "where an object lies in memory says nothing of it"


def test_files_of_verifiers_are_known_by_their_content(tmp_path: Path, tokenizer: Any) -> None:
    file = own_verifier(tmp_path)
    problems = load_problems(written(tmp_path, [row("a"), row("b", "7", f"{file}:score")]), tokenizer, 100)
    before = problems.verifier_files
    assert [*before] == [f"{file}:score"]
    file.write_text(file.read_text() + "\nimport own_rules")
    (tmp_path / "own_rules.py").write_text("LIMIT = 3")
    after = problems.verifier_files
    assert [*after] == [f"{file}:score", f"{file}:score imports own_rules.py"]
    assert after[f"{file}:score"] != before[f"{file}:score"]
    (tmp_path / "own_rules.py").write_text("LIMIT = 4")
    changed = problems.verifier_files
    assert [name for name in changed if changed[name] != after[name]] == [f"{file}:score imports own_rules.py"]


def own_verifier(folder: Path) -> Path:
    file = folder / "own.py"
    file.write_text("def score(completion, gold):\n    return completion == gold")
    return file


def test_golds_that_do_not_grade_themselves_are_left_out(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that takes no answer for right in one row, and every answer in another."""
    file = tmp_path / "mine.py"
    file.write_text("def score(completion, gold):\n    return gold == 'all' or completion == gold != 'none'")
    name = f"{file}:score"
    monkeypatch.setitem(proof.STATED, name, lambda gold: [gold])
    rows = [row(f"q{n}", f"{n}") for n in range(297)] + [row("a", "none", name), row("b", "all", name), row("c", "x", name)]
    found = load_problems(written(tmp_path, rows), tokenizer, 60)
    assert (found.report.used, found.report.proven) == (298, 298)
    assert found.report.golds() == "ground truths that grade themselves right: 298 of 298 (100.0%)"
    checked = row("d", "x", f"{own_verifier(tmp_path)}:score")
    mixed = load_problems(written(tmp_path, [*rows[:3], checked]), tokenizer, 60)
    assert mixed.report.golds().endswith("3 of 4 (75.0%); of the other 1 nobody says how a right answer is written")
    alone = load_problems(written(tmp_path, [checked, checked]), tokenizer, 60)
    assert alone.report.golds() == (
        "ground truths: 2 checked by their verifiers, which do not say how a right answer is written"
    ), "0 of 2 (0.0%) would say that both are wrong"
    message = r"(?s)2 of 101 rows \(2.0%\).*:1: the gold itself.*:101: another answer.*bad_golds: skip"
    with pytest.raises(DataError, match=message):
        load_problems(written(tmp_path, [rows[297], *rows[:99], rows[298]]), tokenizer, 60)
    assert len(load_problems(written(tmp_path, [rows[297], *rows[:99], rows[298]]), tokenizer, 60, bad_golds="skip")) == 99


def test_ground_truths_that_are_no_answers_are_only_checked(tmp_path: Path, tokenizer: Any) -> None:
    instruction = {"instruction_id": ["punctuation:no_comma"], "kwargs": [{}]}
    found = load_problems(written(tmp_path, [row("a", instruction, "ifeval"), row("b")]), tokenizer, 60)
    assert (found.report.used, found.report.proven) == (2, 1)
