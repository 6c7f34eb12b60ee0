"""Messages to token ids and trained flags through the chat template; each conversation is rendered and tokenised once."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateError

from tulu.config.templates import TEMPLATES
from tulu.data.turns import header_length, turn_span
from tulu.errors import DataError, RecipeError
from tulu.types import Message, Tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Train = Literal["all", "last"]
Span = tuple[int, int]

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""What opens the part of a template that the assistant generates: {% generation %}."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of a conversation, and the ranges [start, end) of tokens that are trained, in order and disjoint."""

    tokens: list[int]
    spans: list[Span]
    problem: str = ""
    """Why the template cannot render the conversation, or why its turns cannot be located; then nothing is trained."""

    @property
    def trained(self) -> list[bool]:
        """Whether each token is trained."""
        flags = [False] * len(self.tokens)
        for start, end in self.spans:
            flags[start:end] = [True] * (end - start)
        return flags


def apply_template(tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
    """Give the tokenizer a template of `TEMPLATES`, or check that it has its own (the name `tokenizer`); RecipeError if not."""
    if name == "tokenizer":
        if not tokenizer.chat_template:
            name = tokenizer.name_or_path or "(unnamed)"
            raise RecipeError(
                f"template: the tokenizer {name} has no chat template; set template to one of {', '.join(TEMPLATES)}"
            )
        if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
            names = ", ".join(f"tokenizer:{own}" for own in sorted(tokenizer.chat_template))
            raise RecipeError(f"template: this tokenizer has several chat templates and no default; set it to one of {names}")
        return
    if name.startswith("tokenizer:"):
        own = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
        chosen = name.removeprefix("tokenizer:")
        if chosen not in own:
            names = ", ".join(f"tokenizer:{own}" for own in sorted(own)) or "tokenizer"
            raise RecipeError(f"template: the tokenizer has no chat template {chosen!r}; set template to one of {names}")
        tokenizer.chat_template = own[chosen]
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
    """First 16 hex digits of the SHA-256 of the template's source; empty for a tokenizer without template."""
    if not tokenizer.chat_template:
        return ""
    return hashlib.sha256(tokenizer.get_chat_template().encode()).hexdigest()[:16]


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], tools: Tools = ()) -> list[int]:
    """Tokens of the messages, followed by the template's generation prompt; DataError where the template refuses them."""
    encoded = encode_prompts(tokenizer, [messages], [tools])[0]
    if encoded.problem:
        raise DataError(f"the chat template refuses this prompt: {encoded.problem}")
    return encoded.tokens


def encode_prompts(
    tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Sequence[Message]], tools: Sequence[Tools] | None = None
) -> list[Encoded]:
    """`encode_prompt` of many prompts, tokenised side by side; a refusal of the template stands in `problem`.

    `tools` holds the tools of each prompt; None stands for none.
    """
    texts = [_render(tokenizer, chat, own, prompt=True) for chat, own in _with_tools(chats, tools)]
    encodings = tokenize(tokenizer, [text if isinstance(text, str) else "" for text in texts])
    return [
        Encoded(encoding.ids, []) if isinstance(text, str) else Encoded([], [], str(text))
        for text, encoding in zip(texts, encodings, strict=True)
    ]


def encode_batch(
    tokenizer: "PreTrainedTokenizerBase",
    chats: Sequence[Sequence[Message]],
    train: Train,
    tools: Sequence[Tools] | None = None,
) -> list[Encoded]:
    """Tokens and trained ranges of conversations, tokenised side by side. `tools` holds the tools of each, None for none.

    A token is trained if it overlaps one of the assistant's turns, from the end of the turn's header to the end of the turn, the
    end-of-turn token included; `train` selects all turns or the last. No token is trained where the turns cannot be located.
    This follows open-instruct's _tokenize_tulu_sft_with_assistant_labels (dataset_transformation.py @ e6c3044a).
    """
    if _MARKS.search(tokenizer.get_chat_template()):
        rendered = [_render_marked(tokenizer, chat, own) for chat, own in _with_tools(chats, tools)]
    else:
        stops = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        rendered = [_render_and_locate(tokenizer, chat, own, train, stops) for chat, own in _with_tools(chats, tools)]
    encodings = tokenize(tokenizer, [text for text, _, _ in rendered])
    result = []
    for (text, spans, problem), encoding in zip(rendered, encodings, strict=True):
        trained = spans[-1:] if train == "last" else spans
        result.append(Encoded(encoding.ids, _token_spans(encoding, text, trained), problem))
    return result


def tokenize(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[Any]:
    """Encodings of the tokenizers library (`ids`, `char_to_token`) without added special tokens; DataError without offsets."""
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} has no offsets, which the trained mask needs; "
            "save a fast tokenizer (tokenizer.json) beside the model: AutoTokenizer.from_pretrained(MODEL).save_pretrained(MODEL)"
        )
    if not texts:
        return []
    batch = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return list(batch.encodings or [])


