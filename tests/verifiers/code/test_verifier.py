import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tulu.errors import RecipeError
from tulu.grading.grader import Grader
from tulu.types import Problem, Verdict
from tulu.verifiers.code import remote, remote_client, sandbox
from tulu.verifiers.code.sandbox import UNSAFE
from tulu.verifiers.code.verifier import CODE, CODE_STDIO, program_in, same_output, upstream_program_in
from tulu.verifiers.contract import GoldError, Settings

ADD = "def add(a, b):\n    return a + b\n"
ADD_TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add(0, 0) == 1"]


STACK = """
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def size(self): return len(self.items)
"""


@pytest.fixture(autouse=True)
def _sandboxed() -> None:
    try:
        sandbox.require()
    except RecipeError as fault:
        pytest.skip(str(fault))


def fenced(source: str, language: str = "python") -> str:
    return f"Here:\n```{language}\n{source}\n```\nDone."


@pytest.mark.parametrize(
    ("source", "tests", "score"),
    [
        (ADD, ADD_TESTS, 2 / 3),
        # open-instruct's own tests of its sandbox.
        ("a = 1", ["assert False", "assert True", "assert False", "assert True", "assert True", "assert True"], 4 / 6),
        ("def f():\n    try:\n        return f()\n    except RecursionError:\n        return 7", ["assert f() == 7"], 1),
        ("# no threading here\n" + ADD, ADD_TESTS[:2], 1),
        ("def add(a, b):\n    import os\n    return a + b", ADD_TESTS[:2], 1),
        # Values of every plain type, exactly.
        (
            "def f(): return [1, 2.5, 'x', b'y', None, True, (1,), {2}, {'k': [3]}, 10**40, 1j, float('inf')]",
            ["assert f()[:-1] == [1, 2.5, 'x', b'y', None, True, (1,), {2}, {'k': [3]}, 10**40, 1j]"],
            1,
        ),
        (
            "from collections import *\ndef f(): return Counter('aab')\ndef g(): return OrderedDict(a=1)",
            ["assert f() == {'a': 2, 'b': 1}", "assert g() == {'a': 1}"],
            1,
        ),
        # Forms of tests.
        (
            "def even(n): return n % 2 == 0",
            [
                "assert even(2)",
                "assert not even(3)",
                "assert even(2) is True",
                "assert even(3) == False",
                "assert True == even(4)",
            ],
            1,
        ),
        (
            "def third(x): return x / 3",
            [
                "assert abs(third(1) - 0.3333) < 1e-3",
                "import math\nassert math.isclose(third(3), 1.0)",
                "assert math.floor(third(10)) == 3",
            ],
            1,
        ),
        (
            "def s(x): return sorted(x)",
            ["assert set(s([2, 1])) == set([1, 2])", "for n in range(3):\n    assert s(list(range(n))) == list(range(n))"],
            1,
        ),
        (
            "def check(n):\n    if n < 0: raise ValueError('neg')\n    return n",
            ["try:\n    check(-1)\n    assert False\nexcept ValueError:\n    pass", "assert check(1) == 1"],
            1,
        ),
        ("def sort(x): x.sort()", ["l = [3, 1, 2]\nsort(l)\nassert l == [1, 2, 3]"], 1),
        (
            STACK,
            ["s = Stack()\ns.push(1)\ns.push(2)\nassert s.size() == 2\nassert s.items == [1, 2]"],
            1,
        ),
        (
            "def gen(n):\n    for i in range(n): yield i",
            ["assert list(gen(3)) == [0, 1, 2]", "total = 0\nfor x in gen(4):\n    total += x\nassert total == 6"],
            1,
        ),
        ("def apply(f, x): return f(x)", ["assert apply(lambda v: v + 1, 2) == 3"], 1),
        # Programs that fail.
        ("def add(a, b) return a", ADD_TESTS, 0),
        ("x = input()\n" + ADD, ADD_TESTS, 0),
        ("", ADD_TESTS, 0),
        ("\ud800 = 1", ADD_TESTS, 0),
        ("def other(a, b): return a + b", ADD_TESTS, 0),
    ],
)
def test_code(source: str, tests: list[str], score: float) -> None:
    CODE.check(tests)
    assert CODE(fenced(source), tests).score == pytest.approx(score)


def test_a_function_that_a_test_hands_over_runs_where_the_test_does() -> None:
    source = "def apply(f, x): return f(x)"
    assert CODE(fenced(source), ["assert list(apply(lambda v: [v], 2)) == list([2])"]) == Verdict(1.0, detail="1/1 tests")
    reads = "def apply(f, x):\n    try: return f.__globals__['want']\n    except Exception as e: return f.__code__.co_consts"
    assert CODE(fenced(reads), ["want = 41\nassert apply(lambda v: want, 2) == 41"]).score == 0


