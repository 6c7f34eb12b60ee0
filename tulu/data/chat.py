"""Messages to token ids and trained flags through the chat template; each conversation is rendered and tokenised once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tulu.config.templates import OWN, TEMPLATES, hash_problem, source_hash, source_of
from tulu.data.messages import ROLES
from tulu.data.render import Refused, Renderer, Rendering
from tulu.data.turns import Span, TurnFinder
from tulu.errors import DataError, RecipeError
from tulu.types import Message, Tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Train = Literal["all", "last"]

_LEFT_OUT = "the template leaves out a turn of the assistant, or the tools that it calls; set another template"
_NO_TURNS = (
    "the template does not show where the assistant's turn begins and ends; write {% generation %} and {% endgeneration %} "
    "around the assistant's part in the tokenizer's chat template, or set another template"
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of a conversation, and the ranges [start, end) of tokens that are trained, in order and disjoint."""

    tokens: list[int]
    spans: list[Span]
    problem: str = ""
    """Why the template cannot render the conversation, or why its turns cannot be located; then nothing is trained."""
    left_out: tuple[int, ...] = ()
    """The messages that the template leaves out: their content, or a tool that they call, does not stand in the text."""
    shortened: tuple[int, ...] = ()
    """The messages of which it leaves out only the thoughts."""

    @property
    def trained(self) -> list[bool]:
        """Whether each token is trained."""
        flags = [False] * len(self.tokens)
        for start, end in self.spans:
            flags[start:end] = [True] * (end - start)
        return flags


def apply_template(tokenizer: "PreTrainedTokenizerBase", name: str, pinned: str | None = None) -> None:
    """Give the tokenizer a template by name or from a file, or check that it has its own (the name `tokenizer`).

    `pinned` is the hash that the recipe gives the template. RecipeError where there is no such template, or another one.
    """
    source = source_of(name)
    if source is None:
        _apply_own(tokenizer, name.partition(":")[2])
    else:
        for token in ("bos_token", "eos_token"):
            written = token in source and f"{token} is defined" not in source
            if written and tokenizer.special_tokens_map.get(token) is None:
                raise RecipeError(f"template: {name} writes {token}, which this tokenizer does not have; choose another template")
        tokenizer.chat_template = source
    if problem := hash_problem(tokenizer.get_chat_template(), pinned):
        raise RecipeError(f"template_hash: {pinned}: {problem}")


def _apply_own(tokenizer: "PreTrainedTokenizerBase", chosen: str) -> None:
    """Choose one of the templates that the tokenizer brings along, its default where none is named."""
    own = tokenizer.chat_template
    if chosen:
        if not isinstance(own, dict) or chosen not in own:
            names = ", ".join(f"{OWN}:{each}" for each in sorted(own)) if isinstance(own, dict) else OWN
            raise RecipeError(f"template: the tokenizer has no chat template {chosen!r}; set template to one of {names}")
        tokenizer.chat_template = own[chosen]
    elif not own:
        name = tokenizer.name_or_path or "(unnamed)"
        known = ", ".join(TEMPLATES)
        raise RecipeError(f"template: the tokenizer {name} has no chat template; set template to one of {known}, or to a file")
    elif isinstance(own, dict) and "default" not in own:
        names = ", ".join(f"{OWN}:{each}" for each in sorted(own))
        raise RecipeError(f"template: this tokenizer has several chat templates and no default; set it to one of {names}")