def _token_spans(encoding: Any, text: str, spans: Sequence[Span]) -> list[Span]:
    """The ranges of tokens that overlap ranges of characters; ranges without a token fall away."""

    def first_token_at(char: int) -> int:
        # Characters that the tokenizer drops belong to no token.
        for position in range(char, len(text)):
            if (token := encoding.char_to_token(position)) is not None:
                return int(token)
        return len(encoding.ids)

    result: list[Span] = []
    for start, end in spans:
        first, after = first_token_at(start), first_token_at(end)
        if after < len(encoding.ids) and encoding.token_to_chars(after)[0] < end:
            after += 1  # one token holds the turn's end and what follows
        first = max(first, result[-1][1] if result else 0)
        if first < after:
            result.append((first, after))
    return result


def _with_tools(chats: Sequence[Sequence[Message]], tools: Sequence[Tools] | None) -> Iterator[tuple[Sequence[Message], Tools]]:
    """Every chat with its tools."""
    return zip(chats, tools if tools is not None else [()] * len(chats), strict=True)


def _render(
    tokenizer: "PreTrainedTokenizerBase", chat: Sequence[Message], tools: Tools = (), prompt: bool = False
) -> str | Exception:
    """The chat's text, or the error that the template raised."""
    options: Any = {"conversation": [list(chat)], "tools": list(tools) or None, "add_generation_prompt": prompt}
    try:
        return str(tokenizer.apply_chat_template(**options, tokenize=False)[0])
    except (TemplateError, TypeError, ValueError) as error:
        return error


def _render_marked(tokenizer: "PreTrainedTokenizerBase", chat: Sequence[Message], tools: Tools) -> tuple[str, list[Span], str]:
    """(text, trained character ranges, problem) by a template that marks what the assistant generates."""
    from transformers.utils.chat_template_utils import render_jinja_template

    options: Any = {"conversations": [list(chat)], "tools": list(tools) or None, **tokenizer.special_tokens_map}
    marked: Any = {"chat_template": tokenizer.get_chat_template(), "return_assistant_tokens_mask": True}
    try:
        rendered: Any = render_jinja_template(**marked, **options)
    except (TemplateError, TypeError, ValueError) as error:
        return "", [], f"the template refuses it: {error}"
    texts, ranges = rendered
    return texts[0], [(int(start), int(end)) for start, end in ranges[0]], ""


def _render_and_locate(
    tokenizer: "PreTrainedTokenizerBase", chat: Sequence[Message], tools: Tools, train: Train, stops: Sequence[str]
) -> tuple[str, list[Span], str]:
    """(text, trained character ranges, problem): turns are located by rendering the beginnings of the chat."""
    full = _render(tokenizer, chat, tools)
    if isinstance(full, Exception):
        return "", [], f"the template refuses it: {full}"
    places = [place for place, message in enumerate(chat) if message["role"] == "assistant"]
    spans: list[Span] = []
    for place in places[-1:] if train == "last" else places:
        before: str | Exception | None = None
        if place == 0:
            # Templates are not asked for an empty conversation: most cannot render one.
            head: str | Exception = full[: header_length(full, *_render_probe(tokenizer))]
        else:
            head = _render(tokenizer, chat[:place], tools, prompt=True)
            if isinstance(head, str) and not full.startswith(head):
                before = _render(tokenizer, chat[:place], tools)
        tail = _render(tokenizer, chat[: place + 1], tools) if place + 1 < len(chat) else full
        span = None
        if isinstance(head, str) and isinstance(tail, str):
            content = chat[place]["content"]
            span = turn_span(full, head, tail, content, before if isinstance(before, str) else None, stops)
        if span is None:
            return full, [], "the template does not show where the assistant's turn begins and ends"
        spans.append(span)
    return full, spans, ""


def _render_probe(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """A lone user turn, without and with the generation prompt: their difference is the assistant's header."""
    chat: list[Message] = [{"role": "user", "content": "?"}]
    plain, prompted = (_render(tokenizer, chat, prompt=prompt) for prompt in (False, True))
    return (plain, prompted) if isinstance(plain, str) and isinstance(prompted, str) else ("", "")


def make_byte_tokenizer() -> "PreTrainedTokenizerFast":
    """A tokenizer of bytes, without chat template: ids 0-255, <|endoftext|> (256, ends and begins texts) and <|pad|> (257)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    # ByteLevel shows bytes that are not printable as the characters from 256 on (openai/gpt-2, src/encoder.py).
    backend = Tokenizer(models.BPE(vocab={shown: byte for byte, shown in bytes_to_unicode().items()}, merges=[]))
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
