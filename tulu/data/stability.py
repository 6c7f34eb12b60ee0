"""Whether a chat template is prefix-stable: what a model is shown when it is sampled is how its training rows begin."""

from typing import TYPE_CHECKING

from tulu.data.render import Refused, Renderer, Spelling
from tulu.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN = 24
"""Characters that are shown of each text where two of them part."""


def prompt_break(tokenizer: "PreTrainedTokenizerBase") -> str:
    """How the prompt that samples an answer differs from the beginning of the conversation that trains it; empty where not.

    Where the prompt opens a thought, the answer has one.
    """
    asked, answered = _texts(tokenizer)[:2]
    return _break(asked, answered, "a prompt holds", "the conversation that is trained holds")


def turn_break(tokenizer: "PreTrainedTokenizerBase") -> str:
    """How the text of a conversation changes when the next question follows it; empty where it goes on from there."""
    answered, continued = _texts(tokenizer)[1:]
    return _break(answered, continued, "the last turn holds", "once a question follows, it holds")


def _texts(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str, str]:
    """A question with its generation prompt, the same with its answer, and both with the next question."""
    renderer = Renderer(tokenizer)
    spelling = Spelling(parts=renderer.takes_parts)
    question: Message = {"role": "user", "content": "1+1=?"}
    try:
        asked = renderer.text([question], prompt=True, spelling=spelling)
        thinks = asked.rstrip().endswith("<think>")
        answer: Message = {"role": "assistant", "content": "<think>\nOne more.\n</think>\n\n2" if thinks else "2"}
        answered = renderer.text([question, answer], spelling=spelling)
        return asked, answered, renderer.text([question, answer, question], prompt=True, spelling=spelling)
    except Refused:
        return "", "", ""


def _break(first: str, second: str, one: str, other: str) -> str:
    if second.startswith(first):
        return ""
    place = next((at for at, (x, y) in enumerate(zip(first, second, strict=False)) if x != y), min(len(first), len(second)))
    start = max(0, place - 4)
    shown = [text[start : start + _SHOWN] for text in (first, second)]
    return f"{one} {shown[0]!r} where {other} {shown[1]!r}"
