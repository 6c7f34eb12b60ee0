"""Items to tokens and to prompt groups: chat template and special tokens are applied once, and no answer's end is cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tulu.data.chat import encode_batch, tokenize
from tulu.data.render import Refused, Renderer
from tulu.errors import DataError
from tulu.reward_models.items import Item
from tulu.types import Completion, Group, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model can read of a text, and at once."""

    max_length: int | None
    """Most tokens; longer texts lose their start. None is no limit."""
    add_bos: bool = False
    """Whether BOS is put before texts whose template writes none."""
    row_tokens: int = 8192
    """Most tokens of a packed row or a padded batch."""


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """Prompt and answer as tokens, of which the first `answer` belong to the prompt."""

    tokens: list[int]
    answer: int
    """Index of the answer's first token; 0 where only tokens of the answer are left."""
    cut: int = 0
    """How many tokens were cut from the start."""
    answer_cut: int = 0
    """How many of those belonged to the answer."""


def encode_items(tokenizer: "PreTrainedTokenizerBase", items: Sequence[Item], limits: Limits) -> list[list[EncodedAnswer]]:
    """The tokens of every answer of every item. Raises DataError, which names an item that the template refuses."""
    chats: list[list[Message]] = [[*item.prompt, *answer] for item in items for answer in item.answers]
    item_of_chat = [item for item in items for _ in item.answers]
    encoded = []
    for item, conversation in zip(item_of_chat, encode_batch(tokenizer, chats, "last"), strict=True):
        if conversation.problem or not conversation.spans:
            reason = conversation.problem or "the template shows no assistant turn"
            raise DataError(f"{item.where or item.id}: {reason}; choose another --template, or leave the row out")
        tokens = _with_bos(tokenizer, conversation.tokens, limits)
        encoded.append(_cut(tokens, conversation.spans[0][0] + len(tokens) - len(conversation.tokens), limits))
    return _by_item(encoded, items)


def encode_whole(tokenizer: "PreTrainedTokenizerBase", items: Sequence[Item], limits: Limits) -> list[list[EncodedAnswer]]:
    """As `encode_items`, but without the place where answers begin, which a classifier does not need and which takes time."""
    chats: list[list[Message]] = [[*item.prompt, *answer] for item in items for answer in item.answers]
    try:
        renderer = Renderer(tokenizer)
        texts = [renderer.text(chat) for chat in chats]
    except Refused:
        # The template refuses an item; encode_items names it.
        return encode_items(tokenizer, items, limits)
    tokens = [_with_bos(tokenizer, encoding.ids, limits) for encoding in tokenize(tokenizer, texts)]
    if limits.max_length is not None and any(len(row) > limits.max_length for row in tokens):
        return encode_items(tokenizer, items, limits)
    return _by_item([EncodedAnswer(row, 0) for row in tokens], items)


def to_groups(encoded: Sequence[Sequence[EncodedAnswer]], trained: bool) -> list[Group]:
    """A group per item, whose prompt is the longest beginning that the answers share.

    With `trained` the answers' tokens are marked as trained; without it none is, for scores that are read at the last token.
    """
    groups = []
    for answers in encoded:
        shared = _common([answer.tokens for answer in answers])
        if trained:
            shared = min(shared, *(answer.answer for answer in answers))
        completions = []
        for answer in answers:
            tokens = answer.tokens[shared:]
            marks = [trained and shared + index >= answer.answer for index in range(len(tokens))]
            completions.append(Completion(tokens, marks))
        groups.append(Group(answers[0].tokens[:shared], tuple(completions)))
    return groups


def trimmed(answer: EncodedAnswer, pad: int | None) -> EncodedAnswer:
    """The answer up to its last token that is not padding, where AutoModelForSequenceClassification reads its score.

    Where the pad token is EOS, that is the token before EOS; what follows it cannot change the score.
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
    """Cut the start to fit: the end holds the answer's last words and the token that is read."""
    cut = 0 if limits.max_length is None else max(0, len(tokens) - limits.max_length)
    return EncodedAnswer(tokens[cut:], max(0, start - cut), cut, max(0, cut - start))


def _common(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with, such that every row keeps at least one more."""
    most = min(len(row) for row in rows) - 1
    first = rows[0]
    return next((index for index in range(most) if any(row[index] != first[index] for row in rows)), most)


def _by_item(encoded: Sequence[EncodedAnswer], items: Sequence[Item]) -> list[list[EncodedAnswer]]:
    iterator = iter(encoded)
    return [[next(iterator) for _ in item.answers] for item in items]
