"""The turns of an episode as tokens: what a policy called, and the tokens that a template writes after its turn.

Tokens in, tokens out: a turn that was sampled is never rendered again. What follows it is made once, from a short conversation
that ends in the same calls and results, and a template in which that would be another text than in the whole conversation
is refused before anything is sampled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from tulu.data.chat import tokenize
from tulu.data.render import Refused, Renderer
from tulu.data.turns import TurnFinder
from tulu.errors import RecipeError
from tulu.types import Message, Tools
from tulu.verifiers.call_forms import Untyped, before_calls, calls_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLACE = "\ue0e0"
"""A character of no language, by which the end of the user's message is found in a rendered prompt."""
TAKES_TOOLS = "olmo-3-tokenizer-instruct-dev"
"""A named template that holds calls of tools and their results."""
_SHOWN = 40
"""Characters that are shown of each text where two of them part."""


_USUAL_TOKEN = 8
"""Characters that hardly any text has more of to a token; where one has, more of it is looked at."""


class TooLong(Exception):
    """What tools or users said has more tokens than an episode has room for."""


@dataclass(frozen=True)
class ToolCall:
    """A call that a policy made."""

    id: str
    """Unique in its episode; the result goes back under it."""
    name: str
    arguments: Mapping[str, Any]

    def spelled(self) -> dict[str, Any]:
        """The call as chat templates take it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": dict(self.arguments)}}


class Turns:
    """Reads and continues the turns of one tokenizer's template with one set of tools."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", tools: Tools) -> None:
        self.tokenizer, self.tools = tokenizer, tools
        self.names = [str(tool["function"]["name"]) for tool in tools]
        self.finder = TurnFinder.of(tokenizer)
        self.renderer: Renderer = self.finder.renderer
        self._made = 0

    def read(self, tokens: Sequence[int], turn: int) -> list[ToolCall]:
        """The calls of a sampled turn, in order; none where it is the answer that ends an episode.

        A call that cannot be read, and prose that mentions no tool of this environment, are an answer too.
        """
        return self._calls(self._open_ended(str(self.tokenizer.decode(list(tokens), skip_special_tokens=False))), turn)

    def _calls(self, text: str, turn: int) -> list[ToolCall]:
        try:
            calls = calls_in(text.rpartition("</think>")[2])
        except (ValueError, RecursionError):
            return []
        if not any(name in self.names for name, _ in calls):
            return []
        # JSON can spell half a surrogate pair, which no tokenizer takes: what a policy writes must not make its episode fail.
        if any(_is_torn(arguments) for _, arguments in calls):
            return []
        # Nine letters and digits are what every template takes; Mistral's takes nothing else.
        return [
            ToolCall(f"call{turn:03d}{number:02d}", name, {key: _typed(value) for key, value in arguments.items()})
            for number, (name, arguments) in enumerate(calls)
        ]

    def said(self, tokens: Sequence[int], calls: Sequence[ToolCall]) -> tuple[str, str | None]:
        """What a turn says as text, without its calls, and what it thought before."""
        text = self._open_ended(str(self.tokenizer.decode(list(tokens), skip_special_tokens=False)))
        thought, closed, rest = text.rpartition("</think>")
        content = before_calls(rest) if calls else rest
        return content.strip(), thought.replace("<think>", "").strip() if closed else None

    def further(self, calls: Sequence[ToolCall], messages: Sequence[Mapping[str, Any]], most: int | None = None) -> list[int]:
        """As `after`, of messages of tools and then users. Raises RecipeError where they are not the results of the calls."""
        results = [one for one in messages if one["role"] == "tool"]
        users = [one["content"] for one in messages if one["role"] != "tool"]
        if [one["call"] for one in results] != [call.id for call in calls]:
            raise RecipeError(f"the calls {[call.id for call in calls]} got the results of {[one['call'] for one in results]}")
        if list(messages[: len(results)]) != results:
            raise RecipeError("a user spoke before the results of tools were there")
        return self.after(calls, [one["content"] for one in results], users, most)

    def after(
        self, calls: Sequence[ToolCall], results: Sequence[str], users: Sequence[str] = (), most: int | None = None
    ) -> list[int]:
        """The tokens between a turn with these calls and the next: results, in the order of the calls, what users said, and
        generation prompt.

        Raises RecipeError where the template refuses them, and TooLong where they surely have more tokens than `most`.
        """
        self._limit([*results, *users], most)
        text = self._text_after(calls, *([self.defused(text) for text in texts] for texts in (results, users)))
        return self._tokens(text)

    def _text_after(self, calls: Sequence[ToolCall], results: Sequence[str], users: Sequence[str] = ()) -> str:
        chat = [_user("?"), _calling(calls, "?"), *_answers(calls, results), *map(_user, users)]
        try:
            rendering = self.renderer.whole(chat, self.tools, prompt=True)
        except Refused as error:
            raise RecipeError(f"template: it refuses the results of tools: {error}; set a template that takes them") from error
        turn = self.finder.find(rendering, 1)
        if turn is None:
            raise RecipeError(
                "template: it does not show where a turn with calls of tools ends: behind them stands no special token of the "
                f"tokenizer ({', '.join(self.finder.stops) or 'it has none'})\n"
                f"It writes {rendering.text[-_SHOWN * 3 :]!r} there; add the token that ends a turn to the tokenizer as a "
                "special one, or set a template that ends turns with one of these"
            )
        if missing := [index for index in rendering.left_out if index > 1]:
            what = f"the result of {calls[missing[0] - 2].name}" if missing[0] - 2 < len(calls) else "what a user says"
            raise RecipeError(f"template: it leaves out {what}; set another")
        return rendering.text[turn[1] :]

    def defused(self, text: str) -> str:
        """A tool's text in which no special token stands: what a program prints must not end a turn or begin one.

        Half a surrogate pair, which names of files may hold and no tokenizer takes, becomes the sign for what cannot be shown.
        """
        if not text.isascii():
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        for token in self.finder.stops:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def split_prompt(self, messages: Sequence[Message]) -> tuple[list[int], str]:
        """A prompt's tokens up to the end of the user's last message, and the template's text from there on.

        Raises RecipeError where the template does not write that message as it is.
        """
        last = max(index for index, message in enumerate(messages) if message["role"] == "user")
        marked = [dict(message) for message in messages]
        marked[last]["content"] = messages[last]["content"] + _PLACE
        try:
            text = self.renderer.whole(cast(Any, marked), self.tools, prompt=True).text
        except Refused as error:
            raise RecipeError(f"template: it refuses a prompt: {error}; set another") from error
        head, found, tail = text.partition(_PLACE)
        if not found:
            raise RecipeError("template: it does not write the user's message as it is, so nothing can be appended to it")
        return self._tokens(head), tail

    def appended(self, text: str, tail: str, behind: bool = True, most: int | None = None) -> list[int]:
        """The tokens of what `reset` returned, behind the user's message or as that message, and of the rest of the prompt.

        Raises TooLong as `after` does.
        """
        self._limit([text], most)
        return self._tokens(("\n\n" if text and behind else "") + self.defused(text) + tail)

    def _limit(self, texts: Sequence[str], most: int | None) -> None:
        """Raise TooLong where one of these texts surely has more tokens than `most`.

        A tool may return what would take minutes and gigabytes to tokenise. So the begin of a text is tokenised that has as many
        in usual text; where it has twice as many, so has the whole, whatever is joined at the cut.
        """
        if most is None:
            return
        for text in texts:
            part = _USUAL_TOKEN * (most + 1)
            while part < len(text):
                if len(self._tokens(self.defused(text[:part]))) > 2 * most:
                    raise TooLong
                part *= _USUAL_TOKEN

    def _tokens(self, text: str) -> list[int]:
        return list(tokenize(self.tokenizer, [text])[0].ids)

    def check(self) -> None:
        """Raise RecipeError where the template cannot hold an episode: it rewrites earlier turns, or its calls are not read."""
        if not self.names:
            return
        first = [ToolCall(f"call{0:03d}{number:02d}", self.names[0], {"x": f"{number}1"}) for number in range(2)]
        second = [ToolCall(f"call{1:03d}{0:02d}", self.names[-1], {"x": "31"})]
        thought = "<think>\nOne more.\n</think>\n\n"
        turns = [_calling(first, thought), *_answers(first, ["41", "42"]), _calling(second, ""), *_answers(second, ["43"])]
        chat: list[Message] = [_user("1+1=?"), *turns, {"role": "assistant", "content": "2"}]
        # What is shown when each turn is sampled, and what is there when it has ended.
        moments = [(1, True), (2, False), (4, True), (5, False), (6, True), (7, False)]
        try:
            spelling = self.renderer.whole(chat, self.tools).spelling
            texts = [self.renderer.text(chat[:count], self.tools, prompt, spelling) for count, prompt in moments]
        except Refused as error:
            raise RecipeError(
                f"template: it refuses calls of tools and their results: {error}; set one that takes them, such as {TAKES_TOOLS} "
                "(docs/environments.md says what it must do)"
            ) from error
        for before, after in zip(texts, texts[1:], strict=False):
            # The last turn may end otherwise than those before it. The policy chooses its end, which stays as it was sampled.
            if not after.startswith(shown := self._open_ended(before)):
                raise RecipeError(f"template: it rewrites earlier turns: {_parted(shown, after)}; set another template")
        if thought.strip() not in texts[-1]:
            raise RecipeError("template: it leaves out thoughts that stand before a call, which the policy has read; set another")
        self._check_calls(first, texts)
        follows = self._text_after(second, ["43"])
        if not texts[4].endswith(follows):
            other = texts[4][-len(follows) :]
            raise RecipeError(f"template: behind a second turn it writes {other!r}, behind the first {follows!r}; set another")

    def check_users(self) -> None:
        """Raise RecipeError where the template rewrites earlier turns once a user speaks again."""
        thought = "<think>\nOne more.\n</think>\n\n"
        chat: list[Message] = [_user("1+1=?"), _calling((), f"{thought}2"), _user("2+2=?"), _calling((), "4")]
        try:
            spelling = self.renderer.whole(chat, self.tools).spelling
            texts = [self.renderer.text(chat[:count], self.tools, count % 2 == 1, spelling) for count in (1, 2, 3, 4)]
        except Refused as error:
            raise RecipeError(f"template: it refuses a second message of a user: {error}; set another") from error
        for before, after in zip(texts, texts[1:], strict=False):
            if not after.startswith(shown := self._open_ended(before)):
                raise RecipeError(f"template: it rewrites earlier turns: {_parted(shown, after)}; set another template")
        follows = self._text_after((), (), ["2+2=?"])
        if thought.strip() not in texts[-1] or not texts[2].endswith(follows):
            raise RecipeError("template: it writes a turn otherwise once a user speaks behind it; set another template")

    def _open_ended(self, text: str) -> str:
        """A text without the token that ends its last turn."""
        text = text.rstrip()
        return next((text.removesuffix(stop) for stop in self.finder.stops if text.endswith(stop)), text)

    def _check_calls(self, made: Sequence[ToolCall], texts: Sequence[str]) -> None:
        """Raise RecipeError where calls that the template writes are read otherwise."""
        said = self._open_ended(texts[1])[len(texts[0].rstrip()) :]
        read = [(call.name, dict(call.arguments)) for call in self._calls(said, 0)]
        expected = [(call.name, dict(call.arguments)) for call in made]
        if [(name, {key: str(value) for key, value in arguments.items()}) for name, arguments in read] != expected:
            raise RecipeError(
                f"template: it writes calls of tools as {said[-_SHOWN * 3 :]!r}, of which {read} is read; use the template "
                "that the model's tokenizer has, or one that writes calls as <tool_call>...</tool_call>"
            )


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _calling(calls: Sequence[ToolCall], content: str) -> Message:
    turn: Message = {"role": "assistant", "content": content}
    return {**turn, "tool_calls": [call.spelled() for call in calls]} if calls else turn


def _answers(calls: Sequence[ToolCall], results: Sequence[str]) -> list[Message]:
    """The results as messages of tools, each with the id of its call."""
    pairs = zip(calls, results, strict=True)
    return [cast(Any, {"role": "tool", "name": one.name, "tool_call_id": one.id, "content": text}) for one, text in pairs]


def _is_torn(value: Any) -> bool:
    """Whether half a surrogate pair stands in the arguments of a call."""
    if isinstance(value, str):
        return not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value)
    within = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return any(map(_is_torn, within))


def _typed(value: Any) -> Any:
    return value.value() if isinstance(value, Untyped) else value


def _parted(before: str, after: str) -> str:
    place = next((at for at, (x, y) in enumerate(zip(before, after, strict=False)) if x != y), min(len(before), len(after)))
    start = max(0, place - 8)
    return f"{before[start : start + _SHOWN]!r} becomes {after[start : start + _SHOWN]!r}"
