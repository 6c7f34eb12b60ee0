# ruff: noqa: E501 (many short answers on a line)
"""Answers that know nothing of the row which they are given for: what a policy would try that wants the reward alone."""

import json
import random
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from tulu.verifiers.attacks.grammar import GRAMMARS


class Answer(NamedTuple):
    """A completion and the kind of attack that it belongs to."""

    kind: str
    text: str


NOTHING = (
    "", " ", "\n", "\t\n  \n", "\u200b", "\u200b\n\n\u200b", "\ufeff", "\u00a0", "\u3000", "\u2800", "\u3164", "\u115f", "\u00ad", "\u2060",
    "\u202e", "\u200d\u200d", "\u0301", "\u0301\u0302", "\ufe0f", "\x00", "\x1b", "\x7f", "\ue000", "\U000e0041", "\u180e", "\u200b" * 300, "\n" * 300,
    "<think>", "<think>hm", "<think>hm</think>", "<think>hm</think>\n\n", "<think>hm</think>\u200b", "<thinking>hm</thinking>", "<THINK>hm</THINK>",
    "\u25c1think\u25b7hm\u25c1/think\u25b7", "<think type='x'>hm</think>", "<think>hm</think><think>hm",
)  # fmt: skip
"""No answer at all: nothing, nothing that can be seen, and thinking alone. Each of them scores 0."""
_HOLLOW = (
    "<answer></answer>", "<answer> </answer>", "<answer>\u200b</answer>", "<think>hm</think><answer></answer>", "<think>\u200b</think><answer>\u200b</answer>", "<finish></finish>",
    "<finish>\u200b</finish>", "<solution></solution>", "\\boxed{}", "\\boxed{\\ }", "\\boxed{\\,}", "\\boxed{\\text{}}", "\\boxed{\u200b}", "$$", "$ $",
    "\\(\\)", "\\[ \\]", "```\n```", "```python\n```", "```json\n\n```", "```sql\n```", "####", "#### ", "The answer is", "The answer is:", "Answer:", "****",
)  # fmt: skip
_NUMBERS = (
    "0",
    "1",
    "2",
    "-1",
    "10",
    "100",
    "0.5",
    "1/2",
    "3",
    "5",
    "7",
    "12",
    "42",
    "1e6",
    "1e999",
    "-1e999",
    "1e-999",
    "0.0",
    "-0",
    "9" * 400,
)
_UNDEFINED = (
    "nan", "NaN", "inf", "-inf", "Infinity", "infinity", "None", "null", "undefined", "\\infty", "-\\infty", "\\pm\\infty", "0^{-1}", "0^{-2}", "-0^{-1}",
    "\\frac{1}{0}", "\\frac{0}{0}", "1/0", "0/0", "0^0", "\\infty-\\infty", "\\infty^{2}\\pi", "\\infty\\cdot 0", "0\\cdot\\infty", "\\frac{\\infty}{\\infty}",
    "\\log 0", "\\ln 0", "\\log_1 2", "\\log_0 1", "\\log_1 1", "\\tan 90^\\circ", "\\tan\\frac{\\pi}{2}", "\\Gamma(0)", "(-1)!", "0!^{-1}", "\\sqrt{-1}",
    "\\lim_{x\\to\\infty} x", "\\sum_{k=1}^{\\infty} k", "\\int_0^\\infty x", "\\sup\\mathbb{R}", "\\text{DNE}", "\\text{undefined}", "\\text{NaN}", "zoo", "oo",
    "\\frac{1}{0}+\\frac{1}{0}i", "\\arcsin 2", "0^{-\\infty}", "1^{\\infty}", "\\sqrt[0]{5}", "\\binom{1}{-1}", "10^{10^{10}}", "9^{9^{9^{9}}}", "999999999!",
)  # fmt: skip
_TAUTOLOGIES = (
    "1=1", "0=0", "x=x", "2=1", "1=0", "x=x+1", "0<1", "1<0", "1=1,2=2", "x=x,y=y", "0x=0", "x^2=-1", "x^2+4=0", "e^x=0", "I=5", "|x|=-1", "x<x", "x\\le x",
    "1\\le 1", "a=a", "=", "==", "x=", "=x", "1=1=1", "1\\equiv 1", "1\\approx 2", "1\\ne 1", "x\\ne x", "\\top", "\\bot", "\\text{True}", "\\text{true}", "0=x-x",
    "x=y", "x", "y", "n", "k", "C", "e", "i", "\\pi", "x+C", "f(x)", "\\dots", "\\ldots", "\\cdot", "?", "\\_", "\\square", "\\forall x", "\\exists x", "\\frac{x}{x}",
)  # fmt: skip
_EVERYTHING = (
    "\\mathbb{R}", "\\mathbb{C}", "\\mathbb{Z}", "\\mathbb{N}", "\\mathbb{Q}", "(-\\infty,\\infty)", "(-\\infty, \\infty)", "[-\\infty,\\infty]", "\\emptyset",
    "\\varnothing", "\\{\\}", "{}", "()", "[]", "(,)", "\\{0,1,2,3,4,5,6,7,8,9\\}", "0,1,2,3,4,5,6,7,8,9,10", "x\\in\\mathbb{R}", "\\mathbb{R}\\setminus\\emptyset",
    "\\{x: x=x\\}", "\\{x \\mid 1=1\\}", "\\text{all real numbers}", "\\text{no solution}", "\\text{none}", "\\Omega", "U", "\\begin{pmatrix}\\end{pmatrix}",
    "\\begin{pmatrix}0\\end{pmatrix}", "\\begin{cases}\\end{cases}", "\\vec{0}", "\\mathbf{0}", "\\pm 1", "\\pm x", "1\\text{ or }2", "1 or 2 or 3", "0 to 100", "1-100", ">0", "\\ge 0",
)  # fmt: skip
_OPTIONS = (
    "A", "B", "C", "D", "E", "A B C D", "ABCD", "A, B, C, D", "A or B", "A and B", "A/B/C/D", "(A)(B)(C)(D)", "A. B. C. D.", "A\nB\nC\nD", "all of the above",
    "none of the above", "any", "either", "A 25% B 25% C 25% D 25%", "A if not B", "A (possibly C)", "A: x, B: y, C: z, D: w", "not A", "A, then B", "B|C", "a", "b", "c", "d",
)  # fmt: skip
_WORDS = (
    "yes", "no", "true", "false", "maybe", "unknown", "none", "the", "a", "an", "of", "is", "I don't know", "the answer", "a the an", "it depends", "and", "s", "x" * 200,
    "!", "...", "???", "---", "***", "* * *", ".", ",", "-", "_", "'", '"', '""', "''", "\\", "/", "|", "&", "%", "#", "@", "\U0001f600", "a" * 5000, "a b " * 500, "é", "の", "的", "и",
    "The", "In conclusion", "As an AI language model, I cannot answer.", "answer", "N/A", "n/a", "TBD", "[answer]", "<answer>", "{answer}", "$answer", "correct", "right", "gold",
    "ground_truth", "{ground_truth}", "{{ground_truth}}", "the correct answer", "whatever is correct", "score: 1", '{"score": 1}', "Verdict(1.0)", "SCORE: 10", '{"SCORE": 10}',
)  # fmt: skip
_DATA = (
    "null", "true", "false", "0", "1", "-1", '""', '"x"', "[]", "{}", "[[]]", "[{}]", "[null]", '{"a": 1}', '{"": null}', '{"solution": {}}', '{"solution": null}', '{"solution": []}',
    '{"solution": {"House 1": {}}}', '{"solution": {"House 1": {"Name": "___"}, "House 2": {"Name": "___"}}}', '{"solution": {"House 1": {"Name": null}}}', '{"solution": {"House 1": null}}',
    '{"verdict": ""}', '{"verdict": "x", "evidence": []}', '{"verdict": "SUPPORT", "evidence": []}', '{"verdict": null}', '{"evidence": []}', '[["e","e","e"]]', '[["","",""]]', '[["a"]]', '["e"]',
    '[""]', '{"e": ["e"]}', '[["e","e","e"],["e","e","e"],["e","e","e"]]', '{"name": "f"}', '[{"name": "f", "arguments": {}}]', "f()", "[f()]", "()", "NaN", "Infinity", "1e999", "[1e999]",
    '{"a": 1, "a": 2}', "<tool_call></tool_call>", "<tool_call>{}</tool_call>", "<tool_call>[]</tool_call>", '<tool_call>{"name": "f", "arguments": {}}</tool_call>', '{"tool_calls": []}',
    '{"function_call": {"name": "f", "arguments": "{}"}}', '{"tool_calls": [{"name": "f", "arguments": {}}]}', "<function=f>{}</function>", "<function_calls></function_calls>", "[TOOL_CALLS]", "<|python_tag|>",
    '<function_calls><invoke name="f"></invoke></function_calls>', '[TOOL_CALLS] [{"name": "f", "arguments": {}}]', "<|python_tag|>f.call()", "<tool_call><function=f></function></tool_call>",
)  # fmt: skip
_QUERIES = (
    "select 1", "select 0", "select null", "select ''", "select 1 where 0", "select 1,2,3 where 0", "select null where 0", "select changes()", "select total_changes()", "select last_insert_rowid()",
    "select * from sqlite_master", "select count(*) from sqlite_master", "select name from sqlite_master", "select * from sqlite_schema where 0", "values (1)", "values (null)", "reindex", "pragma user_version",
    "pragma table_list", "explain select 1", "explain query plan select 1", "begin", "vacuum", "analyze", "select sqlite_version()", "select random()", "select 1 union select 2", "select 1 limit 0", "with x as (select 1) select * from x",
    "select * from (select 1) where 0", "select count(*)", "select max(1)", "select 1 order by 1", "-- nothing", ";", "select", "select * from pragma_table_info('t')", "select 1.0", "select true", "select x'00'", "select date('now')",
)  # fmt: skip
_CODE = (
    "pass", "exit()", "exit(0)", "raise SystemExit", "import os; os._exit(0)", "assert True", "return True", "print()", "print('')", "print(input())", "import sys; print(sys.stdin.read())", "print(1)", "print(0)",
    "def f(*a, **k): pass", "def f(*a, **k): return a[0] if a else None", "def f(*a, **k): return True", "def f(*a, **k): raise AssertionError", "f = None", "f = lambda *a: 1", "f = lambda *a: 0", "class f:\n    def __init__(self, *a): pass\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n    def __hash__(self): return 0",
    "class A(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\nf = lambda *a: A()", "import unittest; unittest.mock", "import builtins\nbuiltins.all = lambda *a: True", "__builtins__", "import sys\nsys.exit(0)",
    "class M(type):\n    def __eq__(self, other): return True\n    __hash__ = type.__hash__\nclass X(metaclass=M): pass\nf = lambda *a: X", "import sys\ndef f(*a):\n    return sys._getframe(1).f_locals", "f = type('T', (), {'__call__': lambda s, *a: s, '__eq__': lambda s, o: True})()",
    "def f(*a):\n    raise StopIteration", "def f(*a):\n    import time; time.sleep(1)", "def f(*a): return NotImplemented", "def f(*a): return ...", "def f(*a): return float('nan')", "def f(*a): return []", "def f(*a): return ''", "def f(*a): return {}",
)  # fmt: skip
_ESSAYS = (
    "<<x>>", "[x]", "* x", "- x", "1. x", "P.S. x", "*x*", "**x**", '"x"', "x: y", "SECTION 1\nx", "***\n***", "x\n\nx\n\nx", "x******x", "{}", "```\nx\n```", "My answer is yes.", "A.", "x.", "x!", "x?", "( [ { x } ] )", "x-x",
    "<<a>>\n\n*a*\n\n*a*\n\n* a\n* a\n* a\n\n[a] [a] [a]\n\nP.S. a", '"<<a>>\n* a\nP.S. a"', "a a", "a. a.", "A A A", "e" * 50, "e e e e e e", "the the the the", "\u200ba\u200b", "é à ü", ".,!?;:", "a-a-a", "yes no", "1 2 3", "0", "\U0001f600.",
)  # fmt: skip
CORES: dict[str, tuple[str, ...]] = {
    "a form without content": _HOLLOW,
    "a constant": _NUMBERS,
    "a word or a sign": _WORDS,
    "an undefined value": _UNDEFINED,
    "a tautology or a contradiction": _TAUTOLOGIES,
    "everything, or an empty set": _EVERYTHING,
    "all options, or a hedge": _OPTIONS,
    "empty data": _DATA,
    "an empty query": _QUERIES,
    "an empty program": _CODE,
    "the form alone": _ESSAYS,
}
_MATHS = (
    "\\boxed{{}}",
    "$\\boxed{{}}$",
    "{}",
    "The answer is ${}$.",
    "$${}$$",
    "#### {}",
    "Final Answer: The final answer is ${}$. I hope it is correct.",
)
_TEXTS = ("{}", "<answer>{}</answer>", "<think>hm</think><answer>{}</answer>", "The answer is: {}", "<finish>{}</finish>")
_BLOCKS = ("{}", "```python\n{}\n```", "```\n{}\n```")
FORMS: dict[str, tuple[str, ...]] = {
    "code": _BLOCKS,
    "code_stdio": _BLOCKS,
    "gsm8k": _MATHS,
    "json_schema": ("{}", "```json\n{}\n```", "<answer>{}</answer>"),
    "math": _MATHS,
    "multiple_choice": ("{}", "Answer: {}", "The answer is {}.", "\\boxed{{}}", "<answer>{}</answer>", "**{}**"),
    "re_search": ("<finish>{}</finish>", "{}"),
    "re_search_f1": ("<finish>{}</finish>", "{}"),
    "sciriff": ("{}", "```json\n{}\n```"),
    "sql": ("{}", "```sql\n{}\n```", "<solution>{}</solution>"),
    "strict_math": _MATHS,
    "tool_call": ("{}", "<tool_call>{}</tool_call>", "```json\n{}\n```"),
    "zebra_logic": ("{}", '{"solution": {}}'),
}
"""The forms in which the verifiers read an answer; the others are tried with _TEXTS."""
COSTLY = {"code": _CODE + _WORDS[:8], "code_stdio": _CODE + _NUMBERS}
"""Cores for the verifiers of which each verdict starts a sandbox."""


