"""Golds that prove themselves: a gold, stated as an answer, must score 1, and the same answer with a change in it must score 0.

A verifier that can be proven has an entry in STATED. The others have golds that are no answer (instructions, lengths, schemas,
tests of programs, criteria), which `Verifier.check` alone can examine.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import shorten

State = Callable[[Any], list[str]]
"""A gold to the completions that state it, one for each accepted answer."""
_DIGIT = re.compile(r"\d", re.ASCII)
_TAG = re.compile(r"</?\w+>")
_MOST_ACCEPTED = 20
"""Accepted answers of one gold that are proven."""
OTHER_ANSWER = "4719.0836152"
"""A number that answers nothing; it stands for a wrong answer where a gold has no digit to change."""
OTHER_WORDS = "quite another answer"


@dataclass(frozen=True, slots=True)
class Proof:
    """What has to be graded in order to prove a gold."""

    right: tuple[str, ...]
    """The gold as an answer, which must score 1."""
    wrong: tuple[str, ...]
    """Answers that have nothing to do with the gold, none of which may score 1."""
    changed: tuple[str, ...] = ()
    """The gold with another digit: at least one must score less than 1 (both 5^0 and 6^0 are 1)."""

    @property
    def completions(self) -> tuple[str, ...]:
        return (*self.right, *self.wrong, *self.changed)


def _accepted(gold: Any) -> list[str]:
    """The accepted answers of a gold that is one answer or a list of them."""
    entries = gold if isinstance(gold, list | tuple) else [gold]
    return [str(entry) for entry in islice(entries, _MOST_ACCEPTED)]


def _in(form: str) -> State:
    """States each accepted answer in a form such as `<answer>{}</answer>`."""
    return lambda gold: [form.replace("{}", answer) for answer in _accepted(gold)]


def _boxed(gold: Any) -> list[str]:
    # A gold with a box in it is a solution, and stands as it is.
    return [answer if "\\boxed" in answer else f"\\boxed{{{answer.strip()}}}" for answer in _accepted(gold)]


def _number(gold: Any) -> list[str]:
    return [f"#### {str(gold).rsplit('####', 1)[-1].strip()}"]


def _finish(gold: Any) -> list[str]:
    parsed = _parsed(gold) if isinstance(gold, str) and gold.lstrip().startswith("[") else gold
    return _in("<finish>{}</finish>")(parsed)


def _letter(gold: Any) -> list[str]:
    letter = gold["answer"] if isinstance(gold, dict) else gold
    return [f"Answer: {letter.strip('() .').upper()}"]


def _parsed(gold: Any) -> Any:
    return json.loads(gold) if isinstance(gold, str) else gold


def _calls(gold: Any) -> list[str]:
    entries = _parsed(gold)
    entries = entries if isinstance(entries, list) else [entries]
    if not entries:
        return ["No tool helps with that, so here is an answer without one."]
    calls = [entry["function"] if isinstance(entry.get("function"), dict) else entry for entry in entries]
    return ["\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)]


def _grid(gold: Any) -> list[str]:
    houses = _parsed(gold)
    houses = houses.get("solution", houses)
    if "header" in houses and "rows" in houses:
        header = houses["header"]
        houses = {f"House {row[0]}": dict(zip(header[1:], row[1:], strict=True)) for row in houses["rows"]}
    return [json.dumps({"solution": houses})]


def _query(gold: Any) -> list[str]:
    return [f"```sql\n{gold['sql']}\n```"]


def _entry(gold: Any) -> list[str]:
    return [f"<answer>{_parsed(gold)['entry']['answer']}</answer>"]


STATED: dict[str, State] = {
    "exact": _in("<answer>{}</answer>"),
    "flan": _in("The answer is: {}"),
    "gsm8k": _number,
    "math": _boxed,
    "multiple_choice": _letter,
    "puzzle": _in("{}"),
    "re_search": _finish,
    "re_search_f1": _finish,
    "reasoning_gym": _entry,
    "sciriff": lambda gold: [json.dumps(_parsed(gold)["reference"])],
    "sql": _query,
    "strict_math": _boxed,
    "string_f1": _in("{}"),
    "string_match": _in("<answer>{}</answer>"),
    "string_matcher": _in("<answer>{}</answer>"),
    "tool_call": _calls,
    "zebra_logic": _grid,
}
"""How the golds of each verifier are stated as completions."""
_MATH_WRONG = (f"\\boxed{{{OTHER_ANSWER}}}", "\\boxed{1=1}", "\\boxed{0=1}", "\\boxed{x=x+1}")
WRONG: dict[str, tuple[str, ...]] = {
    "flan": (f"The answer is: {OTHER_WORDS}",),
    "gsm8k": (f"#### {OTHER_ANSWER}",),
    "re_search": (f"<finish>{OTHER_WORDS}</finish>",),
    "re_search_f1": (f"<finish>{OTHER_WORDS}</finish>",),
    "multiple_choice": (f"Answer: {OTHER_WORDS}",),
    "sciriff": (json.dumps([[OTHER_WORDS]]), json.dumps({OTHER_WORDS: [OTHER_WORDS]})),
    "sql": (f"```sql\nselect '{OTHER_WORDS}', {OTHER_ANSWER}\n```",),
    "tool_call": (f'<tool_call>\n{{"name": "{OTHER_WORDS}", "arguments": {{}}}}\n</tool_call>',),
    "zebra_logic": (json.dumps({"solution": {OTHER_WORDS: {OTHER_WORDS: OTHER_WORDS}}}),),
    "math": _MATH_WRONG,
    "strict_math": _MATH_WRONG,
}
"""Answers that are no gold's, in the form that each verifier reads."""
_WRONG_ANYWHERE = (f"<answer>{OTHER_WORDS}</answer>", f"<answer>{OTHER_ANSWER}</answer>")


