"""A standing adversary: answers that know nothing of a row, against many golds, and golds against each other.

The best constant may earn no more than chance: the share of the commonest gold, or what an honest answer earns that knows the
row as little. Where golds have partial credit, the best of the golds themselves counts as such an answer.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tulu.types import Problem, Verdict
from tulu.verifiers.attacks.answers import Answer, answers, echoes, nothing_for
from tulu.verifiers.attacks.golds import HONEST
from tulu.verifiers.attacks.values import value_key, values_differ
from tulu.verifiers.contract import shorten
from tulu.verifiers.proof import STATED, fault_of, proof_of

GradeAll = Callable[[Sequence[tuple[str, Problem]]], list[Verdict]]
_BATCH = 4096
_SAMPLE = 64
"""Golds that every answer is tried on at first; the best answers then meet all of them."""
_FINALISTS = 32
_GRADED = frozenset({"string_f1", "re_search_f1", "sciriff", "length", "max_length", "up_to_max_length"})
"""Verifiers with partial credit for an answer."""
_NUMERIC = frozenset({"gsm8k", "math", "strict_math"})
_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*", re.ASCII)  # `7`, `-3.5`, `1,000`
_SHARED_WORDS = frozenset({"string_f1", "re_search_f1"})
_HEDGED = 24
"""Golds of which each two are also tried together, where shared words are paid."""
_ANY_LENGTH = frozenset({"max_length", "up_to_max_length"})
"""Verifiers that count tokens alone."""


@dataclass
class Outcome:
    """What an attack on one verifier came to."""

    name: str
    golds: int
    unproven: list[tuple[Any, str]] = field(default_factory=list)
    """Golds that do not grade themselves right, and why; loading leaves them out, and so does the attack."""
    verdicts: int = 0
    best: Answer = field(default_factory=lambda: Answer("", ""))
    best_mean: float = 0.0
    chance: float = 0.0
    pairs: int = 0
    crossed: list[tuple[str, str]] = field(default_factory=list)
    """(answer, gold) of different value where the answer scored 1: the answer was another gold."""
    paid: list[tuple[Answer, Any, float]] = field(default_factory=list)
    """Answers that earn more than chance, the gold that pays most, and its score."""
    nothing_paid: list[tuple[Answer, Any, float]] = field(default_factory=list)
    """Answers without content that score more than 0."""
    masked: list[tuple[Answer, Any, str]] = field(default_factory=list)
    """Answers that got no verdict, with the reason: a policy must not be able to choose that."""

    @property
    def holds(self) -> bool:
        """Whether nothing earned more than chance, nothing without content earned anything, and nothing was masked."""
        return bool(self.golds) and not (self.crossed or self.paid or self.nothing_paid or self.masked)


def attack(
    name: str, golds: Sequence[Any], grade: GradeAll, count: int = 2000, seed: int = 1, prompts: Sequence[str] = ()
) -> Outcome:
    """Grade about `count` answers that know nothing of their golds. `prompts` are the golds' questions, where there are any."""
    asked = list(prompts) or ["What is the answer?"] * len(golds)
    unproven = _unproven(name, golds, grade)
    usable = [at for at in range(len(golds)) if at not in unproven]
    run = _Attack(name, [golds[at] for at in usable], grade, random.Random(seed), [asked[at] for at in usable])
    run.outcome.unproven = [(golds[at], reason) for at, reason in unproven.items()]
    golds = run.golds
    if not golds:
        return run.outcome
    sample = run.draw.sample(range(len(golds)), min(_SAMPLE, len(golds)))
    run.outcome.chance = run.chance()
    tried = list(answers(name, max(len(nothing_for(name)), count // max(1, len(sample))), seed))
    means = run.means(tried, sample)
    if len(sample) < len(golds):
        ranked = sorted(range(len(tried)), key=lambda at: -means[at])[:_FINALISTS]
        tried = [tried[at] for at in ranked]
        means = run.means(tried, range(len(golds)))
    run.settle(tried, means)
    run.echo(sample)
    run.cross(count)
    return run.outcome


def _unproven(name: str, golds: Sequence[Any], grade: GradeAll) -> dict[int, str]:
    """The places of the golds that do not grade themselves right, with the reason."""
    proofs = [proof_of(name, gold) for gold in golds]
    items = [
        (completion, Problem(name, (), (), gold, (name,)))
        for gold, proof in zip(golds, proofs, strict=True)
        if proof is not None
        for completion in proof.completions
    ]
    verdicts = iter(grade(items))
    faults = [fault_of(proof, [next(verdicts) for _ in proof.completions]) if proof is not None else None for proof in proofs]
    return {at: fault for at, fault in enumerate(faults) if fault is not None}


class _Attack:
    """One attack on its way: the golds, what grades, and the outcome so far."""

    def __init__(self, name: str, golds: list[Any], grade: GradeAll, draw: random.Random, prompts: list[str]) -> None:
        self.name, self.golds, self.grade, self.draw, self.prompts = name, golds, grade, draw, prompts
        self.keys = [value_key(name, gold) for gold in golds]
        self.outcome = Outcome(name, len(golds))
        self.best_gold: dict[Answer, tuple[int, float]] = {}

    def verdicts(self, pairs: Sequence[tuple[str, int]]) -> list[Verdict]:
        """The verdicts of (completion, index of a gold)."""
        result: list[Verdict] = []
        for start in range(0, len(pairs), _BATCH):
            part = pairs[start : start + _BATCH]
            result += self.grade([(text, self._problem(text, at)) for text, at in part])
        self.outcome.verdicts += len(result)
        return result

    def _problem(self, text: str, at: int) -> Problem:
        messages = [{"role": "user", "content": self.prompts[at]}]
        return Problem(f"{self.name}:{at}", messages, (), self.golds[at], (self.name,), {"completion_tokens": len(text.split())})  # type: ignore[arg-type]

    def chance(self) -> float:
        """What the commonest gold, or an honest answer that does not know the row, earns."""
        commonest = Counter(self.keys).most_common(1)[0][1] / len(self.golds)
        honest = list(HONEST.get(self.name, ()))
        if self.name in _NUMERIC and any(map(_last_number, self.prompts)):
            # Whoever sees the question can guess a number that stands in it.
            guesses = [(STATED[self.name](_last_number(prompt))[0], at) for at, prompt in enumerate(self.prompts)]
            commonest = max(commonest, _mean(self.verdicts(guesses)))
        if self.name in _ANY_LENGTH:
            honest += ["word " * length for length in (100, 2000, 30000)]
        if self.name in _GRADED and self.name in STATED:
            few = self.golds[:_HEDGED]
            hedges = [f"{a} {b}" for a in few for b in few if a is not b] if self.name in _SHARED_WORDS else []
            # Shared words are paid in part, so that two golds at once may earn more than either.
            honest += [STATED[self.name](gold)[0] for gold in [*self.golds[:_SAMPLE], *hedges]]
        places = range(min(len(self.golds), 4 * _SAMPLE)) if honest else range(0)
        scores = self.verdicts([(text, at) for text in honest for at in places])
        size = len(places)
        means = [_mean(scores[start : start + size]) for start in range(0, len(scores), size)] if size else []
        return max([commonest, *means])

    def means(self, tried: Sequence[Answer], places: Sequence[int]) -> list[float]:
        """The mean score of each answer over some golds. Notes what is paid for nothing, and what is masked."""
        found = iter(self.verdicts([(answer.text, at) for answer in tried for at in places]))
        result = []
        for answer in tried:
            scores = [self.note(answer, at, next(found)) for at in places]
            best = max(range(len(scores)), key=scores.__getitem__)
            self.best_gold[answer] = (places[best], scores[best])
            result.append(sum(scores) / len(scores))
        return result

    def note(self, answer: Answer, at: int, verdict: Verdict) -> float:
        """The score of a verdict; 0 where there is none."""
        score = verdict.score or 0.0
        if verdict.score is None:
            self.outcome.masked.append((answer, self.golds[at], f"{verdict.status}: {verdict.detail}"))
        elif answer.kind == "nothing" and score > 0:
            self.outcome.nothing_paid.append((answer, self.golds[at], score))
        return score

    def settle(self, tried: Sequence[Answer], means: Sequence[float]) -> None:
        """Note the best answer, and all that earn more than chance."""
        ranked = sorted(zip(means, range(len(tried)), strict=True), key=lambda pair: (-pair[0], pair[1]))
        for mean, at in ranked:
            if mean > self.outcome.chance + 1e-9:
                self.outcome.paid.append((tried[at], self.golds[self.best_gold[tried[at]][0]], mean))
        if ranked:
            self.outcome.best_mean, self.outcome.best = ranked[0][0], tried[ranked[0][1]]

    def echo(self, places: Sequence[int]) -> None:
        """Give each row its own question for an answer."""
        texts = [(answer, at) for at in places for answer in echoes(self.prompts[at])]
        found = self.verdicts([(answer.text, at) for answer, at in texts])
        earned: Counter[int] = Counter()
        for place, ((answer, at), verdict) in enumerate(zip(texts, found, strict=True)):
            earned[place % len(echoes(""))] += self.note(answer, at, verdict)  # type: ignore[assignment]
        for form, total in earned.items():
            if total / len(places) > self.outcome.chance + 1e-9:
                self.outcome.paid.append((texts[form][0], self.golds[places[0]], total / len(places)))

    def cross(self, count: int) -> None:
        """State golds as answers to golds of another value: none may score 1."""
        state = STATED.get(self.name)
        if state is None or len(self.golds) < 2:
            return
        stated = [state(gold)[0] for gold in self.golds]
        pairs = [(a, b) for a in range(len(self.golds)) for b in range(len(self.golds)) if self.keys[a] != self.keys[b]]
        if len(pairs) > count:
            pairs = self.draw.sample(pairs, count)
        self.outcome.pairs = len(pairs)
        for (a, b), verdict in zip(pairs, self.verdicts([(stated[a], b) for a, b in pairs]), strict=True):
            if verdict.score is None:
                self.outcome.masked.append(
                    (Answer("another gold", stated[a]), self.golds[b], f"{verdict.status}: {verdict.detail}")
                )
            elif verdict.score >= 1 and values_differ(self.name, self.golds[a], self.golds[b]):
                self.outcome.crossed.append((stated[a], json.dumps(self.golds[b], ensure_ascii=False, default=str)))


def _last_number(prompt: str) -> str:
    """The number that a question ends with, or an empty text."""
    numbers = _NUMBER.findall(prompt)
    return numbers[-1] if numbers else ""


def _mean(verdicts: Sequence[Verdict]) -> float:
    return sum(verdict.score or 0.0 for verdict in verdicts) / len(verdicts)


def worst(outcome: Outcome, most: int = 5) -> list[str]:
    """Lines that name the first holes of each kind, and the first golds that are not proven."""
    paid = [
        f"earns {mean:.3f} ({answer.kind}): {_quote(answer.text)}, as for gold {_quote(gold)}"
        for answer, gold, mean in outcome.paid[:most]
    ]
    nothing = [
        f"nothing scores {score:g}: {_quote(answer.text)} for gold {_quote(gold)}"
        for answer, gold, score in outcome.nothing_paid[:most]
    ]
    crossed = [f"another gold scores 1: {_quote(answer)} for {_quote(gold)}" for answer, gold in outcome.crossed[:most]]
    masked = [
        f"no verdict ({shorten(why)}): {_quote(answer.text)} for gold {_quote(gold)}"
        for answer, gold, why in outcome.masked[:most]
    ]
    unproven = [f"not proven, left out: gold {_quote(gold)}: {why}" for gold, why in outcome.unproven[:most]]
    return paid + nothing + crossed + masked + unproven


def _quote(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return ascii(shorten(text))
