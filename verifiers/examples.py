# ruff: noqa: E501 (one verifier a line)
"""What each verifier scores, what its ground truth looks like, and an example whose answer is right, for `tulu verifiers`.

docs/verifiers.md says more of each. A test holds the names against the registry and grades every example.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """One verifier in a few words."""

    scores: str
    truth: str
    """The form of a ground truth."""
    gold: Any
    answer: str
    """A completion that earns 1 for that ground truth, unless a model decides on it."""


_JUDGE = "a reference, {reference, criteria}, or null"
EXAMPLES: dict[str, Example] = {
    "calmscore": Example("the right language, and no repetition", "ISO code, or {language, size, times}", "en", "The river runs past the old mill and floods the meadows in spring."),
    "code": Example("share of assertions that a Python program passes, in the sandbox", "list of asserts, or {tests, imports, helpers, ...}", ["assert f(2) == 4", "assert f(3) == 9"], "```python\ndef f(n):\n    return n * n\n```"),
    "code_stdio": Example("share of inputs that a program answers, in the sandbox", "list of {input, output}, or {tests, time_limit, ...}", [{"input": "2", "output": "4"}, {"input": "5", "output": "10"}], "```python\nprint(2 * int(input()))\n```"),
    "exact": Example("the answer letter for letter", "text, number, or a list of them", "Paris", "<answer>Paris</answer>"),
    "flan": Example("what follows \"The answer is:\"", "text, or a list", "Paris", "The answer is: Paris"),
    "format": Example("think and answer tags and nothing else, or a pattern", "null, or {pattern}", None, "<think>Count them.</think><answer>4</answer>"),
    "gsm8k": Example("the number that a solution ends in", "a number, or a GSM8K solution", "18", "9 + 9 = 18, so the answer is 18.\n#### 18"),
    "ifeval": Example("share of instructions followed", "{instruction_id: [...], kwargs: [...]}", {"instruction_id": ["punctuation:no_comma"], "kwargs": [{}]}, "A river runs past the mill"),
    "ifeval_old": Example("one constraint of Tülu 3's first IF data", "{func_name, ...}", {"func_name": "verify_keywords", "keyword_list": ["river"]}, "A river runs past the mill."),
    "json_schema": Example("JSON that a schema accepts", "a JSON schema (2020-12)", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}, '{"city": "Rome"}'),
    "language": Example("the language of the answer", "ISO code", "fr", "La rivière passe devant le vieux moulin et inonde les prés au printemps."),
    "length": Example("within bounds, falling off outside", "number, or {min, max, unit}", {"min": 3, "max": 9, "unit": "words"}, "A river runs past the old mill."),
    "llm_judge": Example("a tenth of a judge's score of 0 to 10", _JUDGE, None, "A river runs past the old mill."),
    "math": Example("one final answer as a typed value", "LaTeX or text, or a list of accepted ones", "\\frac{3}{4}", "So the answer is $\\boxed{0.75}$."),
    "max_length": Example("distance to a number of tokens; the row carries completion_tokens", "number", 100, "A river runs past the old mill."),
    "multiple_choice": Example("the option that a completion settles on", "letter, or {answer, choices}", "B", "The answer is (B)."),
    "puzzle": Example("the whole answer as a phrase", "text, or a list", "Paris", "<answer>Paris</answer>"),
    "re_search": Example("F1 of the last <finish> tag, 0.1 for form", "text, a list, or a JSON list", "Paris", "<finish>Paris</finish>"),
    "reasoning_gym": Example("the task's own score", "{dataset, entry}", {"dataset": "gcd", "entry": {"question": "Find the greatest common divisor of 8 and 12.", "answer": "4", "metadata": {}}}, "<answer>4</answer>"),
    "repetition": Example("1 unless a 20-gram occurs 4 times", "null, or {size, times}", None, "A river runs past the old mill."),
    "reward_model": Example("the score of a reward model", "any, or none", None, "A river runs past the old mill."),
    "rubric": Example("weighted share of criteria that a judge finds met", "list of criteria, or {criterion, weight}", ["names a river"], "The Danube."),
    "sciriff": Example("F1 of entities, relations or lists; label and evidence", "{kind, reference}", {"kind": "list", "reference": ["protein", "cell"]}, '["protein", "cell"]'),
    "sql": Example("the rows of the gold query", "{sql, db}, or {sql, schema}", {"sql": "select a from t where a > 4", "schema": "create table t(a); insert into t values (4),(5);"}, "```sql\nSELECT a FROM t WHERE a > 4\n```"),
    "strict_math": Example("as math", "as math", "2x", "\\boxed{2x}"),
    "string_f1": Example("F1 of tokens, best of the list", "text, or a list", "the old mill", "<answer>the old mill</answer>"),
    "string_match": Example("the last <answer> tag", "text, or a list", "Paris", "<answer>Paris</answer>"),
    "tool_call": Example("exactly the expected calls", "list of {name, arguments}; [] asks for none", [{"name": "add", "arguments": {"a": 1, "b": 2}}], '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'),
    "up_to_max_length": Example("at most a number of tokens; the row carries completion_tokens", "number", 100, "A river runs past the old mill."),
    "zebra_logic": Example("all cells of the last {\"solution\": ...}", "{house: {attribute: value}}", {"House 1": {"Name": "Ann"}, "House 2": {"Name": "Bob"}}, '{"solution": {"House 1": {"Name": "Ann"}, "House 2": {"Name": "Bob"}}}'),
}  # fmt: skip
SAME = {
    "general-quality": "llm_judge",
    "general-quality_ref": "llm_judge",
    "ifeval_loose": "ifeval",
    "re_search_f1": "re_search",
    "string_matcher": "string_match",
}
"""Names that take the ground truths and the example of another."""


def example_of(name: str) -> Example:
    """The example of a verifier of the registry."""
    return EXAMPLES[SAME.get(name, name)]
