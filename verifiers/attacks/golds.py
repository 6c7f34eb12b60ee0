# ruff: noqa: E501 (many short golds on a line)
"""Golds of every shape that a verifier accepts, no two of them of the same value, and what an honest guess would say to them."""

import inspect
from collections.abc import Iterator
from typing import Any

from tulu.errors import DataError
from tulu.verifiers.instructions.registry import INSTRUCTIONS, KINDS
from tulu.verifiers.registry import check_gold

_NUMBERS = (
    "18",
    "-3",
    "0",
    "7.25",
    "1,234",
    "3/4",
    "$42",
    "25%",
    "-0.5",
    "100000",
    "5,000,000",
    "0.125",
    "17",
    "2.5",
    "96",
    "64",
    "540",
    "-12",
    "1e3",
    "99.99",
)
_MATH = (
    "18", "-3", "0", "7.25", "\\frac{3}{4}", "-\\frac{2}{7}", "\\pi", "2\\pi", "34\\pi", "\\sqrt{2}", "3\\sqrt{5}", "\\sqrt[3]{2}", "1+\\sqrt{2}", "\\frac{1+\\sqrt{5}}{2}", "e", "e^{2}", "\\ln 2",
    "\\log_2 3", "2^{100}", "10!", "3+4i", "2i", "5-i", "e^{i\\pi/3}", "x^2+1", "x+1", "2x", "\\frac{1}{x}", "(x-1)(x+2)", "\\sin x", "\\cos^2 x", "\\sin 20^\\circ", "60^\\circ", "45^\\circ",
    "x=11", "y=2x+1", "x^2+y^2=4", "x^2+121=0", "x^2-5x+6=0", "x^2+y^2=-1", "z^2+z+1=0", "3x+4y=12", "A=\\pi r^2", "\\log(0.01)=-2", "\\cos(0)=1, \\sin(0)=0", "1+1=2", "f(x)=x^2", "f(2)", "I(0)e^{-t/RC}",
    "(1,2)", "(2, 500)", "(1,2,5)", "(0,0)", "(-\\infty, 3)", "[1, 4]", "(2, 5]", "(-\\infty,-1)\\cup(1,\\infty)", "[0,\\infty)", "x>3", "x \\le -2", "1<x<4", "-1\\le x\\le 6", "x\\ne 9",
    "\\{1,2\\}", "\\{1,2,3\\}", "\\{-1, 7\\}", "\\{\\pi, 4\\}", "1,-2", "2,3,5", "x=1,y=3", "x=6,y=2", "a=1, b=2, c=3", "\\pm 8", "\\pm\\sqrt{7}", "8 \\pm \\sqrt{3}", "3:1", "5:2", "4:30", "\\text{4:35 p.m.}",
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1\\\\5\\end{pmatrix}", "\\begin{bmatrix}0&1\\\\1&0\\end{bmatrix}", "\\begin{vmatrix}1&2\\\\3&5\\end{vmatrix}", "\\text{yes}", "\\text{no}", "\\text{even}",
    "\\text{Friday}", "\\text{(B)}", "\\text{(C)}", "15\\text{ cm}", "6\\text{ m}", "36\\pi\\text{ cm}^3", "81\\mathrm{~km}/\\mathrm{hr}", "12\\text{ dozen}", "\\$9.50", "35\\%", "14 \\text{ cats}", "\\frac{1}{2}\\text{ hour}",
    "\\infty", "-\\infty", "\\text{undefined}", "\\text{DNE}", "\\emptyset", "\\mathbb{R}", "\\mathbb{Z}", "\\text{no solution}", "0.\\overline{6}", "2.4\\times 10^5", "6.02\\times 10^{23}", "1.2345678", "10_2", "2A_{16}",
    "n^2+n+41", "\\frac{n(n+1)}{2}", "a_n=2n+3", "\\sum_{k=1}^{n} k^2", "\\int_0^1 x^2\\,dx", "x^2+C", "\\frac{x^3}{3}+C", "2\\cos t+3\\sin t", "\\binom{9}{4}", "|x-2|<5", "y''+y=0", "p \\land q", "ABC", "\\angle A",
    "\\begin{cases} x^2, & x>0 \\\\ 0, & x\\le 0\\end{cases}", "\\vec{i}+2\\vec{j}", "\\langle 1,2,2\\rangle", "7\\equiv 1 \\pmod 3", "2^{-2010}", "\\frac{\\sqrt{3}}{3}", "1\\frac{1}{3}", "x\\in\\{4,9\\}",
)  # fmt: skip
_TEXTS = (
    "Paris",
    "7 apples",
    "-5",
    "1.5",
    "C++",
    "New York City",
    "the Beatles",
    "x = 3",
    "No",
    "yes",
    "Mount Everest",
    "1984",
    "The Cat in the Hat",
    "H2O",
    "München",
    "3.14",
    "Ann, Bob",
    "not known",
    ".5",
    "東京",
    "A",
)
_LANGUAGES = ("de", "en", "fr", "es", "ja", "ru", "zh", "it", "pt", "ar", "hi", "ko")
_TABLES = "create table emp(id int, name text, pay real); insert into emp values (1,'Ann',10.5),(2,'Bob',20.25),(3,'Cy',30); create table t(a); insert into t values (4),(5);"
_SCHEMAS = (
    *(
    {"type": "object", "properties": {key: {"type": kind}}, "required": [key], "additionalProperties": False}
    for key, kind in (("city", "string"), ("count", "integer"), ("ok", "boolean"), ("tags", "array"), ("price", "number"), ("nested", "object"))
    ),
    {"type": "array", "items": {"type": "integer"}, "minItems": 3},
    {"type": "object", "required": ["day"], "properties": {"day": {"enum": ["Monday", "Tuesday"]}}},
    {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
    {"type": "object", "required": ["when"], "properties": {"when": {"type": "string", "format": "date-time"}}},
    {"anyOf": [{"type": "object", "required": ["left"]}, {"type": "object", "required": ["right"]}]},
)  # fmt: skip
_ROWS: dict[str, tuple[Any, ...]] = {
    "calmscore": _LANGUAGES,
    "code": tuple([f"assert f({n}) == {value!r}" for n in (2, 3, 5)] for value in (7, [1, 2], "a", None)),
    "code_stdio": tuple([{"input": "3\n1 2 3\n", "output": out}, {"input": "2\n4 5\n", "output": out}] for out in ("6", "no", "1 2\n3", "YES")),
    "exact": _TEXTS,
    "flan": _TEXTS,
    "format": (None, {"pattern": "[A-Z][a-z]+ is [0-9]+"}, {"pattern": "<answer>[a-z]{5}</answer>"}, {"pattern": "(?s)# .+\n\n.{40,}"}),
    "gsm8k": _NUMBERS,
    "ifeval_old": (
        {"func_name": "validate_no_commas"}, {"func_name": "verify_paragraph_count", "N": 3}, {"func_name": "validate_word_constraint", "N": 50, "quantifier": "at least"},
        {"func_name": "verify_bullet_points", "N": 3}, {"func_name": "validate_title"}, {"func_name": "validate_quotation"}, {"func_name": "verify_keywords", "keyword_list": ["river", "stone"]},
        {"func_name": "validate_lowercase"}, {"func_name": "validate_json_format"}, {"func_name": "verify_postscript", "postscript_marker": "P.S."},
    ),
    "json_schema": _SCHEMAS,
    "language": _LANGUAGES,
    "length": (*tuple({"min": least, "max": most, "unit": unit} for unit in ("words", "characters", "sentences") for least, most in ((20, 40), (60, 90), (150, 200))), 300, {"min": 5000, "unit": "characters"}),
    "math": _MATH,
    "multiple_choice": ("A", "B", "C", "D", {"answer": "A", "choices": ["Paris", "Rome", "Berlin", "Oslo"]}, {"answer": "B", "choices": ["3", "5", "7", "9"]}, {"answer": "C", "choices": ["true", "false", "both", "neither"]}, {"answer": "D", "choices": ["x", "y", "z", "none of the above"]}),
    "puzzle": _TEXTS,
    "re_search": _TEXTS,
    "re_search_f1": _TEXTS,
    "repetition": (None, {"size": 3, "times": 3}),
    "sciriff": (
        {"kind": "entities", "reference": {"gene": ["BRCA1", "TP53"], "drug": ["aspirin"]}}, {"kind": "entities", "reference": {}}, {"kind": "list", "reference": ["protein folding", "yeast"]}, {"kind": "list", "reference": []},
        {"kind": "relations", "reference": [["BRCA1 gene", "associated with", "breast cancer"], ["aspirin", "treats", "fever"]]}, {"kind": "label", "reference": {"verdict": "SUPPORT", "evidence": ["Mice were healed."]}},
        {"kind": "label", "reference": {"verdict": "CONTRADICT", "evidence": ["No effect was seen.", "The dose was low."]}}, {"kind": "label", "reference": {"verdict": "NEI"}}, {"kind": "relations", "reference": [["water", "boils at", "100 degrees"]]},
    ),
    "sql": tuple(
        {"sql": query, "schema": _TABLES}
        for query in (
            "select name from emp", "select count(*) from emp", "select name from emp where id>5", "select max(pay) from emp", "select id, name from emp order by pay desc", "select a from t", "select sum(a) from t", "select avg(pay) from emp",
            "select id, pay from emp where 0", "select name from emp order by id limit 1",
        )
    ),
    "string_f1": _TEXTS,
    "string_match": _TEXTS,
    "tool_call": ([], [{"name": "get_weather", "arguments": {"city": "Rome"}}], [{"name": "add", "arguments": {"a": 1, "b": 2}}], [{"name": "ping", "arguments": {}}], [{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": {"a": 2}}]),
    "zebra_logic": (
        {"House 1": {"Name": "Ann", "Pet": "cat"}, "House 2": {"Name": "Bob", "Pet": "dog"}}, {"House 1": {"Name": "Bob"}, "House 2": {"Name": "Ann"}}, {"header": ["House", "Name"], "rows": [["1", "Cy"], ["2", "Di"]]},
        {"House 1": {"Drink": "tea"}}, {"solution": {"House 1": {"Name": "Eve", "Colour": "red"}}},
    ),
}  # fmt: skip
_SAME = {"strict_math": "math", "string_matcher": "string_match", "ifeval_loose": "ifeval"}
"""Verifiers that take the golds of another."""
_ARGUMENTS: dict[str, Any] = {
    "end_phrase": "That is all.", "first_word": "river", "keyword": "river", "keywords": ["river", "stone"], "forbidden_words": ["very", "really"], "language": "en", "letter": "e", "last_word": "end",
    "phrase": "over the old stone bridge", "postscript_marker": "P.S.", "prompt_to_repeat": "Describe the river.", "reference_text": "The river ran over stones.", "percentage": 40, "n_start": 2, "n_end": 9,
    "min_words": 40, "max_words": 60, "sep": "...", "options": "yes/no/maybe", "start_parser": "yes", "num_words": 40,
}  # fmt: skip
"""An argument for each parameter of an instruction that no number fits."""
_ESSAY = (
    "The river rises in the hills above the town and runs slowly past the old mill. In spring it floods the lower meadows and the farmers move "
    "their sheep to higher ground. Children fish there in summer. When winter comes a thin sheet of ice forms along the banks and the birds leave."
)
HONEST: dict[str, tuple[str, ...]] = {
    "calmscore": (_ESSAY,),
    "code": ("def f(n):\n    return n", "def f(n):\n    return 0", "def f(n):\n    return None", "def f(n):\n    return True"),
    "code_stdio": ("print(input())", "print(0)", "print('YES')"),
    "format": ("<think>I have to count them.</think><answer>There are four.</answer>", f"# River\n\n{_ESSAY}"),
    # Short honest texts follow every instruction that only forbids something, so that they are what an attack has to beat.
    "ifeval": ("unknown", "release", "river", "Yes.", "quite unknown", "the text is undefined", "I am not sure that I can help with this.", _ESSAY, _ESSAY.replace(". ", ".\n\n"), f"{_ESSAY} Is it not so? It is!\n\nP.S. {_ESSAY}", f"<<The River>>\n\n* {_ESSAY}\n* It is *long* and *old*.\n* It flows.\n\nP.S. It floods."),
    "language": (_ESSAY,),
    "length": (_ESSAY, _ESSAY * 2, _ESSAY * 4, " ".join(_ESSAY.split()[:30])),
    "repetition": (_ESSAY,),
    "tool_call": ("No tool helps with that, so here is an answer without one.",),
}  # fmt: skip
"""Honest answers that know no more of a row than an attack does: what a guess may earn beside the commonest gold."""
HONEST |= {"ifeval_loose": HONEST["ifeval"], "ifeval_old": HONEST["ifeval"]}


def builtin_golds(name: str) -> list[Any]:
    """The golds for an attack on a verifier; none where it needs a service, a model or another package to have any."""
    name = _SAME.get(name, name)
    if name == "ifeval":
        return list(_instructions())
    if name == "reasoning_gym":
        return list(_generated())
    if name in ("max_length", "up_to_max_length"):
        return [100, 2000, 30000]
    return [gold for gold in _ROWS.get(name, ()) if _is_usable(name, gold)]


def _is_usable(name: str, gold: Any) -> bool:
    # A verifier may refuse a gold that every answer would be right for, which is as good as a 0.
    try:
        check_gold(name, gold)
    except DataError:
        return False
    return True


def _instructions() -> Iterator[dict[str, Any]]:
    """One row for each instruction, with arguments that fit."""
    for name, function in INSTRUCTIONS.items():
        keys = [key for key in list(inspect.signature(function).parameters)[1:] if key in KINDS]
        gold = {"instruction_id": [name], "kwargs": [{key: _argument(key, KINDS[key]) for key in keys}]}
        if _is_usable("ifeval", gold):
            yield gold


def _argument(key: str, kind: Any) -> Any:
    """A value for an argument of an instruction: a number, a text, a list of texts, or the last of several words."""
    if isinstance(kind, tuple):
        return kind[-1]
    if key in ("keyword1", "keyword2", "keyword3", "keyword4", "keyword5"):
        return f"river{key[-1]}"
    return _ARGUMENTS.get(key, 3 if kind in (int, float) else ["river", "stone"] if kind is list else "river")


def _generated() -> Iterator[dict[str, Any]]:
    """Entries of reasoning-gym, where it is installed."""
    try:
        import reasoning_gym
    except ImportError:
        return
    for dataset in ("basic_arithmetic", "gcd", "word_sorting", "syllogism", "spell_backward", "leg_counting"):
        for entry in reasoning_gym.create_dataset(dataset, size=4, seed=7):
            gold = {"dataset": dataset, "entry": dict(entry)}
            if _is_usable("reasoning_gym", gold):
                yield gold
