"""Messages to text through a tokenizer's chat template, spelled as the template reads them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from tulu.data.marks import Mark, add_marks, parts_left_out, read_marks
from tulu.types import Message, Tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TODAY = datetime(2024, 7, 26)
"""The date that templates write where they write today's (Llama 3.1, gpt-oss): the same recipe makes the same tokens on any day.
It is the one that Llama 3.1's template falls back to."""

_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
"""What opens the part of a template that the assistant generates: {% generation %}."""
_FAULTS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a template raises, on purpose or because a message is not as it expects."""


class Refused(Exception):
    """The template cannot render a conversation; the text says why."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How messages are handed to a template: templates differ in what they expect of tool calls and of contents."""

    arguments: type | None = None
    """Arguments of tool calls as text (str) or as an object (dict); None leaves them as they are."""
    no_content: bool = False
    """Whether an empty content beside tool calls becomes None."""
    parts: bool = False
    """Whether a content is a list of parts, as models that see images have it."""

    def of(self, chat: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages in this spelling, without the keys that are not for templates."""
        if self == PLAIN:
            return [{key: value for key, value in one.items() if key != "train"} if "train" in one else dict(one) for one in chat]
        return [self._message(message) for message in chat]

    def _message(self, message: Message) -> dict[str, Any]:
        spelled: dict[str, Any] = dict(message)
        spelled.pop("train", None)
        calls = spelled.get("tool_calls")
        if calls and isinstance(calls, list):
            if self.arguments is not None:
                spelled["tool_calls"] = [_spell_arguments(call, self.arguments) for call in calls]
            if self.no_content and not spelled["content"]:
                spelled["content"] = None
        if self.parts and spelled["content"] is not None:
            spelled["content"] = [{"type": "text", "text": spelled["content"]}]
        return spelled


PLAIN = Spelling()
_FOR_CALLS = (Spelling(str), Spelling(dict), *(Spelling(kind, no_content=True) for kind in (None, str, dict)))


@dataclass(frozen=True, slots=True)
class Rendering:
    """A conversation as text, and where its parts stand in it."""

    text: str
    chat: Sequence[Message]
    tools: Tools
    spelling: Spelling = PLAIN
    everywhere: bool = True
    """Whether all messages were marked, or only the assistant's."""
    places: Mapping[Mark, int] = field(default_factory=dict)
    """Where the marks stand (`tulu.data.marks`); none where marks would have changed the text."""
    left_out: tuple[int, ...] = ()
    """The messages of which a content or a tool call does not stand in the text."""
    shortened: tuple[int, ...] = ()
    """The messages of which only the thoughts do not."""


class Renderer:
    """Renders conversations through the template of one tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.options: dict[str, Any] = {**tokenizer.special_tokens_map, "strftime_now": TODAY.strftime}
        self._templates: dict[bool, str] = {}
        self._takes_parts: bool | None = None

    def template(self, tools: Tools = ()) -> str:
        """The source of the template; some tokenizers have one of their own for conversations with tools."""
        key = bool(tools)
        if key not in self._templates:
            # Which one it is depends on whether there are tools, not on what they are.
            self._templates[key] = self.tokenizer.get_chat_template(tools=list(tools) or None)  # type: ignore[arg-type]
        return self._templates[key]

    def has_generation(self, tools: Tools = ()) -> bool:
        """Whether the template marks what the assistant generates."""
        return _GENERATION.search(self.template(tools)) is not None

    def text(self, chat: Sequence[Message], tools: Tools = (), prompt: bool = False, spelling: Spelling = PLAIN) -> str:
        """The conversation as text, with the generation prompt behind it if asked; Refused where the template raises."""
        text, _ = self._render(spelling.of(chat), tools, add_generation_prompt=prompt)
        return text

    def generated(self, rendering: Rendering) -> list[tuple[int, int]]:
        """The ranges of characters that the template marks with {% generation %}."""
        chat = rendering.spelling.of(rendering.chat)
        _, ranges = self._render(chat, rendering.tools, return_assistant_tokens_mask=True)
        return [(int(start), int(end)) for start, end in ranges[0]]

    def beginning(self, rendering: Rendering, count: int, prompt: bool) -> tuple[str, Mapping[Mark, int]]:
        """The first messages of a conversation as text of their own, and the places of its marks; Refused as `text`."""
        chat = rendering.chat[:count]
        if not rendering.places:
            return self.text(chat, rendering.tools, prompt, rendering.spelling), {}
        marked, _ = add_marks(chat, rendering.everywhere)
        return read_marks(self.text(marked, rendering.tools, prompt, rendering.spelling))

    def whole(self, chat: Sequence[Message], tools: Tools = (), prompt: bool = False) -> Rendering:
        """The conversation in the first spelling in which nothing of it is left out, else that which leaves out least.

        Refused where the template takes it in no spelling, with what it said to the plain one.
        """
        best: Rendering | None = None
        refusal: Refused | None = None
        for spelling in _spellings(chat, self.takes_parts):
            try:
                rendering = self._marked(chat, tools, prompt, spelling)
            except Refused as error:
                refusal = refusal or error
                continue
            if best is None or len(rendering.left_out) < len(best.left_out):
                best = rendering
            if not rendering.left_out:
                break
        if best is None:
            raise refusal or Refused("it renders the conversation in no spelling")
        return best

    @property
    def takes_parts(self) -> bool:
        """Whether the template reads contents as lists of parts alone, which is asked once, so that no row depends on others."""
        if self._takes_parts is None:
            # Parts are tried only where text fails: an error of jinja holds the frames of all callers until they are collected.
            self._takes_parts = not self._shows(parts=False) and self._shows(parts=True)
        return self._takes_parts

    def _shows(self, parts: bool) -> bool:
        """Whether the template renders contents that are text, or lists of parts."""
        chat: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "?"}]
        try:
            rendering = self._marked(chat, (), False, Spelling(parts=parts))
        except Refused:
            return False
        # A list that is written as Python shows it is no rendering of its parts.
        return not rendering.left_out and "{'type': 'text'" not in rendering.text

    def _marked(self, chat: Sequence[Message], tools: Tools, prompt: bool, spelling: Spelling) -> Rendering:
        """The conversation's text, with the places of all marks that did not change it."""
        text = self.text(chat, tools, prompt, spelling)
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                half = ascii(text[error.start])[1:-1]
                message = f"a tool, a tool call or another field holds half a surrogate pair ({half}), which no tokenizer takes"
                raise Refused(f"{message}; repair the text") from None
        for everywhere in (True, False):
            marked, kinds = add_marks(chat, everywhere)
            try:
                plain, places = read_marks(self.text(marked, tools, prompt, spelling)) if kinds else ("", {})
            except Refused:
                continue
            if plain == text and kinds:
                gone, cut = parts_left_out(chat, kinds, places)
                if not everywhere:
                    gone |= _not_in(text, chat) - {index for index, _ in kinds}
                return Rendering(text, chat, tools, spelling, everywhere, places, tuple(sorted(gone)), tuple(sorted(cut)))
        return Rendering(text, chat, tools, spelling, left_out=tuple(sorted(_not_in(text, chat))))

    def _render(self, chat: list[dict[str, Any]], tools: Tools, **options: Any) -> tuple[str, Any]:
        from transformers.utils.chat_template_utils import render_jinja_template

        every: Any = {"conversations": [chat], "tools": list(tools) or None, "chat_template": self.template(tools)}
        try:
            rendered: Any = render_jinja_template(**every, **self.options, **options)
        except _FAULTS as error:
            raise Refused(str(error) or type(error).__name__) from error
        texts, ranges = rendered
        return str(texts[0]), ranges


def _spellings(chat: Sequence[Message], parts: bool) -> Iterator[Spelling]:
    """The spellings to try, in order; `parts` says that contents are lists of parts."""
    yield Spelling(parts=parts)
    if any(message.get("tool_calls") for message in chat):
        yield from (replace(spelling, parts=parts) for spelling in _FOR_CALLS)


def _spell_arguments(call: Any, kind: type) -> Any:
    """A tool call whose arguments are JSON text, or the object that such text holds."""
    if not isinstance(call, Mapping):
        return call
    if isinstance(inner := call.get("function"), Mapping):
        return {**call, "function": _spell_arguments(inner, kind)}
    value = call.get("arguments")
    if kind is str and isinstance(value, Mapping):
        return {**call, "arguments": json.dumps(value, ensure_ascii=False)}
    if kind is dict and isinstance(value, str):
        try:
            return {**call, "arguments": json.loads(value)}
        except json.JSONDecodeError:
            return call
    return call


def _not_in(text: str, chat: Sequence[Message]) -> set[int]:
    """The messages whose content cannot be read in the text, in their order; a system's turn may stand anywhere."""
    missing, place = set(), 0
    for index, message in enumerate(chat):
        content = message["content"].rpartition("</think>")[2].strip()
        found = text.find(content, 0 if message["role"] == "system" else place)
        if found < 0:
            missing.add(index)
        elif message["role"] != "system":
            place = found + len(content)
    return missing
