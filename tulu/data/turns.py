"""Locates the assistant's turns in a rendered conversation: what the model is to write after each generation prompt.

A turn begins where the generation prompt in front of it ends: that much stands in the prompt when the model is sampled. It ends
behind what the template writes after it when it is the last turn: the end-of-turn token, where there is one. Templates may render
a beginning of a conversation in other words than the whole: thoughts are cut from all turns but the last, another token ends the
last turn. So the places of messages in the text come from marks (`tulu.data.marks`), and only what stands between two messages
is compared. What has been learned about such a gap holds for all turns with the same gap, so a long conversation is not rendered
once for each turn.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tulu.data.marks import CALL, KINDS, Mark
from tulu.data.render import Refused, Renderer, Rendering
from tulu.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]

_LONGEST_HEADER = 4000
"""Gaps longer than this hold more than a header, so they do not come back."""


@dataclass(frozen=True, slots=True)
class _Opening:
    """What a template writes in front of the assistant's turn: all of it since the message before, and the generation prompt."""

    text: str | None
    header: str
    prompted: bool = False
    """Whether a generation prompt stands in it; some templates write none behind a turn of the assistant or a tool."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    """The generation prompt behind a lone user's turn, and whether that turn is rendered the same without it."""

    text: str
    exact: bool
    always: str = ""
    """What the template writes there whether a prompt is asked for or not, if that opens another turn."""


