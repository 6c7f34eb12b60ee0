"""Made-up rows for `--tiny`: short conversations, pairs and problems in the columns of the data sets that they stand for.

A tiny model knows nothing, so its tokenizer has a token for each whole answer (`answers`), and its head leans towards them: then
some of what it samples is right and some is wrong, whoever grades.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from tulu.config.made_up import ProblemForm
from tulu.config.tiny_section import MadeUpRows
from tulu.verifiers.attacks.golds import HONEST, builtin_golds
from tulu.verifiers.proof import proof_of

_MOST_GOLDS = 4
"""Golds of a verifier among the made-up rows."""


@dataclass(frozen=True)
class Gold:
    """A question, its ground truth as the data sets write it, and an answer that is right."""

    question: str
    truth: Any
    answer: str


def _function(name: str, **arguments: Any) -> str:
    """A ground truth of Tülu 3's IF rows: a function with all arguments that any of them takes."""
    empty = dict.fromkeys(("N", "quantifier", "end_phrase", "keyword_list", "word", "forbidden_words", "letter", "first_word"))
    return json.dumps({"func_name": name, **empty, **arguments})


def _instructions(name: str, **arguments: Any) -> str:
    return json.dumps([{"instruction_id": [name], "kwargs": [arguments]}])


def _program(body: str) -> str:
    return f"```python\n{body}\n```"


_SUMS = ((3, 4), (1, 1), (2, 3), (4, 5))
"""Sums of one digit, which a model of bytes alone sometimes ends in by chance too."""
_WORDS = ("river", "stone", "light", "bread")
_GOLDS: dict[str, tuple[Gold, ...]] = {
    "gsm8k": tuple(Gold(f"What is {a} + {b}?", str(a + b), f"#### {a + b}") for a, b in _SUMS),
    "math": tuple(Gold(f"Compute ${a} + {b}$.", str(a + b), f"\\boxed{{{a + b}}}") for a, b in _SUMS),
    "ifeval": tuple(
        Gold(f"Write a line. Use the word {word}.", _instructions("keywords:existence", keywords=[word]), f" {word} ")
        for word in _WORDS
    ),
    "ifeval_func": tuple(
        Gold(f"Write a line. Use the word {word}.", _function("verify_keywords", keyword_list=[word]), f" {word} ")
        for word in _WORDS
    ),
    "code": (
        Gold(
            "Write f(n), which returns n + 2.", ["assert f(1) == 3", "assert f(2) == 4"], _program("def f(n):\n    return n + 2")
        ),
        Gold("Write f(n), which returns 2 n.", ["assert f(1) == 2", "assert f(2) == 4"], _program("def f(n):\n    return n * 2")),
    ),
    "code_stdio": (
        Gold("Print the line that you read.", json.dumps([{"input": "ab\n", "output": "ab\n"}]), _program("print(input())")),
        Gold("Print 7.", json.dumps([{"input": "\n", "output": "7\n"}]), _program("print(7)")),
    ),
    "general-quality_ref": (
        Gold("What colour has the sky?", "It is blue.", " blue "),
        Gold("What do bees make?", "They make honey.", " honey "),
    ),
}
_GOLDS |= dict.fromkeys(("general-quality", "llm_judge"), _GOLDS["general-quality_ref"])
_GOLDS |= {"strict_math": _GOLDS["math"], "ifeval_loose": _GOLDS["ifeval"], "ifeval_old": _GOLDS["ifeval_func"]}
_GOLDS["rubric"] = (Gold("What do bees make?", ["It names honey.", "It is short."], " honey "),)


def golds(verifier: str) -> tuple[Gold, ...]:
    """Golds of a verifier with an answer each, which is right where its golds are answers."""
    name = verifier.lower()
    if name in _GOLDS:
        return _GOLDS[name]
    found = []
    for gold in builtin_golds(name)[:_MOST_GOLDS]:
        proof = proof_of(name, gold)
        answers = proof.right if proof is not None else HONEST.get(name, ("7",))
        found += [Gold("Answer as you have learnt to.", gold, answer) for answer in answers[:1]]
    # A verifier of the user's own, and one that needs a package or a service, has no golds here.
    return tuple(found) or _GOLDS["gsm8k"]


def answers(forms: Sequence[ProblemForm]) -> list[str]:
    """The answers to the problems of these forms, each once."""
    texts = (gold.answer for form in forms for verifier in form.verifiers for gold in golds(verifier))
    return list(dict.fromkeys(texts))


def made_up_rows(rows: MadeUpRows) -> list[dict[str, Any]]:
    """The rows of a file, the same in every run."""
    draw = random.Random(rows.file)
    if rows.form is not None:
        return list(islice(_problems(rows.form), rows.count))
    makers = {"sft": _chat, "pairs": _pair, "text": _text}
    return [{"id": f"made-up-{index}", **makers[rows.kind](draw, index)} for index in range(rows.count)]


def _turn(draw: random.Random, right: bool = True) -> list[dict[str, str]]:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    reply = f"{a} + {b} is {a + b if right else a + b + draw.randint(1, 9)}."
    return [{"role": "user", "content": f"What is {a} + {b}?"}, {"role": "assistant", "content": reply}]


def _chat(draw: random.Random, index: int) -> dict[str, Any]:
    """A conversation of one, two or three turns, every fourth with a system prompt."""
    turns = [message for _ in range(1 + index % 3) for message in _turn(draw)]
    system = [{"role": "system", "content": "You add numbers."}] if index % 4 == 0 else []
    return {"messages": [*system, *turns], "source": "made up"}


def _pair(draw: random.Random, index: int) -> dict[str, Any]:
    """A pair of whole conversations with their prompt beside them, half of them of two turns."""
    shared = _turn(draw) if index % 2 else []
    good = _turn(draw)
    bad = [good[0], {"role": "assistant", "content": good[1]["content"].replace(" is ", " is not ")}]
    return {
        "prompt": good[0]["content"] if not shared else shared[0]["content"],
        "chosen": [*shared, *good],
        "rejected": [*shared, *bad],
        "source": "made up",
    }


def _text(draw: random.Random, index: int) -> dict[str, Any]:
    return {"text": " ".join(message["content"] for _ in range(1 + index % 3) for message in _turn(draw))}


def _problems(form: ProblemForm) -> Iterator[dict[str, Any]]:
    """Problems without end, the verifiers in turn."""
    rounds = {verifier: cycle(golds(verifier)) for verifier in form.verifiers}
    for index, verifier in enumerate(cycle(form.verifiers)):
        gold = next(rounds[verifier])
        name = "ifeval" if verifier == "ifeval_func" else verifier
        truth = gold.truth
        if form.lists:
            truth = [truth if isinstance(truth, str) else json.dumps(truth)]
        prompt = gold.question if form.prompt == "prompt" else [{"role": "user", "content": gold.question}]
        yield {
            "id": f"made-up-{index}",
            form.prompt: prompt,
            "ground_truth": truth,
            "dataset": [name] if form.lists else name,
        }
