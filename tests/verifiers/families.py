# ruff: noqa: E501 (many short texts on a line)
"""One problem for each family, with completions that are right, wrong and hostile; used wherever all of them are tried."""

import json
import random
from typing import Any

from tulu.types import Problem

TAG = "<answer>{}</answer>".format
GRID = {"solution": {"House 1": {"Name": "Ann"}}}
# name: (ground truth, a right completion, a wrong one)
FAMILIES: dict[str, tuple[Any, str, str]] = {
    "calmscore": ("de", "Der Fuchs springt über den faulen Hund und geht nach Hause.", "The fox jumps over the lazy dog."),
    "exact": ("7 apples", TAG("7 apples"), TAG("8 apples")),
    "flan": ("Paris", "The answer is: Paris", "The answer is: Rome"),
    "format": (None, "<think>x</think><answer>y</answer>", "y"),
    "gsm8k": ("18", "#### 18", "#### 17"),
    "ifeval": (
        {"instruction_id": ["punctuation:no_comma", "format:title_case"], "kwargs": [{}, {}]},
        "A Title Without",
        "no, not",
    ),
    "ifeval_loose": ({"instruction_id": ["startend:quotation"], "kwargs": [{}]}, 'Sure\n"x"', "x"),
    "ifeval_old": ({"func_name": "validate_no_commas"}, "none", "a, b"),
    "json_schema": ({"type": "array"}, "[1]", "{}"),
    "language": ("en", "This is an English sentence about a dog.", "Das ist ein deutscher Satz über einen Hund."),
    "length": (3, "one two three", "w " * 9),
    "math": (r"1+\log_2 x", r"\boxed{\log_2(x)+1}", r"\boxed{\log_2(x)+2}"),
    "multiple_choice": ("B", "The answer is B.", "The answer is C."),
    "puzzle": ("Paris", "paris.", "rome"),
    "re_search": ("Paris", "<finish>Paris</finish>", "<finish>Rome</finish>"),
    "re_search_f1": ("Paris", "<finish>Paris</finish>", "Rome"),
    "repetition": ({"size": 2, "times": 3}, "all is well", "a b a b a b"),
    "sciriff": ({"kind": "list", "reference": ["a"]}, '["a"]', '["b"]'),
    "sql": ({"sql": "select a from t", "schema": "create table t(a); insert into t values (1)"}, "select 1", "select 2"),
    "strict_math": ("12", r"\boxed{12}", r"\boxed{13}"),
    "string_f1": ("Paris", "Paris", "Rome"),
    "string_match": ("Paris", TAG("Paris"), TAG("Rome")),
    "tool_call": ([{"name": "f", "arguments": {"a": 1}}], "[f(a=1)]", "[f(a=2)]"),
    "zebra_logic": (GRID, json.dumps(GRID), "{}"),
}
PROGRAMS: dict[str, tuple[Any, str, str]] = {
    "code": (["assert f(1) == 2"], "def f(n): return n + 1", "def f(n): return n"),
    "code_stdio": ([{"input": "1", "output": "2"}], "print(int(input()) + 1)", "print(input())"),
}
SNIPPETS = (
    "\\boxed{", "}", "{", "\\frac{", "$", "$$", "#### ", "12", "-3.5", "9^9^9^9", "999999999!", "10^{10^{10}}", "<think>",
    "</think>", "<answer>", "</answer>", "<finish>", "</finish>", "<tool_call>", "</tool_call>", "```", "```json\n",
    "```sql\n", '{"a":', "[", "]", "(", ")", '"', "'", "\\", "\x00", "\x1b[31m", "\ud800", "\udfff", "\u202e", "﷽", "İ", "ß",
    "١٢", "Ⅷ", "²", "½", "\n", "\n\n", "***", "******", "<<", ">>", "select ", "union all ", "(select 1)", "--", ";", "P.S. ",
    "The answer is ", "or ", "and ", "nan", "inf", "1e999999999", "0x", "1/0", "\\sum_{k=1}^{10}", "\\int_0^1 ", "\\sqrt[",
    "\\left(", "\\begin{pmatrix}", "&", "\\\\", "x", "=", "<", "e^{i\\pi}", "\\text{", "_{7}", "%", "😀", "a" * 200, " ",
    "One. Two! Three? ", "f(a=", "[[[[[[", "}}}}}}", "{{{{{{", '{"solution": ', "House 1", "My answer is yes.", "* a\n",
    "- b\n",
)  # fmt: skip


LINES = (
    "def f(n):", "    return n + 1", "    return f(n)", "    yield n", "import os, sys", "import threading", "os.fork()", "os._exit(0)", "sys.exit(0)",
    "raise SystemExit", "raise KeyboardInterrupt", "while True: pass", "    while True: pass", "print(int(input()) + 1)", "print('x' * 10**7)", "input()",
    "x = []", "x = [x]", "x = 'a' * 2**31", "9**9**9", "class E(int):", "    def __eq__(self, other): return True", "f = E()", "f = None", "del f",
    "sys.setrecursionlimit(10**9)", "open('/tmp/x', 'w').write('x' * 10**8)", "os.kill(os.getpid(), 9)", "os.kill(1, 9)", "os.close(3)",
    "os.write(3, b'{}\\n')", "os.closerange(0, 100)", "globals().clear()", "__builtins__.clear()", "import builtins; builtins.exec = None",
    "sys.stdout.close()", "sys.settrace(lambda *a: 1 / 0)", "try:", "except BaseException: pass", "import time; time.sleep(99)", "async def g(): await g()",
    "f'{f!r:>{10**9}}'", "@f", "lambda: (yield)", "exec('f = 1')", "\x00", "é = 1", "match f:", "    case _: pass", "return", "__import__('ctypes').string_at(0)",
)  # fmt: skip


def hostile_program(seed: int) -> str:
    """A program that no honest model writes: lines of good and bad ones, in a block or not, or no program at all."""
    draw = random.Random(seed)
    if draw.random() < 0.3:
        return hostile(seed)
    text = "\n".join(draw.choice(LINES) for _ in range(draw.randrange(1, 8)))
    return f"```python\n{text}\n```" if draw.random() < 0.8 else text


def problem(name: str) -> Problem:
    """The problem of a family."""
    gold = {**FAMILIES, **PROGRAMS}[name][0]
    return Problem(f"{name}:0", [{"role": "user", "content": "?"}], (), gold, (name,))


def hostile(seed: int) -> str:
    """A completion that no honest model writes: fragments of all formats, sometimes very long or very deep."""
    draw = random.Random(seed)
    kind = draw.random()
    if kind < 0.03:
        return (draw.choice(SNIPPETS) * 100_000)[:100_000]
    if kind < 0.1:
        return "".join(chr(draw.choice((draw.randrange(32), draw.randrange(0x110000)))) for _ in range(draw.randrange(200)))
    if kind < 0.2:
        return "\\boxed{" + "".join(draw.choice(SNIPPETS) for _ in range(draw.randrange(1, 12))) + "}"
    return "".join(draw.choice(SNIPPETS) for _ in range(draw.randrange(1, 40)))
