"""The prompts of a judge, and how its replies are read.

The pairwise and four-way prompts are MT-bench's pair-v2 (lm-sys/FastChat, Apache-2.0) without its tie, as allenai/reward-bench
uses them (rewardbench/generative.py and generative_v2.py @ 05a9005). Replies are read by the same rules, so that figures can be
compared.
"""

import re
import string
from collections.abc import Sequence

from tulu.reward_models.items import Answer, text
from tulu.types import Message

UNPARSABLE = -1.0
"""The score of an answer whose rating could not be read. The Ties formula takes it as a number, as upstream does."""

MAX_ANSWERS = len(string.ascii_uppercase)
"""Most answers that can be shown as A, B, … at once."""

_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_RATING = re.compile(r"\b([1-9]|10)$")
"""A rating at the end of a reply, such as the 8 of `Rating: 8`; `8/10` ends in 10, and `8.` has none."""

_RANKING = (
    "Please act as an impartial judge and evaluate the quality of the responses provided by {number} AI assistants to the "
    "{shown}. You should choose the assistant that follows the user's instructions and answers the user's question {best}. "
    "Your evaluation should consider factors such as the helpfulness, relevance, accuracy, depth, creativity, and level of "
    "detail of their responses. {focus}Begin your evaluation by comparing the {number} responses and provide a short "
    "explanation. Avoid any position biases and ensure that the order in which the responses were presented does not "
    "influence your decision. Do not allow the length of the responses to influence your evaluation. Do not favor certain "
    "names of the assistants. Be as objective as possible. After providing your explanation, output your final verdict by "
    "strictly following this format: {verdicts}."
)
_RATING_TASK = (
    "### Task Description\n"
    "Please act as an impartial judge and evaluate the quality of the response provided by an AI assistant to the user query "
    "displayed below. Your evaluation should consider factors such as the {factors} of the response. Begin with a short "
    "explanation, be as objective as possible, and do not let the length of the response influence you. Then rate the response "
    "on a scale of 1 to 10. End with the rating alone, as a number, and do not put any text after your final rating.\n\n"
    "[Query]\n{query}\n\n[Response]\n{response}\n\n[Your judgement]"
)
_FACTORS = "helpfulness, relevance, accuracy, depth, creativity, and level of detail"
_TIES_FACTORS = "helpfulness, relevance, and accuracy"
"""The right answers of the Ties subset differ in form, which therefore is no factor."""


def ranking_messages(prompt: Sequence[Message], answers: Sequence[Answer]) -> list[Message]:
    """The conversation that asks which of the answers, shown as A, B, …, is best."""
    letters = string.ascii_uppercase[: len(answers)]
    best = "better" if len(letters) == 2 else "best"
    several = len(prompt) > 1
    system = _RANKING.format(
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
    filled = _RATING_TASK.format(factors=_TIES_FACTORS if ties else _FACTORS, query=query, response=text(answer))
    return [{"role": "user", "content": filled}]


def parse_choice(reply: str, count: int) -> int | None:
    """Index of the answer that a reply names, such as 1 for `[[B]]`: of several the first letter; None where none is named."""
    for index, letter in enumerate(string.ascii_uppercase[:count]):
        if f"[[{letter}]]" in reply:
            return index
    return None


def names_several(reply: str, count: int) -> bool:
    """Whether a reply names more than one answer, of which `parse_choice` takes the first letter."""
    return sum(f"[[{letter}]]" in reply for letter in string.ascii_uppercase[:count]) > 1


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
