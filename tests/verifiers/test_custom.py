"""Verifiers of the user's: what they do while they are imported, called and asked to check golds ends no command, and is told."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tulu.errors import RecipeError
from tulu.verifiers import custom_look
from tulu.verifiers.contract import Case, GoldError, grade_safely
from tulu.verifiers.registry import check_gold, check_name, find

SCORE = "\ndef score(completion, ground_truth):\n    return completion == ground_truth\n"


def named(folder: Path, text: str, name: str = "mine") -> str:
    """A verifier in a file of this text."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return f"{folder}/{name}.py:score"


def test_the_process_that_names_a_verifier_imports_nothing_of_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What an import does to random numbers, folders, paths and signals would change the run; what it prints, its output."""
    text = """
import os, random, signal, sys, threading, time
print("printed"); sys.stdout.write("written")
random.seed(7); os.chdir("/"); os.environ["ODD"] = "1"; sys.path.insert(0, "/odd")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=time.sleep, args=(3600,)).start()
def check(gold): random.seed(8); print("checked"); gold.clear()
"""
    # One that another test began writes where that test looks.
    custom_look.looking()._stop()
    before = random.getstate(), os.getcwd(), dict(os.environ), list(sys.path), signal.getsignal(signal.SIGTERM), set(sys.modules)
    name, gold = named(tmp_path, text + SCORE), ["a"]
    check_name(name)
    check_gold(name, gold)
    after = random.getstate(), os.getcwd(), dict(os.environ), list(sys.path), signal.getsignal(signal.SIGTERM), set(sys.modules)
    assert after[:5] == before[:5]
    assert not {module for module in after[5] - before[5] if module.startswith("tulu_user_")}
    assert gold == ["a"], "a check gets a copy"
    printed, told = capfd.readouterr()
    assert printed == ""
    assert "printed\nwrittenchecked\n" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import os; os._exit(3)", r"the import of .*mine\.py ended its process \(exit code 3\)"),
        ("import os; os.kill(os.getpid(), 9)", r"the import of .*mine\.py ended its process \(exit code -9\)"),
        ("raise SystemExit", r"mine\.py cannot be imported: SystemExit; let it end no program"),
        ("input()", r"cannot be imported: EOFError"),
        ("raise KeyboardInterrupt", r"the import of .*mine\.py ended its process"),
        ("x = bytearray(30 << 30)", r"cannot be imported: MemoryError; import less: .* a process that grades has 2048 MB"),
        ("score = 1", r"has no function 'score'; it has none"),
        ("def score(*, completion, ground_truth): ...", r"must take \(completion, ground_truth\).*: too many positional"),
        ("def score(completion, gold, prompt, /): ...", r"must take .*'prompt' parameter is positional only"),
        ("def score(row, completion): ...", r"must take .*multiple values for argument 'row'"),
        ("def score(source, text, gold): ...", r"must take .*missing a required argument: 'gold'"),
        (f"{SCORE}\ndef check(a, b): ...", r"mine\.py: check must take \(ground_truth\): missing a required argument: 'b'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, told: str) -> None:
    name = named(tmp_path, text)
    with pytest.raises(RecipeError, match=rf"(?s)verifier '{name}'.*{told}"):
        check_name(name)


def test_a_file_that_hangs_is_refused_and_the_next_one_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = named(tmp_path, "import time; time.sleep(3600)", "hangs")
    checks = named(tmp_path, f"{SCORE}\ndef check(gold):\n    while True: pass", "checks")
    check_name(checks)
    with monkeypatch.context() as patch:
        patch.setattr(custom_look, "LOADING_SECONDS", 0.5)
        with pytest.raises(RecipeError, match=r"the check of a ground truth of .*checks\.py takes longer than 0\.5 s"):
            check_gold(checks, "a")
        with pytest.raises(RecipeError, match=r"the import of .*hangs\.py takes longer than 0\.5 s"):
            check_name(hangs)
    check_name(named(tmp_path, SCORE))


def test_ctrl_c_ends_a_file_that_hangs_with_the_command(tmp_path: Path) -> None:
    note, rows = tmp_path / "pid", tmp_path / "rows.jsonl"
    rows.write_text('{"completion": "a", "ground_truth": "a"}\n')
    # A note that is there is whole.
    text = f"import os\nopen({str(note)!r} + '-', 'w').write(str(os.getpid()))\nos.rename({str(note)!r} + '-', {str(note)!r})\n"
    name = named(tmp_path, text + "while True: pass\n")
    command = [sys.executable, "-m", "tulu", "verify", name, "--in", str(rows), "--out", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ends = time.monotonic() + 120
    while not note.exists():
        assert time.monotonic() < ends
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate(timeout=120)
    assert (process.returncode, printed) == (130, "")
    assert "Traceback" not in told
    assert not psutil.pid_exists(int(note.read_text()))


def test_a_process_that_is_asked_nothing_ends_and_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = named(tmp_path, f"{SCORE}\ndef check(gold): return gold != 'x'")
    mine = custom_look.Looking()
    monkeypatch.setattr(custom_look, "_IDLE_SECONDS", 0.5)
    assert mine.has_check(name)
    assert mine._child is not None
    first = mine._child[1]
    assert first.wait(60) == 0, "nobody asks it"
    assert (mine.objection(name, "a"), bool(mine.objection(name, "x"))) == ("", True)


def test_a_file_that_was_edited_is_looked_at_again(tmp_path: Path) -> None:
    name = named(tmp_path, "import odd_limit\n" + SCORE)
    (tmp_path / "odd_limit.py").write_text("LIMIT = 1")
    check_name(name)
    check_gold(name, "a")
    (tmp_path / "odd_limit.py").write_text("1/0")
    with pytest.raises(RecipeError, match="ZeroDivisionError"):
        check_name(name)
    (tmp_path / "odd_limit.py").write_text("")
    named(tmp_path, SCORE + "def check(gold): return gold != 'a'")
    check_name(name)
    with pytest.raises(GoldError, match="it returned False"):
        check_gold(name, "a")


def test_two_files_that_cannot_stand_beside_each_other_are_refused_before_they_grade(tmp_path: Path) -> None:
    one, two = (named(tmp_path / folder, "import odd_shared_name\n" + SCORE) for folder in ("one", "two"))
    for folder in ("one", "two"):
        (tmp_path / folder / "odd_shared_name.py").write_text("")
    check_name(one)
    with pytest.raises(RecipeError, match=r"imports odd_shared_name, which is .*one/odd_shared_name\.py here"):
        check_name(two)


def test_a_file_that_changes_the_folder_leaves_the_next_one_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named(tmp_path, "import os; os.chdir('/')" + SCORE, "first")
    named(tmp_path, SCORE, "second")
    check_name("first.py:score")
    check_name("second.py:score")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("assert gold, 'must not be empty'", "check: must not be empty"),
        ("return bool(gold)", "check: it returned False"),
        ("raise SystemExit('no licence')", "check: SystemExit: no licence"),
        ("from tulu.verifiers.contract import GoldError; raise GoldError('fill it in')", "^fill it in"),
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_check_says_why_it_refuses(tmp_path: Path, body: str, told: str, kind: str) -> None:
    name = named(tmp_path, f"{SCORE}\n{kind} check(gold):\n    {body}")
    check_name(name)
    with pytest.raises(GoldError, match=told):
        check_gold(name, "")


def test_a_check_that_ends_its_process_is_the_verifiers_fault(tmp_path: Path) -> None:
    name = named(tmp_path, f"import os\n{SCORE}\ndef check(gold): return gold != 'x' or os._exit(4)")
    check_gold(name, "a")
    with pytest.raises(RecipeError, match=r"the check of a ground truth of .*mine\.py ended its process \(exit code 4\)"):
        check_gold(name, "x")
    check_gold(name, "a")


@pytest.mark.parametrize(
    ("text", "score", "status", "detail"),
    [
        ("async def score(c, g): return 0.5", 0.5, "ok", ""),
        ("def score(c, g, **further): return 1.0 * (sorted(further) == ['prompt', 'row'])", 1.0, "ok", ""),
        ("def score(c, g, *, row): return row['n']", 3.0, "ok", ""),
        ("class Rule:\n    def __call__(self, c, g): return 1\nscore = Rule()", 1.0, "ok", ""),
        ("from functools import partial\nscore = partial(lambda k, c, g: k, 0.25)", 0.25, "ok", ""),
        ("from decimal import Decimal\ndef score(c, g): return Decimal('0.5')", 0.5, "ok", ""),
        ("import numpy\ndef score(c, g): return numpy.float32(0.5)", 0.5, "ok", ""),
        ("def score(c, g): yield 1", None, "error", "the verifier returned <generator"),
        ("def score(c, g): return 1.0, {'why': 2}", None, "error", "the verifier returned (1.0, {'why': 2}); return a number"),
        (
            "class Odd:\n    def __float__(self): raise RuntimeError\ndef score(c, g): return Odd()",
            None,
            "error",
            "return a number",
        ),
        ("class End(BaseException): ...\ndef score(c, g): raise End('over')", None, "error", "RuntimeError: End: over"),
        ("class Odd(Exception):\n    def __str__(self): raise ValueError\ndef score(c, g): raise Odd", None, "error", "Odd"),
        ("from tulu.types import Verdict\ndef score(c, g): return Verdict(None, 'odd', 'why')", None, "error", "why"),
    ],
)
def test_what_a_function_may_be_and_give_back(tmp_path: Path, text: str, score: float | None, status: str, detail: str) -> None:
    name = named(tmp_path, text)
    check_name(name)
    given = grade_safely(find(name).strict, Case("x", "g", "q", {"n": 3}))
    assert (given.score, given.status) == (score, status)
    assert detail in given.detail
    assert type(given.detail) is str