def proof_of(name: str, gold: Any) -> Proof | None:
    """What proves a gold, which `Verifier.check` has accepted; None where the verifier's golds are no answers."""
    state = STATED.get(name.lower())
    if state is None:
        return None
    right = tuple(state(gold))
    changed: tuple[str, ...] = ()
    # A list of accepted answers may hold both neighbours of a number, another query may well return the same rows, and
    # mentions of sciriff's relations are compared loosely.
    if len(right) == 1 and name.lower() not in ("sql", "sciriff"):
        changed = tuple(dict.fromkeys(_with_changed_digit(right[0], which) for which in (0, -1)))
    wrong = WRONG.get(name.lower(), _WRONG_ANYWHERE)
    if name.lower() in ("math", "strict_math") and not any(map(_DIGIT.search, right)):
        # Where no digit can be changed, other words stand for another answer.
        wrong += (f"\\boxed{{\\text{{{OTHER_WORDS}}}}}",)
    return Proof(right, wrong, tuple(answer for answer in changed if answer not in right))


def _with_changed_digit(stated: str, which: int) -> str:
    """A stated gold with another first or last digit (`which`) in its answer; unchanged where it has none."""
    # Digits of tags such as `<h1>` are no part of an answer, nor are those before the last box of a solution.
    start = max(0, stated.rfind("\\boxed"))
    places = list(_DIGIT.finditer(_TAG.sub(lambda tag: " " * len(tag[0]), stated), start))
    if not places:
        return stated
    match = places[which]
    return stated[: match.start()] + str((int(match[0]) + 1) % 10 or 1) + stated[match.end() :]


def fault_of(proof: Proof, verdicts: Sequence[Verdict]) -> str | None:
    """Why a gold is not proven by the verdicts of `proof.completions`; None where it is."""
    right, rest = verdicts[: len(proof.right)], verdicts[len(proof.right) :]
    wrong, changed = rest[: len(proof.wrong)], rest[len(proof.wrong) :]
    for stated, verdict in zip(proof.right, right, strict=True):
        if verdict.score is None or verdict.score < 1:
            result = "has no verdict" if verdict.score is None else f"scores {verdict.score:g}"
            return f"the gold itself, {shorten(stated)!r}, {result}{_because(verdict)}"
    for stated, verdict in zip((*proof.wrong, *proof.changed), (*wrong, *changed), strict=True):
        if verdict.score is None:
            return f"another answer, {shorten(stated)!r}, has no verdict{_because(verdict)}"
    for stated, verdict in zip(proof.wrong, wrong, strict=True):
        if verdict.score is not None and verdict.score >= 1:
            return f"another answer, {shorten(stated)!r}, scores 1{_because(verdict)}"
    if changed and all(verdict.score == 1 for verdict in changed):
        return f"another answer, {shorten(proof.changed[0])!r}, scores 1{_because(changed[0])}"
    return None


def _because(verdict: Verdict) -> str:
    return f" ({shorten(verdict.detail)})" if verdict.detail else ""