def test_a_slow_test_fails_alone() -> None:
    tests = {"tests": ["assert f(0) == 0", "assert f(60) == 60", "assert f(1) == 1"], "time_limit": 0.4}
    source = "import time\ndef f(n):\n    time.sleep(n if n > 1 else 0)\n    return n"
    verdict = CODE(fenced(source), tests)
    assert verdict.score == pytest.approx(2 / 3)
    assert "TimeLimit" in verdict.detail


def test_a_test_that_ends_the_process_fails_alone() -> None:
    source = "import os\ndef f(n):\n    if n == 1: os._exit(0)\n    return n"
    assert CODE(fenced(source), ["assert f(0) == 0", "assert f(1) == 1", "assert f(2) == 2"]).score == pytest.approx(2 / 3)


def test_imports_threshold_and_json() -> None:
    tests = {"tests": ["assert half(3) == math.floor(1.5)"], "imports": ["import math"]}
    assert CODE(fenced("def half(n): return math.floor(n / 2)"), json.dumps(tests)).score == 1
    assert CODE(fenced(ADD), {"tests": ADD_TESTS, "threshold": 0.99}).score == 0


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("no fence", "no fence"),
        ("```python\na\n```\n```\nb\n```", "a\n"),
        ("```py\na\n```", "a\n"),
        ("```python\na\n```\n```python\nb\n```", "b\n"),
        ("```python\na\n```\nrun it:\n```bash\npython a.py\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("<think>```python\na\n```</think>```python\nb\n```", "b\n"),
        ("```python\nx = '''\n```'''\n```", "x = '''\n"),
        ("```python\ncut off", "cut off"),
        ("~~~python\na\n~~~", "a\n"),
    ],
)
def test_which_program_is_meant(completion: str, program: str) -> None:
    assert program_in(completion) == program


def test_tulu3_keeps_upstreams_idea_of_the_program() -> None:
    assert upstream_program_in("```py\na\n```") == "py\na"
    assert upstream_program_in("```python\na\n```\n```bash\nb\n```") == "bash\nb"
    assert CODE(fenced("# threading\n" + ADD), ADD_TESTS[:2], "tulu3").score == 0
    assert CODE(fenced("import os\n" + ADD), ADD_TESTS[:2], "tulu3").score == 0
    assert CODE(fenced(ADD), ADD_TESTS[:2], "tulu3").score == 1


@pytest.mark.parametrize(
    "gold",
    [
        [],
        {},
        {"tests": []},
        ["assert ("],
        [1],
        "[",
        ["# nothing"],
        {"tests": ["assert f()"], "time_limit": "long"},
        {"tests": ["assert f()"], "imports": "x"},
    ],
)
def test_bad_tests_are_refused_when_data_is_loaded(gold: Any) -> None:
    with pytest.raises(GoldError):
        CODE.check(gold)


DOUBLE = "n = int(input())\nprint(2 * n)"
STDIO: list[dict[str, str]] = [{"input": "2\n", "output": "4\n"}, {"input": "5", "output": "10"}]


@pytest.mark.parametrize(
    ("source", "tests", "score"),
    [
        (DOUBLE, STDIO, 1),
        ("print(4)", STDIO, 0.5),
        ("import sys\nfor line in sys.stdin: print(2 * int(line))", STDIO, 1),
        ("def main():\n    print(2 * int(input()))\nif __name__ == '__main__':\n    main()", STDIO, 1),
        ("print('4  ')\nprint()", STDIO, 0.5),
        ("print(1/0)", STDIO, 0),
        ("print(4); raise SystemExit(3)", STDIO, 0),
        ("print(4); raise SystemExit(0)", STDIO, 0.5),
        ("while True: print('x' * 1000)", STDIO[:1], 0),
        ("input(); input(); input()", STDIO[:1], 0),
        ("import time; time.sleep(60)", {"tests": STDIO[:1], "time_limit": 0.3}, 0),
        ("while True: pass", {"tests": STDIO[:1], "time_limit": 0.3}, 0),
        ("print(0.33334)", {"tests": [{"input": "", "output": "0.33333"}], "tolerance": 1e-3}, 1),
        ("print(0.33334)", [{"input": "", "output": "0.33333"}], 0),
        ("import sys; print(len(sys.stdin.read()))", [{"input": "x" * 300_000, "output": "300000"}], 1),
        ("print(7)", [{"input": "x" * 300_000, "output": "7"}], 1),
        ("print(2 * int(open('/dev/stdin').read()))", STDIO, 1),
        ("import sys\nprint(2 * int(open(0).read()), file=open('/dev/stdout', 'w'))", STDIO, 1),
        ("import sys\nsys.stdin = open('/proc/self/fd/0')\nprint(2 * int(input()))", STDIO, 1),
    ],
)
def test_code_stdio(source: str, tests: Any, score: float) -> None:
    CODE_STDIO.check(tests)
    assert CODE_STDIO(fenced(source), tests).score == score


