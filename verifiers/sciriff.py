"""sciriff: structured answers on scientific text, scored by F1 (SciRIFF, Wadden et al. 2024; allenai/SciRIFF eval/metrics).

The ground truth is {"kind": "entities" | "relations" | "list" | "label", "reference": ...}. SciRIFF pools its counts over
a corpus; a reward needs one score per answer, so that two empty answers score 1 here. An answer of another shape than its kind
has scores 0, evidence counts only with the right verdict, and a mention of a relation is no longer than it has to be.
"""

import re
from collections import Counter
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, parse_json
from tulu.verifiers.json_text import BadJson, strict_json_in, values_in
from tulu.verifiers.text import final_answer, has_content, visible_text

_KINDS = ("entities", "relations", "list", "label")
_MOST_RELATIONS = 1000
"""Relations of an answer that are compared."""
_LONGEST_PART = 2000
"""Characters of a part of a relation that are read."""
_OVERLAP = 0.3
"""F1 of words from which two mentions of a relation count as the same."""
_LONGER = 3
"""How many times as many words a mention may have as the one that it contains, or shares words with."""
_WORD = re.compile(r"\w+(?:['’.\-]\w+)*[+#%]*|[^\w\s]")
_NO_CONTENT = frozenset("a an the of in on at to by for with from and or is are was were be as that this it its".split())
"""Words that make no mention by themselves."""


def parse(gold: Any) -> tuple[str, Any]:
    """Kind and reference of a ground truth; GoldError where they do not fit."""
    gold = parse_json(gold)
    if not isinstance(gold, dict) or gold.get("kind") not in _KINDS or "reference" not in gold:
        raise GoldError(f"ground_truth must be {{kind, reference}} with a kind of {', '.join(_KINDS)}")
    kind, reference = gold["kind"], gold["reference"]
    if not _has_shape(kind, reference) or (kind == "label" and not has_content(reference["verdict"])):
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


def _is_mention(value: Any) -> bool:
    """Whether a value is a text or a number that shows something."""
    return isinstance(value, str | int | float) and not isinstance(value, bool) and has_content(str(value))


def _entities(value: dict[str, list[Any]]) -> list[tuple[str, str]]:
    """The (type, mention) pairs of {type: [mentions]}."""
    return [(_normalise(kind), _normalise(mention)) for kind, mentions in value.items() for mention in mentions]


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _overlap(a: list[str], b: list[str]) -> bool:
    """Whether two mentions, as words, overlap: they are equal, one contains the other, or they share enough words."""
    if a == b:
        return True
    short, long = sorted((a, b), key=len)
    shared = Counter(short) & Counter(long)
    if len(long) > _LONGER * len(short) or not any(word not in _NO_CONTENT and word[0].isalnum() for word in shared):
        return False
    contained = any(long[at : at + len(short)] == short for at in range(len(long) - len(short) + 1))
    return contained or f1(sum(shared.values()), len(a), len(b)) >= _OVERLAP


def _relations_f1(answer: list[Any], reference: list[list[Any]]) -> float:
    """F1 over relations, which match where all their parts overlap; each relation of the reference matches once."""
    unmatched = [[_words(_normalise(part)) for part in relation] for relation in reference]
    correct = 0
    for relation in answer[:_MOST_RELATIONS]:
        parts = [_words(_normalise(part)[:_LONGEST_PART]) for part in relation]
        match = next((index for index, other in enumerate(unmatched) if _same_relation(parts, other)), None)
        if match is not None:
            unmatched.pop(match)
            correct += 1
    return f1(correct, len(answer), len(reference))


def _same_relation(parts: list[list[str]], others: list[list[str]]) -> bool:
    """Whether all parts of two relations overlap; one text in the place of two different parts is none of them."""
    if len(parts) != len(others) or not all(map(_overlap, parts, others)):
        return False
    return len(set(map(tuple, parts))) >= len(set(map(tuple, others)))


def _label_score(answer: dict[str, Any], reference: dict[str, Any]) -> float:
    """SciFact's score: half for the label and half for the evidence sentences, which count only with the right label.

    It is all for the label where the reference has no evidence.
    """
    if _normalise(answer["verdict"]) != _normalise(reference["verdict"]):
        return 0.0
    # NEI stands for "not enough information".
    if _normalise(reference["verdict"]) == "nei" or "evidence" not in reference:
        return 1.0
    return (1.0 + _bag_f1(answer.get("evidence") or [], reference["evidence"])) / 2


def _has_shape(kind: str, answer: Any) -> bool:
    """Whether an answer has the shape of its kind, and each of its parts shows something."""
    if kind == "entities":
        mentions = list(answer.values()) if isinstance(answer, dict) else [None]
        return all(isinstance(entries, list) and all(map(_is_mention, entries)) for entries in mentions)
    if kind == "label":
        evidence = answer.get("evidence") or [] if isinstance(answer, dict) else None
        return isinstance(evidence, list) and all(map(_is_mention, evidence)) and isinstance(answer.get("verdict"), str)
    if not isinstance(answer, list):
        return False
    if kind == "list":
        return all(map(_is_mention, answer))
    return all(isinstance(relation, list) and relation and all(map(_is_mention, relation)) for relation in answer)


def _parse_answer(completion: str) -> Any:
    """The JSON of an answer: all of it, else its first complete object or array, else None."""
    text = visible_text(final_answer(completion))
    try:
        return strict_json_in(text)
    except BadJson:
        values = values_in(text)
        return values[0] if values else None


def strict(case: Case) -> Verdict:
    """F1 in [0, 1] of the answer's JSON against the reference."""
    kind, reference = parse(case.gold)
    answer = _parse_answer(case.completion)
    if answer is None:
        return Verdict(0.0, detail="no JSON")
    if not _has_shape(kind, answer):
        return Verdict(0.0, detail=f"not the shape of {kind}")
    if kind == "entities":
        return Verdict(_bag_f1(_entities(answer), _entities(reference)))
    if kind == "label":
        return Verdict(_label_score(answer, reference))
    return Verdict(_relations_f1(answer, reference) if kind == "relations" else _bag_f1(answer, reference))


SCIRIFF = Verifier(check=parse, strict=strict)
