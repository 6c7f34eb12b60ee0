import gzip
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tulu.commands.verify import verify_file
from tulu.errors import DataError, RecipeError, TuluError

ROWS: list[dict[str, Any]] = [
    {"completion": "it is 18", "ground_truth": "18", "id": "first"},
    {"completion": "\ud800 17", "ground_truth": 18, "prompt": "how many?"},
]
CALL = "import sys; from tulu.commands.verify import verify_file; verify_file(*sys.argv[1:])"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return str(path)


def test_rows_come_back_in_order_with_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.jsonl"
    verify_file("gsm8k", write(tmp_path / "in.jsonl", ROWS * 700), str(target))
    scored = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["score"] for row in scored] == [1.0, 0.0] * 700
    assert scored[0] == {**ROWS[0], "score": 1.0, "status": "ok", "detail": "answer 18"}
    assert scored[1]["completion"] == ROWS[1]["completion"]
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
    output, _ = reader.communicate(timeout=60)
    assert len(output.splitlines()) == 2
    assert pipe.is_fifo()


def test_gzip(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl"
    source.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))
    verify_file("gsm8k", str(source), str(target))
    assert json.loads(target.read_text())["score"] == 1
    packed = tmp_path / "out.jsonl.gz"
    verify_file("gsm8k", str(source), str(packed))
    assert gzip.decompress(packed.read_bytes()).decode() == target.read_text()


def test_bad_rows_are_named_by_file_and_line_and_nothing_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = json.dumps(ROWS[0])
    bad = ["{", "[]", '{"completion": "x"}', '{"completion": 3, "ground_truth": "1"}', '{"completion": "x", "ground_truth": "x"}']
    source.write_text("\n".join([good, *bad]))
    with pytest.raises(DataError) as message:
        verify_file("gsm8k", str(source), str(target))
    lines = str(message.value).splitlines()
    assert lines[0].startswith("5 of 6 rows")
    assert [line.split(": ")[0] for line in lines[1:-1]] == [f"{source}:{number}" for number in range(2, 7)]
    assert lines[-1] == "Correct or remove these lines first; nothing was graded."
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "mode", "content", "error", "message"),
    [
        ("gsm9k", "strict", "", RecipeError, "did you mean gsm8k"),
        ("gsm8k", "lax", "", RecipeError, "strict, tulu3"),
        ("gsm8k", "strict", "", DataError, "no rows"),
        ("gsm8k", "strict", None, DataError, "no such file .* correct --in"),
    ],
)
def test_user_errors(tmp_path: Path, name: str, mode: Any, content: str | None, error: type[Exception], message: str) -> None:
    source = tmp_path / "in.jsonl"
    if content is not None:
        source.write_text(content)
    with pytest.raises(error, match=message):
        verify_file(name, str(source), str(tmp_path / "out.jsonl"), mode)


@pytest.mark.parametrize(
    "field",
    [{"messages": "x"}, {"messages": [1]}, {"messages": [{"role": "user"}]}, {"prompt": 3}, {"prompt": [{"content": "x"}]}]
    + [{"weights": value} for value in (3, [], ["a"], [None], [float("nan")])],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, field: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"in\.jsonl:1: (prompt|weights) must be"):
        verify_file("gsm8k", write(tmp_path / "in.jsonl", [{**ROWS[0], **field}]), str(tmp_path / "out.jsonl"))