def template_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """First 16 hex digits of the SHA-256 of the template's source; empty for a tokenizer without template."""
    return source_hash(tokenizer.get_chat_template()) if tokenizer.chat_template else ""


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
    renderer = Renderer(tokenizer)
    rendered: list[tuple[Rendering | None, str]] = []
    for chat, own in _with_tools(chats, tools):
        try:
            rendered.append((renderer.whole(chat, own, prompt=True), ""))
        except Refused as error:
            rendered.append((None, f"{error}{_role_cure(chat)}"))
    encodings = tokenize(tokenizer, [rendering.text if rendering else "" for rendering, _ in rendered])
    return [
        Encoded(encoding.ids, [], "", rendering.left_out, rendering.shortened) if rendering else Encoded([], [], problem)
        for (rendering, problem), encoding in zip(rendered, encodings, strict=True)
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
    finder = TurnFinder.of(tokenizer)
    located = [_locate(finder, chat, own, train) for chat, own in _with_tools(chats, tools)]
    encodings = tokenize(tokenizer, [found.text for found in located])
    return [
        Encoded(encoding.ids, _token_spans(encoding, found.text, found.spans), found.problem, found.left_out, found.shortened)
        for found, encoding in zip(located, encodings, strict=True)
    ]


def tokenize(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[Any]:
    """Encodings of the tokenizers library (`ids`, `char_to_token`) without added special tokens; DataError without offsets."""
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} has no offsets, which the trained mask needs; "
            "save a fast tokenizer (tokenizer.json) beside the model: AutoTokenizer.from_pretrained(MODEL).save_pretrained(MODEL)"
        )
    if not texts:
        return []
    backend: Any = tokenizer.backend_tokenizer
    # A saved tokenizer may say that it cuts or pads. What transformers would copy out of the encodings is not needed here.
    backend.no_truncation()
    backend.no_padding()
    return list(backend.encode_batch(list(texts), add_special_tokens=False))


def _token_spans(encoding: Any, text: str, spans: Sequence[Span]) -> list[Span]:
    """The ranges of tokens that overlap ranges of characters; ranges without a token fall away."""

    count = len(encoding)  # the list `ids` is made anew each time

    def first_token_at(char: int) -> int:
        # Characters that the tokenizer drops belong to no token.
        for position in range(char, len(text)):
            if (token := encoding.char_to_token(position)) is not None:
                return int(token)
        return count

    result: list[Span] = []
    for start, end in spans:
        first, after = first_token_at(start), first_token_at(end)
        if after < count and encoding.token_to_chars(after)[0] < end:
            after += 1  # one token holds the turn's end and what follows
        first = max(first, result[-1][1] if result else 0)
        if first < after:
            result.append((first, after))
    return result


def _with_tools(chats: Sequence[Sequence[Message]], tools: Sequence[Tools] | None) -> Iterator[tuple[Sequence[Message], Tools]]:
    """Every chat with its tools."""
    return zip(chats, tools if tools is not None else [()] * len(chats), strict=True)


@dataclass(frozen=True, slots=True)
class _Located:
    """A conversation as text, with its trained ranges of characters."""

    text: str = ""
    spans: Sequence[Span] = ()
    problem: str = ""
    left_out: tuple[int, ...] = ()
    shortened: tuple[int, ...] = ()


def _locate(finder: TurnFinder, chat: Sequence[Message], tools: Tools, train: Train) -> _Located:
    """Render a conversation and find the turns of it that are trained."""
    try:
        rendering = finder.renderer.whole(chat, tools)
    except Refused as error:
        return _Located(problem=f"the template refuses it: {error}{_cure(finder, chat, tools)}")
    turns = [index for index, message in enumerate(chat) if message["role"] == "assistant"]
    wanted = [index for index in (turns[-1:] if train == "last" else turns) if chat[index].get("train", True)]
    spans = finder.marked(rendering, turns, wanted)
    if spans is None:
        found = [finder.find(rendering, index) for index in wanted]
        spans = [span for span in found if span is not None]
        if len(spans) < len(wanted):
            lost = {index for index, span in zip(wanted, found, strict=True) if span is None}
            reason = _LEFT_OUT if lost <= set(rendering.left_out) else _NO_TURNS
            return _Located(rendering.text, (), reason, rendering.left_out, rendering.shortened)
    return _Located(rendering.text, spans, "", rendering.left_out, rendering.shortened)


def _cure(finder: TurnFinder, chat: Sequence[Message], tools: Tools) -> str:
    """What helps against a refusal, where an odd role or the system's turn is its reason."""
    if cure := _role_cure(chat):
        return cure
    if len(chat) > 1 and chat[0]["role"] == "system":
        try:
            finder.renderer.whole(chat[1:], tools)
        except Refused:
            return ""
        return " (it takes no system turn: write that text into the first user turn, or set another template)"
    return ""


def _role_cure(chat: Sequence[Message]) -> str:
    """What helps against a refusal of a chat in which a role is none that templates usually know."""
    if all(message["role"] in ROLES for message in chat):
        return ""
    return f" (rename the role to one of {', '.join(ROLES)}, or set another template)"


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
