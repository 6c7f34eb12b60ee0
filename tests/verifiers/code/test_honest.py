"""Honest programs score 1, with every test as it is; what a test needs and cannot be given is refused when data is loaded."""

from typing import Any

import pytest

from tests.verifiers.honest_programs import HONEST, SCRIPTS
from tulu.verifiers.code.extract import program_in
from tulu.verifiers.code.outputs import same_output
from tulu.verifiers.code.verifier import CODE, CODE_STDIO
from tulu.verifiers.contract import GoldError


@pytest.mark.parametrize("name", list(HONEST))
def test_an_honest_program_scores_1(name: str) -> None:
    source, gold = HONEST[name]
    if "numpy" in source:
        pytest.importorskip("numpy")
    CODE.check(gold)
    verdict = CODE(f"```python\n{source}\n```", gold)
    assert verdict.score == 1, verdict


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_an_honest_script_scores_1(name: str) -> None:
    source, gold = SCRIPTS[name]
    if "numpy" in source:
        pytest.importorskip("numpy")
    verdict = CODE_STDIO(f"```python\n{source}\n```", gold)
    assert verdict.score == 1, verdict


ADD = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    "test",
    [
        "def test_add():\n    assert add(1, 2) == 4",
        "add(1, 2) == 4",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(add(1, 2), 4)",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(add(1, 2), 4)\nunittest.main()",
        "from unittest import TestCase\nclass T(TestCase):\n    def test(self): self.fail('always')",
        "import pytest\n@pytest.mark.parametrize('a, c', [(1, 2), (1, 3)])\ndef test_add(a, c):\n    assert add(a, 1) == c",
        "class TestAdd:\n    def test_one(self):\n        assert add(1, 1) == 3",
        "def check(candidate):\n    assert candidate(1, 1) == 3\ncheck(add)",
        "for n in range(add(0, 0)):\n    assert add(n, 0) == n",
        "def test_one():\n    if add(1, 1) == 3:\n        assert True",
        "import pytest\ndef test_raises():\n    with pytest.raises(ValueError):\n        add(1, 2)",
    ],
)
def test_tests_of_all_forms_are_run(test: str) -> None:
    CODE.check([test])
    assert CODE(f"```python\n{ADD}\n```", [test]).score == 0


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        (["def check(candidate):\n    assert candidate(1, 2) == 3"], "check"),
        (["def verify(candidate):\n    assert candidate(1, 2) == 3"], "executes no assertion"),
        (["add(1, 2)"], "executes no assertion"),
        (["print(add(1, 2))"], "executes no assertion"),
        (["x = add(1, 2)"], "executes no assertion"),
        (["try:\n    add(1, 2)\nexcept ValueError:\n    pass"], "executes no assertion"),
        (["class Helper:\n    def run(self):\n        assert add(1, 2) == 3"], "executes no assertion"),
        (["import pandas\nassert add(1, 2) == 3"], "pandas"),
        ({"tests": ["assert add(1, 2) == 3"], "imports": ["import torch", "x = 1"]}, None),
        (["import torch\nassert add(1, 2) == 3"], "torch"),
        (["import inspect\nassert 'def' in inspect.getsource(add)"], "inspect"),
        (["from unittest.mock import patch\nwith patch('builtins.input'):\n    assert add(1, 2) == 3"], "patch"),
        (["def test_add(monkeypatch):\n    assert add(1, 2) == 3"], "monkeypatch"),
        (["def test_add(database):\n    assert add(1, 2) == 3"], "database"),
        (["import sys, io\nsys.stdin = io.StringIO('3')\nassert add(1, 2) == 3"], "stdin"),
    ],
)
def test_what_cannot_be_run_is_refused_when_data_is_loaded(gold: Any, reason: str | None) -> None:
    if reason is None:
        # A value test does not run the row's imports beside it; the program's own fail if they are missing.
        CODE.check(gold)
        return
    with pytest.raises(GoldError, match=reason):
        CODE.check(gold)


def test_packages_are_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy")
    from tulu.verifiers.code import bubblewrap, sandbox

    test = "import numpy as np\nassert np.add(1, 1) == add(1, 1)"
    CODE.check([test])
    with monkeypatch.context() as patch:
        patch.setenv(bubblewrap.PACKAGES, "")
        sandbox._bubblewrap.cache_clear()
        with pytest.raises(GoldError, match="numpy"):
            CODE.check([test + "\n"])
        source = "try:\n    import numpy\n    found = True\nexcept ImportError:\n    found = False\ndef f(): return found"
        assert CODE(source, ["assert f() is False"]).score == 1
    sandbox._bubblewrap.cache_clear()


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("\ufeffx = 1", "x = 1"),
        ("```python\n\ufeffx = 1\n```", "x = 1\n"),
        ("1. So:\n\n   ```python\n   def f():\n       return 1\n   ```\n", "def f():\n    return 1\n"),
        ("```python\ndef f():\n    return 1```", "def f():\n    return 1"),
        ("```python\ndef f():\n    return 1```\nThat is it.", "def f():\n    return 1"),
        (
            '```python\ndef f():\n    """\n    ```\n    f()\n    ```\n    """\n    return 1\n```\nDone.',
            'def f():\n    """\n    ```\n    f()\n    ```\n    """\n    return 1\n',
        ),
        (
            '```python\ndef f():\n    """\n    ```python\n    f()\n    ```\n    """\n    return 1\n```\n```python\nf()\n```',
            "f()\n",
        ),
        ("```python\r\nx = 1\r\n```", "x = 1\n"),
        ("````python\nx = '```'\n````", "x = '```'\n"),
    ],
)
def test_the_program_is_found(completion: str, program: str) -> None:
    assert program_in(completion) == program


@pytest.mark.parametrize(
    "text", ["```python\n" * 100_000, "```\n" * 200_000, '```python\n"""\n' + "```\n" * 100_000, "`" * 1_000_000]
)
def test_a_program_is_found_in_linear_time(text: str) -> None:
    import time

    began = time.process_time()
    program_in(text)
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("4.0", "4", True),
        ("1e3", "1000", True),
        (".5", "0.50", True),
        ("-0", "0", True),
        ("4_1", "41", False),
        ("nan", "nan ", True),
        ("NaN", "nan", False),
        ("inf", "Infinity", False),
        ("\u0664", "4", False),
        ("4\x0c5", "4\n5", False),
        ("0\r41", "41", False),
        ("\x1b[2K41", "41", False),
        ("0x10", "16", False),
        ("1" * 1000, "1" * 999 + "2", False),
        ("1e999999", "1e999998", False),
    ],
)
def test_numbers_are_compared_as_decimals(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected, None) is same
