import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tulu.errors import DataError, RecipeError, TuluError
from tulu.verify import verify_file

ROWS: list[dict[str, Any]] = [
    {"completion": "it is 18", "ground_truth": "18", "id": "first"},
    {"completion": "\ud800 17", "ground_truth": 18, "prompt": "how many?"},
]
CALL = "import sys; from tulu.verify import verify_file; verify_file(*sys.argv[1:])"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return str(path)


def test_rows_come_back_in_order_with_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.jsonl"
    verify_file("gsm8k", write(tmp_path / "in.jsonl", ROWS * 700), str(target))
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["score"] for row in found] == [1.0, 0.0] * 700
    assert found[0] == {**ROWS[0], "score": 1.0, "status": "ok", "detail": "answer 18"}
    assert found[1]["completion"] == ROWS[1]["completion"]
    table = capsys.readouterr().err
    assert "0.5000" in table
    assert "1400" in table
    assert os.listdir(tmp_path) == ["in.jsonl", "out.jsonl"] or sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl"]


def test_standard_input_and_output(tmp_path: Path) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in ROWS)
    done = subprocess.run([sys.executable, "-c", CALL, "gsm8k", "-", "-"], input=rows, capture_output=True, text=True, check=True)
    assert [json.loads(line)["score"] for line in done.stdout.splitlines()] == [1.0, 0.0]


def test_what_is_no_plain_file_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    """Run by root, a rename onto /dev/null would take the machine's."""
    source, real = write(tmp_path / "in.jsonl", ROWS), tmp_path / "real.jsonl"
    (tmp_path / "link").symlink_to(real)
    verify_file("gsm8k", source, str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert len(real.read_text().splitlines()) == 2

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    verify_file("gsm8k", source, str(pipe))
    said, _ = reader.communicate(timeout=60)
    assert len(said.splitlines()) == 2
    assert pipe.is_fifo()


def test_gzip(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl"
    source.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))
    verify_file("gsm8k", str(source), str(target))
    assert json.loads(target.read_text())["score"] == 1


def test_bad_rows_are_named_by_file_and_line_and_nothing_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = json.dumps(ROWS[0])
    bad = ["{", "[]", '{"completion": "x"}', '{"completion": 3, "ground_truth": "1"}', '{"completion": "x", "ground_truth": "x"}']
    source.write_text("\n".join([good, *bad]))
    with pytest.raises(DataError) as told:
        verify_file("gsm8k", str(source), str(target))
    lines = str(told.value).splitlines()
    assert lines[0].startswith("5 of 6 rows")
    assert [line.split(": ")[0] for line in lines[1:]] == [f"{source}:{number}" for number in range(2, 7)]
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "mode", "content", "error", "told"),
    [
        ("gsm9k", "strict", "", RecipeError, "did you mean gsm8k"),
        ("gsm8k", "lax", "", RecipeError, "strict, tulu3"),
        ("gsm8k", "strict", "", DataError, "no rows"),
        ("gsm8k", "strict", None, DataError, "cannot be read"),
    ],
)
def test_user_errors(tmp_path: Path, name: str, mode: str, content: str | None, error: type[Exception], told: str) -> None:
    source = tmp_path / "in.jsonl"
    if content is not None:
        source.write_text(content)
    with pytest.raises(error, match=told):
        verify_file(name, str(source), str(tmp_path / "out.jsonl"), mode)


@pytest.mark.parametrize(
    "field",
    [{"messages": "x"}, {"messages": [1]}, {"messages": [{"role": "user"}]}, {"prompt": 3}, {"prompt": [{"content": "x"}]}]
    + [{"weights": value} for value in (3, [], ["a"], [None], [float("nan")])],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, field: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"in\.jsonl:1: (prompt|weights) must be"):
        verify_file("gsm8k", write(tmp_path / "in.jsonl", [{**ROWS[0], **field}]), str(tmp_path / "out.jsonl"))


@pytest.mark.parametrize("field", [{"prompt": None}, {"prompt": [{"role": "user", "content": "x"}]}, {"weights": [1, 2]}])
def test_a_prompt_may_be_a_conversation(tmp_path: Path, field: dict[str, Any]) -> None:
    target = tmp_path / "out.jsonl"
    verify_file("gsm8k", write(tmp_path / "in.jsonl", [{**ROWS[0], **field}]), str(target))
    assert json.loads(target.read_text())["score"] == 1


def test_an_unwritable_target(tmp_path: Path) -> None:
    with pytest.raises(TuluError, match="cannot be written"):
        verify_file("gsm8k", write(tmp_path / "in.jsonl", ROWS), str(tmp_path / "no" / "such" / "out.jsonl"))


def test_interrupting_leaves_nothing_behind(tmp_path: Path) -> None:
    own, target = tmp_path / "own.py", tmp_path / "out.jsonl"
    own.write_text("import time\ndef score(completion, ground_truth):\n    time.sleep(60)\n")
    source = write(tmp_path / "in.jsonl", ROWS)
    running = subprocess.Popen([sys.executable, "-c", CALL, f"{own}:score", source, str(target)], stderr=subprocess.PIPE)
    until = time.monotonic() + 20
    while not list(tmp_path.glob(".*.partial")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    assert running.wait(20) != 0
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "own.py"] or not target.exists()
    assert not list(tmp_path.glob(".*.partial"))