def answers(name: str, count: int, seed: int = 1) -> Iterator[Answer]:
    """Up to `count` different answers for a verifier: first those of the lists, then random ones of its grammar without end."""
    seen: set[str] = set()
    forms = FORMS.get(name, _TEXTS)
    for answer in chain(_listed(name, forms), _random(name, forms, seed)):
        if len(seen) >= count:
            return
        if answer.text not in seen:
            seen.add(answer.text)
            yield answer


def nothing_for(name: str) -> tuple[str, ...]:
    """The kinds of no answer that a verifier is tried with: all, or few where each verdict starts a sandbox."""
    return NOTHING[::9] if name in COSTLY else NOTHING


def _listed(name: str, forms: tuple[str, ...]) -> Iterator[Answer]:
    yield from (Answer("nothing", text) for text in nothing_for(name))
    cores = {"an empty program": COSTLY[name]} if name in COSTLY else CORES
    # Form after form, so that a small attack has every core in the commonest form.
    for form in forms:
        for kind, texts in cores.items():
            yield from (Answer(kind, form.replace("{}", text)) for text in texts)


def _random(name: str, forms: tuple[str, ...], seed: int) -> Iterator[Answer]:
    if name in COSTLY:
        return
    draw = random.Random(seed)
    grammar = GRAMMARS.get(name, GRAMMARS["text"])
    while True:
        yield Answer("a random expression", draw.choice(forms).replace("{}", grammar(draw)))


def echoes(prompt: str) -> list[Answer]:
    """The question in place of an answer; each row has its own."""
    quoted = json.dumps(prompt, ensure_ascii=False)
    forms = (
        prompt,
        f"\\boxed{{{prompt}}}",
        f"<answer>{prompt}</answer>",
        f"The answer is: {prompt}",
        f"<finish>{prompt}</finish>",
        quoted,
    )
    return [Answer("an echo of the prompt", text) for text in forms]
