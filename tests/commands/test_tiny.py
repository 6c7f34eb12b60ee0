"""`--tiny` before anything trains: what it writes, what it refuses, and the judge that answers meanwhile."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer
from typer.testing import CliRunner, Result

from tulu.cli import app
from tulu.commands.made_up_judge import judge
from tulu.commands.tiny import make_inputs
from tulu.config.load import load_recipe
from tulu.config.tiny import Tiny, shrink
from tulu.data.chat import make_byte_tokenizer
from tulu.verifiers.registry import find


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """The tiny quickstart, whose model the base stage makes: its inputs are rows alone."""
    return shrink(load_recipe("quickstart", processes=1), tmp_path)


def test_inputs_are_written_once_and_anew_when_they_would_be_others(tiny: Tiny) -> None:
    make_inputs(tiny)
    files = {file.name: file.stat().st_mtime_ns for file in tiny.inputs.iterdir()}
    assert {"rlvr-0.jsonl", "evaluate-0.jsonl"} <= files.keys()
    make_inputs(tiny)
    assert {file.name: file.stat().st_mtime_ns for file in tiny.inputs.iterdir()} == files
    make_inputs(replace(tiny, rows=tiny.rows[:1]))
    assert "evaluate-0.jsonl" not in {file.name for file in tiny.inputs.iterdir()}
    assert [entry.name for entry in tiny.inputs.parent.iterdir()] == ["inputs"]


def test_inputs_that_were_cut_short_are_written_anew(tiny: Tiny) -> None:
    tiny.inputs.mkdir(parents=True)
    (tiny.inputs / "rlvr-0.jsonl").write_text("{")
    make_inputs(tiny)
    assert (tiny.inputs / "rlvr-0.jsonl").read_text().startswith('{"id"')


def test_what_another_process_wrote_meanwhile_stays(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from tulu.commands import tiny as module

    def slower(plan: Tiny, folder: Path) -> None:
        monkeypatch.undo()
        make_inputs(plan)
        (plan.inputs / "of-the-other").touch()

    monkeypatch.setattr(module, "_write", slower)
    monkeypatch.setattr(module.os, "getpid", lambda: 1)
    make_inputs(tiny)
    assert (tiny.inputs / "of-the-other").exists()
    assert [entry.name for entry in tiny.inputs.parent.iterdir()] == ["inputs"]


def test_models_beside_that_of_the_base_stage_are_made(tmp_path: Path) -> None:
    """A teacher speaks the tokens of the model that the base stage makes."""
    plan = shrink(load_recipe("quickstart", ["rlvr.teacher.path=owner/other"], processes=1), tmp_path)
    make_inputs(plan)
    teacher = AutoTokenizer.from_pretrained(plan.inputs / "teacher")
    assert teacher.get_vocab() == make_byte_tokenizer().get_vocab()
    assert AutoConfig.from_pretrained(plan.inputs / "model").vocab_size == len(teacher)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "owner/model", "--tiny", "--task", "gsm8k"], "--tiny: a model is no recipe"),
        (["sft", "tulu3.1-8b", "--tiny"], "has no sft section"),
        (["sft", "tulu3-9b", "--tiny"], "did you mean tulu3-8b"),
        (["run", "tulu3-8b", "sft.bacth=3", "--tiny"], "unknown key; did you mean batch"),
        (["sft", "tulu3-8b", "model=owner/unheard", "--tiny"], "architecture of owner/unheard is not known without the hub"),
    ],
)
def test_refused_before_anything_is_written(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = call(*arguments, "--runs", str(tmp_path / "runs"))
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def another_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TULU_JUDGE_URL", "https://example.invalid/v1")
    monkeypatch.delenv("TULU_JUDGE_MODEL", raising=False)


@pytest.mark.usefixtures("another_judge")
def test_the_judge_scores_from_what_it_is_asked_and_leaves_no_trace() -> None:
    verify = find("general-quality_ref")
    with judge():
        scores = [verify(f"answer {index}", "It is blue.", prompt="Why?").score for index in range(12)]
        assert None not in scores
        assert len(set(scores)) > 1
        assert scores[3] == verify("answer 3", "It is blue.", prompt="Why?").score
    assert os.environ["TULU_JUDGE_URL"] == "https://example.invalid/v1"
    assert "TULU_JUDGE_MODEL" not in os.environ