def test_outputs_compare_by_line_and_word() -> None:
    assert same_output("1 2\n3 \n", "1 2\n3", None)
    assert same_output("1  2", "1 2", None)
    assert not same_output("1\n2", "1 2", None)
    assert not same_output("1 2 3", "1 2", None)
    assert not same_output("", "1", None)


@pytest.mark.parametrize("gold", [[], [{"input": "x"}], ["x"], [{"input": 1, "output": "x"}]])
def test_bad_exchanges_are_refused(gold: Any) -> None:
    with pytest.raises(GoldError):
        CODE_STDIO.check(gold)


def test_without_bubblewrap_programs_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox._bubblewrap.cache_clear()
    sandbox._probe.cache_clear()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(RecipeError, match="apt install bubblewrap"):
            sandbox.require()
        patch.setenv(UNSAFE, "1")
        sandbox.require()
        assert CODE(fenced(ADD), ADD_TESTS[:2]).score == 1
    sandbox._probe.cache_clear()
    sandbox.require()


def test_a_remote_sandbox_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    with remote.server(0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        monkeypatch.setenv(remote_client.ADDRESS, "")
        url = f"http://127.0.0.1:{serving.server_address[1]}"
        results = {}
        for address in ("", url):
            # The server answers in this process, so the address is only set while the client asks.
            with monkeypatch.context() as patch:
                patch.setattr(remote_client, "remote_url", lambda address=address: address)
                patch.setattr("tulu.verifiers.code.verifier.remote_url", lambda address=address: address)
                results[address] = [CODE(fenced(ADD), ADD_TESTS), CODE_STDIO(fenced(DOUBLE), STDIO)]
        assert results[""] == results[url]
        serving.shutdown()
    monkeypatch.setattr("tulu.verifiers.code.verifier.remote_url", lambda: "http://127.0.0.1:9")
    monkeypatch.setattr(remote_client, "remote_url", lambda: "http://127.0.0.1:9")
    assert CODE(fenced(ADD), ADD_TESTS).status == "error"


def test_every_reference_solution_passes(shared_data: Path) -> None:
    items = []
    with gzip.open(shared_data / "humaneval" / "HumanEval.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            tests = [f"{row['test']}\ncheck({row['entry_point']})"]
            items.append((fenced(row["prompt"] + row["canonical_solution"]), Problem(row["task_id"], [], (), tests, ("code",))))
    for number, row in enumerate(map(json.loads, (shared_data / "mbpp_sanitized" / "test.jsonl").open())):
        truth = {"tests": row["test_list"], "imports": row["test_imports"]}
        items.append((row["code"], Problem(f"mbpp:{number}", [], (), truth, ("code",))))
    with Grader(2) as grader:
        verdicts = grader.grade(items)
    assert len(items) == 164 + 257
    assert [(problem.id, verdict) for (_, problem), verdict in zip(items, verdicts, strict=True) if verdict.score != 1] == []
    assert not any("in_process" in verdict.detail for verdict in verdicts)


def test_what_a_run_sets_holds_where_a_row_sets_nothing() -> None:
    """The released Olmo 3 runs scored 0 below 99 % of the tests, and gave a test 1 or 6 seconds."""
    problems = [problem(ADD_TESTS), problem({"tests": ADD_TESTS, "threshold": 0.5})]
    with Grader(1, settings=Settings(code_threshold=0.99)) as grader:
        strict = [verdict.score for verdict in grader.grade([(fenced(ADD), one) for one in problems])]
    with Grader(1) as grader:
        plain = [verdict.score for verdict in grader.grade([(fenced(ADD), one) for one in problems])]
    assert strict == pytest.approx([0.0, 2 / 3])
    assert plain == pytest.approx([2 / 3, 2 / 3])


def test_a_run_says_how_long_a_test_may_take() -> None:
    busy = "def f():\n    n = 0\n    while n < 10**11:\n        n += 1\n    return n"
    began = time.monotonic()
    with Grader(1, settings=Settings(code_seconds=0.3)) as grader:
        [verdict] = grader.grade([(fenced(busy), problem(["assert f() > 0"]))])
    assert verdict.score == 0
    assert time.monotonic() - began < 100


def problem(gold: Any) -> Problem:
    return Problem("p", (), (1,), gold, ("code",))
