"""A terminal of few characters: every command that prints tables goes through, and what is data stays what it is."""

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.test_bad_input import Place
from tulu.cli import app
from tulu.commands.terminal import shows_everything, spell_out_what_cannot_be_shown

ASCII = CliRunner(charset="ascii")


CLOSED = """
import os, sys
from tulu.commands.terminal import open_what_is_closed
open_what_is_closed()
file = open("journal", "w")
os.write(1, b"noise")
os.write(2, b"noise")
os.system("echo noise; echo noise >&2")
print("said", file=sys.stderr, flush=True)
print("said", flush=True)
file.write(f"{sys.stderr.isatty()}")
"""


def test_nothing_is_printed_into_a_file_where_the_terminal_is_closed(tmp_path: Path) -> None:
    line = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(CLOSED)} <&- >&- 2>&-"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    assert subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, check=False).returncode == 0
    assert (tmp_path / "journal").read_text() == "False"


def test_what_has_no_character_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(few, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(many, encoding="utf-8"))
    spell_out_what_cannot_be_shown()
    for stream in (sys.stdout, sys.stderr):
        print("2 × 3 → 6 … ⟦中⟧", file=stream, end="", flush=True)
    assert few.getvalue() == b"2 x 3 -> 6 ... [[\\u4e2d]]"
    assert many.getvalue().decode() == "2 × 3 → 6 … ⟦中⟧"
    assert [shows_everything(stream) for stream in (sys.stdout, sys.stderr, object())] == [False, True, True]


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["recipes"],
        ["recipes", "show", "quickstart"],
        ["plan", "quickstart"],
        ["plan", "tulu3-8b", "--gpu", "h100", "--price", "2"],
        ["run", "quickstart", "--dry-run"],
        ["verify", "--attack", "exact", "--count", "20"],
        ["sft", "nowhere…"],
    ],
    ids=" ".join,
)
def test_a_command_prints_its_tables(command: list[str]) -> None:
    result = ASCII.invoke(app, command)
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    assert result.exit_code == (2 if command[0] == "sft" else 0), result.output
    assert result.output.isascii()


def test_commands_that_show_rows_and_answers(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    """A byte tokenizer's random answers are full of characters that ASCII lacks."""
    place = Place(tmp_path, tiny_model("olmo2"))
    place.rows.write_text('{"prompt": "größer …", "completion": "中"}\n' * 20, encoding="utf-8")
    for command in (["data"], ["data", "--decontaminate"], ["run", "--runs", str(place.runs), "sft.steps=1", "rlvr=null"]):
        result = ASCII.invoke(app, [command[0], str(place.recipe), *command[1:]])
        assert result.exit_code == 0, (command, result.output, result.exception)
        assert result.output.isascii()


def test_a_dry_run_is_the_recipe_again_whatever_the_terminal(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    """Characters of a recipe are escaped, not spelled out: what is written to a file means the same."""
    place = Place(tmp_path, tiny_model("olmo2"))
    (tmp_path / "größe….jsonl").write_text('{"prompt": "one", "completion": "two"}\n')
    result = ASCII.invoke(app, ["sft", str(place.recipe), f"sft.data={tmp_path / 'größe….jsonl'}", "--dry-run"])
    assert result.exit_code == 0, result.output
    printed = yaml.safe_load(result.output.partition("tulu sft")[0])
    assert printed["sft"]["data"][0]["name"] == str(tmp_path / "größe….jsonl")