@pytest.mark.parametrize(
    "field",
    [
        {"prompt": None},
        {"prompt": [{"role": "user", "content": "x"}]},
        {"messages": [{"from": "human", "value": "x"}]},
        {"weights": [1, 2]},
    ],
)
def test_a_prompt_may_be_a_conversation(tmp_path: Path, field: dict[str, Any]) -> None:
    target = tmp_path / "out.jsonl"
    verify_file("gsm8k", write(tmp_path / "in.jsonl", [{**ROWS[0], **field}]), str(target))
    assert json.loads(target.read_text())["score"] == 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no/such/out.jsonl", "cannot be written, there is no directory .* make it"),
        ("in.jsonl/out.jsonl", "there is no directory"),
        (".", r"is a directory; name a file in it, such as scored\.jsonl"),
        ("folder", "is a directory"),
        ("in.jsonl", "is the same file as --in"),
        ("link.jsonl", "is the same file as --in"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path / "in.jsonl", ROWS)
    before = Path(source).read_text()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.jsonl").symlink_to(source)
    monkeypatch.setattr("tulu.commands.verify.read_rows", lambda *_: pytest.fail("rows were read"))
    with pytest.raises(RecipeError, match=message):
        verify_file("gsm8k", source, target)
    assert Path(source).read_text() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "in.jsonl",
            b"\n" * 16 + b'{"a":\n',
            r"in\.jsonl:17: broken JSON at column 6 \(Expecting value\); mend or remove the line",
        ),
        ("in.jsonl", b'\n{"completion": "\xff"}\n', r"in\.jsonl:2: not UTF-8 \(byte 17 of the line\); convert"),
        ("in.jsonl.gz", b'{"completion": "x"}', "named .gz, but not gzip; rename"),
        ("in.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "broken gzip file .* fetch it again"),
    ],
)
def test_what_cannot_be_read_is_named_with_a_cure(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        verify_file("gsm8k", str(tmp_path / name), str(tmp_path / "out.jsonl"))
    with pytest.raises(DataError, match="is a directory; give --in a file"):
        verify_file("gsm8k", str(tmp_path), str(tmp_path / "out.jsonl"))


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    dead, zombie = subprocess.Popen(["true"]), subprocess.Popen(["true"])
    dead.wait()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    stale, living = tmp_path / f".out.jsonl.{dead.pid}.partial", tmp_path / f".out.jsonl.{os.getppid()}.partial"
    unasked = tmp_path / f".out.jsonl.{zombie.pid}.partial"
    other = tmp_path / f".other.jsonl.{dead.pid}.partial"
    for path in (stale, living, unasked, other):
        path.write_text("half")
    verify_file("gsm8k", write(tmp_path / "in.jsonl", ROWS), str(tmp_path / "out.jsonl"))
    zombie.wait()
    assert not stale.exists()
    assert not unasked.exists()
    assert living.exists()
    assert other.exists()


RAISING = "def score(completion, ground_truth):\n    raise KeyError(completion)\n"


@pytest.mark.parametrize(
    ("name", "truth", "message"),
    [
        ("own.py:score", "18", "2 × error: KeyError: 'x is.* \\(first at .*in.jsonl:1\\)"),
        ("max_length", "18", "2 × error: .*completion_tokens"),
    ],
)
def test_where_nothing_could_be_judged_the_reasons_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, truth: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(RAISING)
    rows = [{"completion": rf"x is \boxed{{x^{index} + y}}", "ground_truth": truth} for index in (2, 3)]
    with pytest.raises(TuluError, match="none of 2 rows could be scored") as raised:
        verify_file(name, write(tmp_path / "in.jsonl", rows), "out.jsonl")
    assert raised.value.exit_code == 1
    assert re.search(message, capsys.readouterr().err)
    assert [json.loads(line)["score"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [None, None]


def test_a_gold_that_math_cannot_read_is_refused_by_line_before_grading(tmp_path: Path) -> None:
    rows = [{"completion": r"\boxed{3}", "ground_truth": truth} for truth in ("3", r"\frac{1}{2}{3}^^4")]
    with pytest.raises(DataError, match=r"in\.jsonl:2: .*cannot be read as a formula; write it as plain LaTeX"):
        verify_file("math", write(tmp_path / "in.jsonl", rows), str(tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()


def test_progress_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tulu.progress.LOG_EVERY", 0.0)
    own, target, told = tmp_path / "own.py", tmp_path / "out.jsonl", tmp_path / "told"

    class Telling(logging.StreamHandler[Any]):
        """As the command line writes the log to stderr. Nothing is graded before its first line."""

        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            told.touch()

    monkeypatch.setattr(logging.getLogger("tulu"), "handlers", [Telling(sys.stderr)])
    monkeypatch.setattr(logging.getLogger("tulu"), "level", logging.INFO)
    waits = f"while not os.path.exists({str(told)!r}): time.sleep(0.01)\n    time.sleep(0.1)"
    own.write_text(f"import os, time\ndef score(completion, ground_truth):\n    {waits}\n    return int(completion)\n")
    rows = [{"completion": str(index), "ground_truth": "1"} for index in range(20)]
    verify_file(f"{own}:score", write(tmp_path / "in.jsonl", rows), str(target))
    assert [json.loads(line)["score"] for line in target.read_text().splitlines()] == list(range(20))
    output = capsys.readouterr().err
    assert re.search(r"score 0/20\n", output)
    assert re.search(r"score [1-9]\d?/20\n", output)


def test_plain_test_code_is_refused_with_the_cure(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"completion": "x", "ground_truth": "assert f(2) == 4"}])
    with pytest.raises(DataError, match=r'in\.jsonl:1: .*is plain text.*give a non-empty list .*"assert .*\{"tests": \['):
        verify_file("code", source, str(tmp_path / "out.jsonl"))


def test_interrupting_leaves_nothing_behind(tmp_path: Path) -> None:
    own, target = tmp_path / "own.py", tmp_path / "out.jsonl"
    own.write_text("import time\ndef score(completion, ground_truth):\n    time.sleep(60)\n")
    source = write(tmp_path / "in.jsonl", ROWS)
    running = subprocess.Popen([sys.executable, "-c", CALL, f"{own}:score", source, str(target)], stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while not list(tmp_path.glob(".*.partial")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    assert running.wait(120) != 0
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "own.py"] or not target.exists()
    assert not list(tmp_path.glob(".*.partial"))
