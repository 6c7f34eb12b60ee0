"""sciriff: structured answers on scientific text, scored by F1 (SciRIFF, Wadden et al. 2024; allenai/SciRIFF eval/metrics).

The ground truth is {"kind": "entities" | "relations" | "list" | "label", "reference": ...}. SciRIFF pools its counts over
a corpus; a reward needs one score per answer, so both empty is 1 here.
"""

import json
from collections import Counter
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier
from tulu.verifiers.json_text import BadJson, strict_json, values_in
from tulu.verifiers.text import final_answer

_KINDS = ("entities", "relations", "list", "label")
_OVERLAP = 0.3
"""Token F1 from which two mentions of a relation count as the same."""


def _gold(gold: Any) -> tuple[str, Any]:
    if isinstance(gold, str):
        try:
            gold = json.loads(gold)
        except (ValueError, RecursionError) as fault:
            raise GoldError(f"ground_truth is no JSON: {fault}") from fault
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


def check(gold: Any) -> None:
    """GoldError unless the ground truth is a reference of a known kind."""
    _gold(gold)


def f1(right: float, said: int, wanted: int) -> float:
    """F1 of counts; 1 where nothing was wanted and nothing said."""
    return 1.0 if not said and not wanted else 2 * right / (said + wanted)


def _text(value: Any) -> str:
    return " ".join(str(value).lower().split())


def _bag_f1(said: list[Any], wanted: list[Any]) -> float:
    a, b = Counter(map(_text, said)), Counter(map(_text, wanted))
    return f1(sum((a & b).values()), sum(a.values()), sum(b.values()))


def _entities(value: Any) -> list[Any]:
    """(type, mention) pairs of {type: [mentions]}."""
    if not isinstance(value, dict):
        return []
    return [(kind, mention) for kind, mentions in value.items() if isinstance(mentions, list) for mention in mentions]


def _alike(a: str, b: str) -> bool:
    """Whether two mentions overlap: equal, one within the other, or sharing enough words."""
    if a == b or (a and b and (a in b or b in a)):
        return True
    words, others = Counter(a.split()), Counter(b.split())
    shared = sum((words & others).values())
    return bool(shared) and f1(shared, sum(words.values()), sum(others.values())) >= _OVERLAP


def _relations(said: list[Any], wanted: list[list[Any]]) -> float:
    """F1 over relations, all parts of which must overlap; each reference is used once."""
    left = [[_text(part) for part in entry] for entry in wanted]
    found = 0
    given = [[_text(part) for part in entry] for entry in said[:1000] if isinstance(entry, list)]
    for entry in given:
        match = next((at for at, one in enumerate(left) if len(one) == len(entry) and all(map(_alike, entry, one))), None)
        if match is not None:
            left.pop(match)
            found += 1
    return f1(found, len(said), len(wanted))


def _label(said: Any, wanted: dict[str, Any]) -> float:
    """SciFact: half for the verdict, half for the evidence sentences, unless there can be none."""
    if not isinstance(said, dict):
        return 0.0
    verdict = _text(said.get("verdict", "")) == _text(wanted["verdict"])
    if _text(wanted["verdict"]) == "nei" or "evidence" not in wanted:
        return float(verdict)
    evidence = said.get("evidence")
    return (verdict + _bag_f1(evidence if isinstance(evidence, list) else [], wanted["evidence"])) / 2


def _value(completion: str) -> Any:
    """The JSON of an answer: the whole of it, else its first complete object or array, else None."""
    text = final_answer(completion)
    try:
        return strict_json(text)
    except BadJson:
        found = values_in(text)
        return found[0] if found else None


def strict(case: Case) -> Verdict:
    """F1 in [0, 1] of the answer's JSON against the reference."""
    kind, reference = _gold(case.gold)
    said = _value(case.completion)
    if said is None:
        return Verdict(0.0, detail="no JSON")
    if kind == "entities":
        return Verdict(_bag_f1(_entities(said), _entities(reference)))
    if kind == "label":
        return Verdict(_label(said, reference))
    entries = said if isinstance(said, list) else []
    return Verdict(_relations(entries, reference) if kind == "relations" else _bag_f1(entries, reference))


SCIRIFF = Verifier(check=check, strict=strict)
