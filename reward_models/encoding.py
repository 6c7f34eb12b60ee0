"""Items to packed prompt groups: the chat template once, special tokens once, and never an answer's end cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tulu.data.chat import encode_batch, tokenize
from tulu.errors import DataError
from tulu.reward_models.items import Item
from tulu.types import Completion, Group, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model can read."""

    max_length: int | None
    """Most tokens; longer texts lose their start. None is no limit."""
    add_bos: bool = False
    """Put BOS before texts whose template writes none."""


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """Prompt and answer as tokens, of which the first `answer` belong to the prompt."""

    tokens: list[int]
    answer: int
    """First token of the answer; 0 where all that is left is answer."""
    cut: int = 0
    """Tokens cut from the left."""
    answer_cut: int = 0
    """How many of them were the answer's own."""


def encode_items(tokenizer: "PreTrainedTokenizerBase", items: Sequence[Item], limits: Limits) -> list[list[EncodedAnswer]]:
    """Every answer of every item; DataError names an item that the template refuses."""
    chats: list[list[Message]] = [[*item.prompt, *answer] for item in items for answer in item.answers]
    owners = [item for item in items for _ in item.answers]
    encoded = []
    for item, conversation in zip(owners, encode_batch(tokenizer, chats, "last"), strict=True):
        if conversation.problem or not conversation.spans:
            reason = conversation.problem or "the template shows no assistant turn"
            raise DataError(f"{item.where or item.id}: {reason}; choose another --template, or leave the row out")
        tokens = _with_bos(tokenizer, conversation.tokens, limits)
        encoded.append(_cut(tokens, conversation.spans[0][0] + len(tokens) - len(conversation.tokens), limits))
    return _by_item(encoded, items)


def encode_whole(tokenizer: "PreTrainedTokenizerBase", items: Sequence[Item], limits: Limits) -> list[list[EncodedAnswer]]:
    """`encode_items` without looking for where answers begin, which a classifier need not know."""
    from jinja2 import TemplateError

    chats: list[Any] = [[*item.prompt, *answer] for item in items for answer in item.answers]
    try:
        texts: Any = tokenizer.apply_chat_template(chats, tokenize=False)
    except (TemplateError, TypeError, ValueError):
        # One of them is refused; the slow way names it.
        return encode_items(tokenizer, items, limits)
    tokens = [_with_bos(tokenizer, encoding.ids, limits) for encoding in tokenize(tokenizer, texts)]
    if limits.max_length is not None and any(len(row) > limits.max_length for row in tokens):
        return encode_items(tokenizer, items, limits)
    return _by_item([EncodedAnswer(row, 0) for row in tokens], items)


def to_groups(encoded: Sequence[Sequence[EncodedAnswer]], trained: bool) -> list[Group]:
    """A group per item, whose answers share their longest common beginning.

    Trained marks the answers' tokens; else nothing is marked, for scores read at the last token.
    """
    groups = []
    for answers in encoded:
        shared = _common([answer.tokens for answer in answers])
        if trained:
            shared = min(shared, *(answer.answer for answer in answers))
        completions = []
        for answer in answers:
            own = answer.tokens[shared:]
            marks = [trained and shared + index >= answer.answer for index in range(len(own))]
            completions.append(Completion(own, marks))
        groups.append(Group(answers[0].tokens[:shared], tuple(completions)))
    return groups


def trimmed(answer: EncodedAnswer, pad: int | None) -> EncodedAnswer:
    """The answer up to its last token that is not padding, where AutoModelForSequenceClassification reads its score.

    With pad = EOS that is the token before EOS: what follows cannot change it.
    """
    end = len(answer.tokens)
    while pad is not None and end > 1 and answer.tokens[end - 1] == pad:
        end -= 1
    return EncodedAnswer(answer.tokens[:end], min(answer.answer, end - 1), answer.cut, answer.answer_cut)


def _with_bos(tokenizer: "PreTrainedTokenizerBase", tokens: list[int], limits: Limits) -> list[int]:
    bos = tokenizer.bos_token_id
    if not limits.add_bos or bos is None or tokens[:1] == [bos]:
        return tokens
    return [bos, *tokens]


def _cut(tokens: list[int], start: int, limits: Limits) -> EncodedAnswer:
    """Keep the end: it holds the answer's last words and the token that is read."""
    cut = 0 if limits.max_length is None else max(0, len(tokens) - limits.max_length)
    return EncodedAnswer(tokens[cut:], max(0, start - cut), cut, max(0, cut - start))


def _common(rows: Sequence[list[int]]) -> int:
    """Tokens with which all rows begin, each keeping at least one of its own."""
    most = min(len(row) for row in rows) - 1
    first = rows[0]
    return next((index for index in range(most) if any(row[index] != first[index] for row in rows)), most)


def _by_item(encoded: Sequence[EncodedAnswer], items: Sequence[Item]) -> list[list[EncodedAnswer]]:
    iterator = iter(encoded)
    return [[next(iterator) for _ in item.answers] for item in items]
