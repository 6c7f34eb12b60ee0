"""Messages to token ids and trained mask through the chat template: rendered once, tokenised once."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from tulu.config.templates import TEMPLATES
from tulu.data.turns import Turn, header_length, turn_span
from tulu.errors import DataError, RecipeError
from tulu.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Train = Literal["all", "last"]
Span = tuple[int, int]

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation's tokens, and the token ranges that are trained (in order, disjoint)."""

    tokens: list[int]
    spans: list[Span]
    problem: str = ""
    """Why the template could not render it, or why its turns could not be found; then nothing is trained."""

    @property
    def trained(self) -> list[bool]:
        """One flag per token."""
        flags = [False] * len(self.tokens)
        for start, end in self.spans:
            flags[start:end] = [True] * (end - start)
        return flags


def apply_template(tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
    """Give the tokenizer a template of `TEMPLATES`, or check that it has its own (`tokenizer`); RecipeError otherwise."""
    if name == "tokenizer":
        if not tokenizer.chat_template:
            name = tokenizer.name_or_path or "(unnamed)"
            raise RecipeError(
                f"template: the tokenizer {name} has no chat template; set template to one of {', '.join(TEMPLATES)}"
            )
        return
    if name not in TEMPLATES:
        near = get_close_matches(name, [*TEMPLATES, "tokenizer"], n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise RecipeError(f"template: unknown template {name!r}; {guess}known are {', '.join(TEMPLATES)}, tokenizer")
    for token in ("bos_token", "eos_token"):
        if token in TEMPLATES[name] and tokenizer.special_tokens_map.get(token) is None:
            raise RecipeError(f"template: {name} writes {token}, which this tokenizer does not have; choose another template")
    tokenizer.chat_template = TEMPLATES[name]


def template_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """First 16 hex digits of the SHA-256 of the template's source; empty where there is none."""
    if not tokenizer.chat_template:
        return ""
    return hashlib.sha256(tokenizer.get_chat_template().encode()).hexdigest()[:16]


def encode(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], train: Train) -> tuple[list[int], list[bool]]:
    """Tokens and trained flags (one per token) of a conversation.

    Trained are the tokens that overlap [end of the assistant's header, end of its turn, end-of-turn token included], for all
    of the assistant's turns or the last; none where that cannot be derived (as open-instruct's
    _tokenize_tulu_sft_with_assistant_labels, dataset_transformation.py @ e6c3044a).
    """
    encoded = encode_batch(tokenizer, [messages], train)[0]
    return encoded.tokens, encoded.trained


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """Tokens of the messages followed by the template's generation prompt."""
    encoded = encode_prompts(tokenizer, [messages])[0]
    if encoded.problem:
        raise DataError(f"the chat template refuses this prompt: {encoded.problem}")
    return encoded.tokens


def encode_prompts(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Sequence[Message]]) -> list[Encoded]:
    """`encode_prompt` of many; nothing is trained."""
    texts = _render(tokenizer, chats, prompt=True)
    encodings = tokenize(tokenizer, [text if isinstance(text, str) else "" for text in texts])
    return [
        Encoded(encoding.ids, []) if isinstance(text, str) else Encoded([], [], str(text))
        for text, encoding in zip(texts, encodings, strict=True)
    ]


def encode_batch(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Sequence[Message]], train: Train) -> list[Encoded]:
    """`encode` of many conversations, tokenised side by side."""
    spanned = _marked(tokenizer, chats) if _MARKS.search(tokenizer.get_chat_template()) else _derived(tokenizer, chats, train)
    encodings = tokenize(tokenizer, [text for text, _, _ in spanned])
    result = []
    for (text, spans, problem), encoding in zip(spanned, encodings, strict=True):
        chosen = spans[-1:] if train == "last" else spans
        result.append(Encoded(encoding.ids, _to_tokens(encoding, text, chosen), problem))
    return result


def tokenize(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[Any]:
    """Rust encodings (`ids`, `char_to_token`) without added special tokens; a tokenizer without offsets is a DataError."""
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} has no offsets, which the trained mask needs; "
            "save a fast tokenizer (tokenizer.json) beside the model: AutoTokenizer.from_pretrained(MODEL).save_pretrained(MODEL)"
        )
    if not texts:
        return []
    batch = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return list(batch.encodings or [])


def _to_tokens(encoding: Any, text: str, spans: Sequence[Span]) -> list[Span]:
    """Character ranges to the ranges of tokens that overlap them; ranges without a token fall away."""

    def first_at(char: int) -> int:
        # Characters that the tokenizer drops belong to no token.
        for position in range(char, len(text)):
            if (token := encoding.char_to_token(position)) is not None:
                return int(token)
        return len(encoding.ids)

    found: list[Span] = []
    for start, end in spans:
        first, after = first_at(start), first_at(end)
        if after < len(encoding.ids) and encoding.token_to_chars(after)[0] < end:
            after += 1  # one token holds the turn's end and what follows
        first = max(first, found[-1][1] if found else 0)
        if first < after:
            found.append((first, after))
    return found


