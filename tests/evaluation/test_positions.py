"""How long answers may be on a model with few positions: a default fits, and a number that somebody gave is never changed."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tulu.cli import app
from tulu.config.positions import NO_LIMIT, usual_answer
from tulu.errors import RecipeError
from tulu.evaluation.evaluate import evaluate_model
from tulu.evaluation.options import EvaluateOptions
from tulu.evaluation.positions import answer_tokens, check_prompts
from tulu.types import Problem


@pytest.mark.parametrize(("most", "tokens"), [(None, 512), (NO_LIMIT, 512), (1024, 512), (1023, 511), (512, 256), (3, 1), (1, 1)])
def test_the_usual_answer_takes_half_of_few_positions(most: int | None, tokens: int) -> None:
    assert usual_answer(512, most) == tokens


def test_a_default_is_told_where_it_is_less_and_a_number_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tulu")
    assert [answer_tokens(None, most, "--max-tokens") for most in (4096, 512)] == [512, 256]
    assert [record.message for record in caplog.records] == [
        "answers have at most 256 tokens, half of the model's 512 positions; --max-tokens sets another number"
    ]
    assert [answer_tokens(given, 512, "--max-tokens") for given in (1, 511)] == [1, 511]
    with pytest.raises(RecipeError, match="--max-tokens 512: the model has 512 positions, for prompt and answer; lower it"):
        answer_tokens(512, 512, "--max-tokens")


def test_prompts_without_room_are_counted_with_the_number_that_fits() -> None:
    problems = [Problem(f"f:{length}", (), list(range(length)), None, ()) for length in (10, 300, 256, 257)]
    check_prompts(problems, 212, 512, "max_tokens")
    with pytest.raises(RecipeError) as told:
        check_prompts(problems, 256, 512, "max_tokens")
    assert str(told.value) == (
        "2 of 4 prompts leave no room for answers of 256 tokens: the longest has 300, and the model 512 positions for both; "
        "lower max_tokens to 212 or less, or leave these rows out: f:300, f:257"
    )
    with pytest.raises(RecipeError, match=r"positions for both; leave these rows out: f:600$"):
        check_prompts([Problem("f:600", (), [0] * 600, None, ())], 1, 512, "max_tokens")


def rows(folder: Path, *prompts: str) -> str:
    lines = [json.dumps({"prompt": prompt, "ground_truth": "x", "dataset": "exact"}) + "\n" for prompt in prompts]
    (folder / "rows.jsonl").write_text("".join(lines))
    return str(folder / "rows.jsonl")


def test_an_evaluation_without_a_number_fits_512_positions(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model, data = str(tiny_model("olmo2")), rows(tmp_path, "a", "b")
    options = EvaluateOptions(task=("mine",), data=(data,), engine="transformers", template="tulu", out=tmp_path / "out")
    evaluate_model(model, options)
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (written["answer_tokens"], written["problems"]) == (256, 2)
    rows(tmp_path, "a", "b" * 300)
    with pytest.raises(RecipeError, match="1 of 2 prompts leave no room for answers of 256 tokens"):
        evaluate_model(model, options)
    given = EvaluateOptions(task=("mine",), data=(data,), max_tokens=512, template="tulu", out=tmp_path / "out")
    with pytest.raises(RecipeError, match=r"max_tokens \(--max-tokens\) 512: the model has 512 positions"):
        evaluate_model(model, given)


def test_samples_without_a_number_fit_and_are_gone_on_with(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def score(completion, ground_truth):\n    return 1\n")
    rows(tmp_path, *"abc")
    command = ["sample", str(tiny_model("olmo2")), "--data", "rows.jsonl", "--verifier", "mine.py:score", "--n", "2"]
    command += ["--engine", "transformers", "--template", "tulu", "--out", "out"]
    first = CliRunner().invoke(app, [*command, "--limit", "2"])
    assert "answers have at most 256 tokens, half of the model's 512 positions" in first.stderr, first.output
    assert json.loads((tmp_path / "out" / "samples.settings.json").read_text())["max_tokens"] == 256
    again = CliRunner().invoke(app, command)
    assert "holds the answers to 2 prompts already" in again.stderr, again.output
    # The number that a default comes to is the same setting as that number given.
    given = CliRunner().invoke(app, [*command, "--max-tokens", "256"])
    assert "holds the answers to 3 prompts already" in given.stderr, given.output
