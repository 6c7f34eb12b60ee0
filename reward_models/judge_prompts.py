"""The prompts of a judge, and how its replies are read: by the rules of allenai/reward-bench, so that figures can be compared."""

import hashlib
import re
import string
from collections.abc import Sequence
from pathlib import Path

import yaml

from tulu.reward_models.items import Answer, text
from tulu.types import Message

UNPARSABLE = -1.0
"""The score of an answer whose rating could not be read. The Ties formula takes it as a number, as upstream does."""

MAX_ANSWERS = len(string.ascii_uppercase)
"""Most answers that can be shown as A, B, … at once."""

_FILE = Path(__file__).with_name("judge_prompts.yaml")
_PROMPTS: dict[str, str] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
PROMPTS_HASH = hashlib.sha256(_FILE.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
"""A hash of the prompts and of how they are filled in, on which every verdict depends."""

_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_RATING = re.compile(r"\b([1-9]|10)$")
"""A rating at the end of a reply, such as the 8 of `Rating: 8`; `8/10` ends in 10, and `8.` has none."""


def ranking_messages(prompt: Sequence[Message], answers: Sequence[Answer]) -> list[Message]:
    """The conversation that asks which of the answers, shown as A, B, …, is best."""
    letters = string.ascii_uppercase[: len(answers)]
    best = "better" if len(letters) == 2 else "best"
    several = len(prompt) > 1
    system = _PROMPTS["ranking"].format(
        number=_NUMBERS.get(len(answers), str(len(answers))),
        shown="conversations displayed below" if several else "user question displayed below",
        best=best,
        focus="You should focus on who provides a better answer to the last user question. " if several else "",
        verdicts=", ".join(f'"[[{letter}]]" if assistant {letter} is {best}' for letter in letters),
    )
    user = _conversations(prompt, answers, letters) if several else _answers(prompt, answers, letters)
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _answers(prompt: Sequence[Message], answers: Sequence[Answer], letters: str) -> str:
    parts = [f"[User Question]\n{prompt[0]['content'] if prompt else ''}"]
    for letter, answer in zip(letters, answers, strict=True):
        parts.append(f"[The Start of Assistant {letter}'s Answer]\n{text(answer)}\n[The End of Assistant {letter}'s Answer]")
    return "\n\n".join(parts)


def _conversations(prompt: Sequence[Message], answers: Sequence[Answer], letters: str) -> str:
    parts = []
    for letter, answer in zip(letters, answers, strict=True):
        names = {"user": "### User", "assistant": f"### Assistant {letter}"}
        turns = [f"{names.get(turn['role'], '### ' + turn['role'])}:\n{turn['content']}" for turn in (*prompt, *answer)]
        start, end = (f"<|The {edge} of Assistant {letter}'s Conversation with User|>" for edge in ("Start", "End"))
        parts.append("\n\n".join([start, *turns, end]))
    return "\n\n\n".join(parts)


def rating_messages(prompt: Sequence[Message], answer: Answer, ties: bool) -> list[Message]:
    """The conversation that asks how good one answer is, from 1 to 10. For the Ties subset it leaves form out."""
    query = prompt[0]["content"] if len(prompt) == 1 else "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
    factors = _PROMPTS["ties_factors" if ties else "factors"]
    filled = _PROMPTS["rating"].format(factors=factors, query=query, response=text(answer))
    return [{"role": "user", "content": filled}]


def parse_choices(reply: str, count: int) -> list[int]:
    """Indices of the answers that a reply names, such as [1] for `[[B]]`; of several the first one counts."""
    return [index for index, letter in enumerate(string.ascii_uppercase[:count]) if f"[[{letter}]]" in reply]


def parse_rating(reply: str) -> float:
    """The number from 1 to 10 that ends a reply; UNPARSABLE where none does."""
    match = _RATING.search(reply.strip())
    return float(match[1]) if match else UNPARSABLE


def rating_credit(ratings: Sequence[float]) -> float:
    """The credit of the first answer, which is the right one, by its rating against the others'.

    In a pair it is 1 or 0, and 0.5 where the ratings are equal or one cannot be read. Among N > 2 answers it is 1/k where the
    right one is among the k that share the highest rating, else 0, and 1/N where no rating can be read.
    """
    readable = [rating for rating in ratings if rating != UNPARSABLE]
    if len(ratings) == 2 and (len(readable) < 2 or readable[0] == readable[1]):
        return 0.5
    if not readable:
        return 1 / len(ratings)
    return 1 / readable.count(max(readable)) if ratings[0] == max(readable) else 0.0
