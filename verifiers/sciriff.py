"""sciriff: structured answers on scientific text, scored by F1 (SciRIFF, Wadden et al. 2024; allenai/SciRIFF eval/metrics).

The ground truth is {"kind": "entities" | "relations" | "list" | "label", "reference": ...}. SciRIFF pools its counts over
a corpus; a reward needs one score per answer, so that two empty answers score 1 here.
"""

from collections import Counter
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, parse_json
from tulu.verifiers.json_text import BadJson, strict_json, values_in
from tulu.verifiers.text import final_answer

_KINDS = ("entities", "relations", "list", "label")
_MOST_RELATIONS = 1000
"""Relations of an answer that are compared."""
_OVERLAP = 0.3
"""F1 of words from which two mentions of a relation count as the same."""


def parse(gold: Any) -> tuple[str, Any]:
    """Kind and reference of a ground truth; GoldError where they do not fit."""
    gold = parse_json(gold)
    if not isinstance(gold, dict) or gold.get("kind") not in _KINDS or "reference" not in gold:
        raise GoldError(f"ground_truth must be {{kind, reference}} with a kind of {', '.join(_KINDS)}")
    kind, reference = gold["kind"], gold["reference"]
    usable = {
        "entities": isinstance(reference, dict) and all(isinstance(mentions, list) for mentions in reference.values()),
        "relations": isinstance(reference, list) and all(isinstance(entry, list) and entry for entry in reference),
        "list": isinstance(reference, list),
        "label": isinstance(reference, dict) and isinstance(reference.get("verdict"), str),
    }[kind]
    if not usable:
        raise GoldError(f"reference does not fit kind {kind}")
    return kind, reference


def f1(correct: float, answered: int, expected: int) -> float:
    """F1 of three counts; 1 where nothing was expected and nothing answered."""
    return 1.0 if not answered and not expected else 2 * correct / (answered + expected)


def _normalise(value: Any) -> str:
    return " ".join(str(value).lower().split())


def _bag_f1(answer: list[Any], reference: list[Any]) -> float:
    """F1 over two lists whose order does not count."""
    a, b = Counter(map(_normalise, answer)), Counter(map(_normalise, reference))
    return f1(sum((a & b).values()), sum(a.values()), sum(b.values()))


def _entities(value: Any) -> list[Any]:
    """The (type, mention) pairs of {type: [mentions]}; none where the value has another form."""
    if not isinstance(value, dict):
        return []
    return [(kind, mention) for kind, mentions in value.items() if isinstance(mentions, list) for mention in mentions]


def _overlap(a: str, b: str) -> bool:
    """Whether two mentions overlap: they are equal, one contains the other, or they share enough words."""
    if a == b or (a and b and (a in b or b in a)):
        return True
    words, others = Counter(a.split()), Counter(b.split())
    shared = sum((words & others).values())
    return bool(shared) and f1(shared, sum(words.values()), sum(others.values())) >= _OVERLAP


def _relations_f1(answer: list[Any], reference: list[list[Any]]) -> float:
    """F1 over relations, which match where all their parts overlap; each relation of the reference matches once."""
    unmatched = [[_normalise(part) for part in relation] for relation in reference]
    correct = 0
    for relation in answer[:_MOST_RELATIONS]:
        if not isinstance(relation, list):
            continue
        parts = [_normalise(part) for part in relation]
        match = next((index for index, other in enumerate(unmatched) if _same_relation(parts, other)), None)
        if match is not None:
            unmatched.pop(match)
            correct += 1
    return f1(correct, len(answer), len(reference))


def _same_relation(parts: list[str], others: list[str]) -> bool:
    return len(parts) == len(others) and all(map(_overlap, parts, others))


def _label_score(answer: Any, reference: dict[str, Any]) -> float:
    """SciFact's score: half for the label, half for the evidence sentences; all for the label where there is no evidence."""
    if not isinstance(answer, dict):
        return 0.0
    label_correct = _normalise(answer.get("verdict", "")) == _normalise(reference["verdict"])
    # NEI stands for "not enough information".
    if _normalise(reference["verdict"]) == "nei" or "evidence" not in reference:
        return float(label_correct)
    evidence = answer.get("evidence")
    return (label_correct + _bag_f1(evidence if isinstance(evidence, list) else [], reference["evidence"])) / 2


def _parse_answer(completion: str) -> Any:
    """The JSON of an answer: all of it, else its first complete object or array, else None."""
    text = final_answer(completion)
    try:
        return strict_json(text)
    except BadJson:
        values = values_in(text)
        return values[0] if values else None


def strict(case: Case) -> Verdict:
    """F1 in [0, 1] of the answer's JSON against the reference."""
    kind, reference = parse(case.gold)
    answer = _parse_answer(case.completion)
    if answer is None:
        return Verdict(0.0, detail="no JSON")
    if kind == "entities":
        return Verdict(_bag_f1(_entities(answer), _entities(reference)))
    if kind == "label":
        return Verdict(_label_score(answer, reference))
    entries = answer if isinstance(answer, list) else []
    return Verdict(_relations_f1(entries, reference) if kind == "relations" else _bag_f1(entries, reference))


SCIRIFF = Verifier(check=parse, strict=strict)