@dataclass(slots=True)
class TurnFinder:
    """Finds turns in the renderings of one tokenizer's template, and keeps what it learns about the gaps between messages."""

    renderer: Renderer
    stops: Sequence[str]
    """The special tokens, one of which ends a turn where nothing else shows its end."""
    _prompt: _Prompt | None = None
    _openings: dict[tuple[str, str], _Opening] = field(default_factory=dict)
    _closings: dict[str, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "TurnFinder":
        """A finder for the tokenizer's template."""
        return cls(Renderer(tokenizer), [token.content for token in tokenizer.added_tokens_decoder.values() if token.special])

    def find(self, rendering: Rendering, index: int) -> Span | None:
        """The range of characters of an assistant's turn, its end-of-turn token included; None where it does not show."""
        start = self._start(rendering, index)
        if start is None:
            return None
        end = self._end(rendering, index, start)
        return (start, end) if end is not None and start < end else None

    def marked(self, rendering: Rendering, turns: Sequence[int], wanted: Sequence[int]) -> list[Span] | None:
        """The ranges that the template itself marks as the wanted turns', without the generation prompt that some marks hold.

        None where it marks none of them, where some turn has no marks of its own, or where the marks hold what others say.
        """
        if not self.renderer.has_generation(rendering.tools):
            return None
        ranges = self.renderer.generated(rendering)
        others = [place for place, message in enumerate(rendering.chat) if message["role"] != "assistant"]
        begins = sorted(place for index in others if (place := first_mark(rendering, index)) is not None)
        if any(bisect_left(begins, start) != bisect_left(begins, end) for start, end in ranges):
            return None
        owners = turns if len(ranges) == len(turns) else _owners(rendering, ranges, turns)
        if not set(wanted) <= set(owners):
            return None
        header, spans = self.prompt.text, []
        for index, (start, end) in zip(owners, ranges, strict=True):
            if index in wanted:
                inside = bool(header) and rendering.text.startswith(header, start) and start != first_mark(rendering, index)
                spans.append((start + len(header) if inside else start, end))
        return spans

    @property
    def prompt(self) -> _Prompt:
        """The generation prompt, as far as it shows behind a lone user's turn."""
        if self._prompt is None:
            chat: list[Message] = [{"role": "user", "content": "?"}]
            try:
                rendering = self.renderer.whole(chat)
                (plain, places), (prompted, _) = (self.renderer.beginning(rendering, 1, prompt) for prompt in (False, True))
                behind = plain[max(places.values(), default=len(plain)) :] if plain == prompted else ""
                several = sum(behind.count(stop) for stop in self.stops) > 1
                text = prompted[_agreed(plain, prompted) :]
                self._prompt = _Prompt(text, prompted.startswith(plain), behind if several else "")
            except Refused:
                self._prompt = _Prompt("", exact=False)
        return self._prompt

    def _start(self, rendering: Rendering, index: int) -> int | None:
        """The end of the generation prompt in front of a turn, or of as much of it as stands there."""
        own = first_mark(rendering, index)
        limit = own if own is not None else _next_mark(rendering, index, 0)
        anchor, place = _mark_before(rendering, index, limit)
        gap = rendering.text[place:own] if own is not None and own - place < _LONGEST_HEADER else None
        key = (rendering.chat[index - 1]["role"] if index else "", gap or "")
        opening = self._openings.get(key) if gap else None
        if opening is None:
            opening = self._learn_opening(rendering, index, anchor)
            if gap:
                self._openings[key] = opening
        follows = opening.text is not None and rendering.text.startswith(opening.text, place)
        if follows and opening.prompted:
            return place + len(opening.text or "")
        start = _find_header(rendering.text, opening.header, place, limit, own is not None)
        if start is not None:
            return start
        if follows:
            return place + len(opening.text or "")
        # Without its generation prompt a turn opens the conversation, or goes on with the one before it.
        return own if index == 0 or opening.header else None

    def _learn_opening(self, rendering: Rendering, index: int, anchor: Mark | None) -> _Opening:
        """What stands between the message before a turn and the turn, from a rendering that ends in front of the turn."""
        if index == 0:
            # Templates are not asked for an empty conversation: most cannot render one.
            return _Opening(None, self.prompt.text)
        try:
            head, places = self.renderer.beginning(rendering, index, prompt=True)
            before, _ = self.renderer.beginning(rendering, index, prompt=False)
        except Refused:
            return _Opening(None, self.prompt.text)
        header = head[_agreed(before, head) :]
        prompted, header = bool(header), header or self.prompt.text
        if anchor is None:
            return _Opening(head, header, prompted)
        text = head[places[anchor] :] if anchor in places else None
        # White space alone shows nothing, unless the whole text begins so.
        if text is not None and not text.strip() and not rendering.text.startswith(head):
            text = None
        return _Opening(text, header, prompted)

    def _end(self, rendering: Rendering, index: int, start: int) -> int | None:
        """The end of what the template writes behind a turn as a part of it."""
        text = rendering.text
        if index == len(rendering.chat) - 1:
            return len(text.removesuffix(self.prompt.always))
        last = _last_mark(rendering, index)
        if last is None:
            return self._end_without_marks(rendering, index, start)
        mark, place = last
        after = text[place : _next_mark(rendering, index, place)]
        if mark[1] == CALL or len(after) > _LONGEST_HEADER:
            length = self._learn_closing(rendering, index, mark, place)
        elif after in self._closings:
            length = self._closings[after]
        else:
            length = self._closings[after] = self._learn_closing(rendering, index, mark, place)
        return None if length is None else place + length

    def _learn_closing(self, rendering: Rendering, index: int, mark: Mark, place: int) -> int | None:
        """How much of what stands behind the last mark of a turn belongs to the turn."""
        text, alone = rendering.text, ""
        try:
            tail, places = self.renderer.beginning(rendering, index + 1, prompt=False)
            closing = tail[places[mark] :] if mark in places else None
            alone = closing or ""
            if closing is not None and text.startswith(closing, place):
                return len(closing) if closing.strip() else self._end_token(rendering, index, place) or 0
            # A template may trim the last turn's content and not the others', or the reverse.
            spaces = len(text) - place - len(text[place:].lstrip())
            if closing is not None and closing.strip() and text.startswith(closing.lstrip(), place + spaces):
                return spaces + len(closing.lstrip())
            # The last turn ends in a way of its own; where another turn is prompted for, it is not the last.
            tail, places = self.renderer.beginning(rendering, index + 1, prompt=True)
            header = self.prompt.text if self.prompt.exact else ""
            if header and mark in places and tail.endswith(header):
                closing = tail[places[mark] : len(tail) - len(header)]
                if closing.strip() and text.startswith(closing, place):
                    return len(closing)
        except Refused:
            pass
        if mark[1] == CALL:
            return self._end_behind_call(text, place, alone)
        return self._end_token(rendering, index, place)

    def _end_behind_call(self, text: str, place: int, alone: str) -> int | None:
        """How far the special token reaches that stands behind the rest of a call, where another one ends the last turn.

        `alone` is what stands behind the mark where the call ends the conversation. None where that shows no end.
        """
        bare = alone.rstrip()
        rest = next((bare.removesuffix(stop) for stop in self.stops if bare.endswith(stop)), "")
        if not rest.strip() or not text.startswith(rest, place):
            return None
        end = self._special_token(text, place + len(rest))
        return None if end is None else end - place

    def _end_token(self, rendering: Rendering, index: int, place: int) -> int | None:
        """How far the special token reaches that stands behind a turn, whoever speaks next.

        It is 0 where that token opens the next turn, or the next is joined to this one; None where no such token stands there.
        """
        end, following = self._special_token(rendering.text, place), _next_mark(rendering, index, place)
        if rendering.chat[index + 1]["role"] == "assistant" and not rendering.text[place:following].strip():
            return 0
        if end is None:
            return None
        after, asked = rendering.text[place:end], False
        for role in ("assistant", "user", "system"):
            if role == rendering.chat[index + 1]["role"]:
                continue
            chat = [*rendering.chat[: index + 1], Message(role=role, content="?")]
            try:
                text, places = self.renderer.beginning(replace(rendering, chat=chat), index + 2, prompt=False)
            except Refused:
                continue
            last = max((found for found in places if found[0] == index), key=lambda found: places[found], default=None)
            if last is not None:
                asked = True
                if text.startswith(after, places[last]):
                    return end - place
        return 0 if asked else end - place

    def _end_without_marks(self, rendering: Rendering, index: int, start: int) -> int | None:
        try:
            tail, _ = self.renderer.beginning(rendering, index + 1, prompt=False)
        except Refused:
            tail = ""
        if len(tail) > start and rendering.text.startswith(tail):
            return len(tail)
        shown = rendering.chat[index].get("tool_calls") and index not in rendering.left_out
        return None if shown else self._special_token(rendering.text, start)

    def _special_token(self, text: str, place: int) -> int | None:
        """The end of the special token that stands at a place or behind white space there."""
        while place < len(text) and text[place].isspace():
            place += 1
        return max((place + len(stop) for stop in self.stops if text.startswith(stop, place)), default=None)


def _owners(rendering: Rendering, ranges: Sequence[Span], turns: Sequence[int]) -> list[int]:
    """The turn that each range belongs to: the one that begins in it, else the last that has begun before it; -1 without one."""
    begins = {index: place for index in range(len(rendering.chat)) if (place := first_mark(rendering, index)) is not None}
    owners = []
    for start, end in ranges:
        inside = [index for index in turns if index in begins and start <= begins[index] <= end]
        last = max((index for index, place in begins.items() if place <= start), default=-1)
        later = [index for index in turns if index > last]
        owners.append(inside[0] if inside else last if last in turns else later[0] if later else -1)
    return owners


def first_mark(rendering: Rendering, index: int) -> int | None:
    """Where the first part of a message stands that is in the text."""
    return min((place for _, place in _marks(rendering, index)), default=None)


def _marks(rendering: Rendering, index: int) -> list[tuple[Mark, int]]:
    return [((index, kind), rendering.places[index, kind]) for kind in KINDS if (index, kind) in rendering.places]


def _last_mark(rendering: Rendering, index: int) -> tuple[Mark, int] | None:
    return max(_marks(rendering, index), key=lambda found: found[1], default=None)


def _next_mark(rendering: Rendering, index: int, least: int) -> int:
    """Where the next message begins that has a mark behind `least`; else the end of the text."""
    for later in range(index + 1, len(rendering.chat)):
        place = first_mark(rendering, later)
        if place is not None and place >= least:
            return place
    return len(rendering.text)


def _mark_before(rendering: Rendering, index: int, limit: int) -> tuple[Mark | None, int]:
    """The last mark of the nearest message before a turn that stands in front of it; else the beginning of the text."""
    for earlier in range(index - 1, -1, -1):
        last = _last_mark(rendering, earlier)
        if last is not None and last[1] <= limit:
            return last
    return None, 0


def _agreed(first: str, second: str) -> int:
    """How many characters two texts have in common at their beginning."""
    if second.startswith(first):
        return len(first)
    return next((place for place, (x, y) in enumerate(zip(first, second, strict=False)) if x != y), min(len(first), len(second)))


def _find_header(text: str, header: str, start: int, limit: int, bounded: bool) -> int | None:
    """The end of the generation prompt, or of the longest beginning of it that stands between two places; None without one.

    `bounded` says that the turn's own text begins at `limit`; a generation prompt that opens a thought may reach into it.
    """
    if not header:
        return None
    place = text.rfind(header, start, limit) if bounded else text.find(header, start, limit)
    if place < 0 and bounded:
        place = text.find(header, max(start, limit - len(header) + 1), limit + len(header) - 1)
    if place >= 0:
        return place + len(header)
    for length in range(len(header) - 1, 0, -1):
        part = header[:length]
        # A part ends where a word ends, and has a word: "<|" opens other turns too.
        if not (part[-1].isspace() or part[-1] in ">]:") or not any(map(str.isalnum, part)):
            continue
        if (place := text.rfind(part, start, limit)) >= 0:
            return place + length
    return None