def _render(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Sequence[Message]], prompt: bool) -> list[str | Exception]:
    """Each chat's text, or what the template raised."""
    from jinja2 import TemplateError

    if not chats:
        return []
    batch: Any = [list(chat) for chat in chats]
    try:
        return list(tokenizer.apply_chat_template(batch, tokenize=False, add_generation_prompt=prompt))
    except (TemplateError, TypeError, ValueError) as error:
        if len(chats) == 1:
            return [error]
        return [text for chat in chats for text in _render(tokenizer, [chat], prompt)]


def _marked(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Sequence[Message]]) -> list[tuple[str, list[Span], str]]:
    """(text, trained character ranges, problem) where the template itself marks what the assistant generates."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    result: list[tuple[str, list[Span], str]] = []
    for chat in chats:
        conversations: Any = [list(chat)]
        options: dict[str, Any] = {"return_assistant_tokens_mask": True, **tokenizer.special_tokens_map}
        rendered: Any
        try:
            rendered = render_jinja_template(conversations, chat_template=tokenizer.get_chat_template(), **options)
        except (TemplateError, TypeError, ValueError) as error:
            result.append(("", [], f"the template refuses it: {error}"))
            continue
        result.append((rendered[0][0], [(int(start), int(end)) for start, end in rendered[1][0]], ""))
    return result


def _derived(
    tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Sequence[Message]], train: Train
) -> list[tuple[str, list[Span], str]]:
    """(text, trained character ranges, problem) from renderings of the conversation's beginnings."""
    turns: list[Turn] = []
    for index, chat in enumerate(chats):
        places = [place for place, message in enumerate(chat) if message["role"] == "assistant"]
        turns += [Turn(index, place, chat[place]["content"]) for place in (places[-1:] if train == "last" else places)]
    texts = _render(tokenizer, chats, prompt=False)
    # Templates are not asked for an empty conversation: most cannot render one.
    late = [turn for turn in turns if turn.place > 0]
    heads = _render(tokenizer, [chats[turn.chat][: turn.place] for turn in late], prompt=True)
    inner = [turn for turn in turns if turn.place + 1 < len(chats[turn.chat])]
    tails = _render(tokenizer, [chats[turn.chat][: turn.place + 1] for turn in inner], prompt=False)
    head_of = dict(zip([turn.key for turn in late], heads, strict=True))
    tail_of = dict(zip([turn.key for turn in inner], tails, strict=True))
    stops = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]

    spans: list[list[Span]] = [[] for _ in chats]
    problems = [f"the template refuses it: {text}" if isinstance(text, Exception) else "" for text in texts]
    for turn in turns:
        full = texts[turn.chat]
        if isinstance(full, Exception):
            continue
        head, tail = head_of.get(turn.key), tail_of.get(turn.key, full)
        if turn.place == 0:
            head = full[: header_length(full, *_probe(tokenizer))]
        span = None
        if isinstance(tail, str):
            before = _before(tokenizer, chats[turn.chat], turn.place, full, head)
            span = turn_span(full, head if isinstance(head, str) else "", tail, turn.content, before, stops)
        if span is None:
            problems[turn.chat] = "the template does not show where the assistant's turn begins and ends"
        else:
            spans[turn.chat].append(span)
    return [
        (text if isinstance(text, str) else "", [] if problem else found, problem)
        for text, found, problem in zip(texts, spans, problems, strict=True)
    ]


def _before(
    tokenizer: "PreTrainedTokenizerBase", chat: Sequence[Message], place: int, full: str, head: str | Exception | None
) -> str | None:
    """The text before a turn without the generation prompt, where the prompt rendering does not fit; None where not needed."""
    if place == 0 or (isinstance(head, str) and full.startswith(head)):
        return None
    text = _render(tokenizer, [chat[:place]], prompt=False)[0]
    return text if isinstance(text, str) else None


def _probe(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """A lone user turn without and with the generation prompt: their difference is the assistant's header."""
    chat: list[Message] = [{"role": "user", "content": "?"}]
    plain, prompted = (_render(tokenizer, [chat], prompt)[0] for prompt in (False, True))
    return (plain, prompted) if isinstance(plain, str) and isinstance(prompted, str) else ("", "")


def make_byte_tokenizer() -> "PreTrainedTokenizerFast":
    """One token a byte (ids 0-255), <|endoftext|> (256: end and beginning of text), <|pad|> (257); no chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # ByteLevel shows bytes that are not printable as the characters from 256 on (openai/gpt-2, src/encoder.py).
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}
    backend = Tokenizer(models.BPE(vocab={shown[byte]: byte for byte in range(256)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|endoftext|>", special=True), AddedToken("<|pad|>", special=True)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
    )
