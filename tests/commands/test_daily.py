"""The commands of every day are there, and say what they are asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tulu.cli import app
from tulu.verifiers.registry import VERIFIERS


def test_env_names_versions_machine_and_sandbox() -> None:
    done = CliRunner().invoke(app, ["env", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert facts["versions"]["torch"]
    assert facts["machine"]["cores"] >= 1
    assert facts["sandbox"]["programs"]
    assert "TOKEN" not in done.output


def test_env_has_the_version_of_every_tracker_or_says_that_it_is_not_there() -> None:
    from tulu.train.trackers import TRACKERS

    versions = json.loads(CliRunner().invoke(app, ["env", "--json"]).output)["versions"]
    assert [name for name in TRACKERS if name not in versions] == []


def test_verifiers_are_listed_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listed = CliRunner().invoke(app, ["verifiers"]).output
    assert [name for name in VERIFIERS if name not in listed] == []
    shown = CliRunner().invoke(app, ["verifiers", "sql"]).output
    assert "its verdict   1 (ok" in shown
    done = CliRunner().invoke(app, ["verifiers", "gsm"])
    assert done.exit_code == 2
    assert "did you mean gsm8k" in done.output


def test_the_cure_of_a_verifier_that_cannot_run_here_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("tulu.commands.verifiers._obstacle", lambda _: "pip install 'tulu[some-extra]'")
    assert "pip install 'tulu[some-extra]'" in CliRunner().invoke(app, ["verifiers"]).output


def test_chat_refuses_what_cannot_answer() -> None:
    done = CliRunner().invoke(app, ["chat", "./nothing"])
    assert done.exit_code == 2
    assert "./nothing" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("words", "wanted"),
    [("tulu verif", ["verifiers", "verify"]), ("tulu sft --dry", ["--dry-run"]), ("tulu sft tulu3-8", ["tulu3-8b"])],
)
def test_a_shell_completes_commands_options_and_recipes(words: str, wanted: list[str]) -> None:
    asked = {"_TULU_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    code = "import sys; sys.argv = ['tulu']; from tulu.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert sorted(done.stdout.split()) == wanted, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["chat", "quickstrat"],
        ["evaluate", "quickstrat", "--task", "sums"],
        ["sample", "quickstrat", "--data", "sums:train", "--verifier", "math"],
    ],
)
def test_a_name_that_is_nothing_is_told_with_what_it_may_be(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("quickstrat: ")
    assert "a run or RUN/STAGE (runs holds no run), or a built-in recipe" in done.stderr
    assert "did you mean quickstart?" in done.stderr


@pytest.mark.parametrize("command", [["export", "min", "out"], ["push", "min", "me/it"], ["report", "min"]])
def test_a_run_that_is_not_there_is_told_with_the_one_that_may_be_meant(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine" / "sft").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "sft" / "recipe.yaml").write_text("name: mine\n")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2, done.output
    assert "did you mean mine" in done.stderr
