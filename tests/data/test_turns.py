"""Turns in templates that are not a row of docs/templates.md, and what holds for all that are."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.data.template_rows import ROWS, TemplateRow, tokenizer_of
from tulu.data.chat import encode_batch, encode_prompts
from tulu.data.render import Renderer
from tulu.data.turns import TurnFinder
from tulu.types import Message

TURN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def say(*turns: str) -> list[Message]:
    """`S:...`, `U:...`, `A:...` to messages."""
    roles = {"S": "system", "U": "user", "A": "assistant", "T": "tool"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


def turns_of(template: str, *chat: str) -> list[str]:
    """The trained turns as text."""
    tokenizer: Any = tokenizer_of(template)
    [encoded] = encode_batch(tokenizer, [say(*chat)], "all")
    assert not encoded.problem
    return [str(tokenizer.decode(encoded.tokens[start:end])) for start, end in encoded.spans]


@pytest.mark.parametrize(
    ("template", "chat", "expected"),
    [
        # The assistant speaks first, or twice.
        (TURN + PROMPT, ("A:a", "U:b", "A:c"), ["a<|end|>", "c<|end|>"]),
        (TURN + PROMPT, ("U:a", "A:b", "A:c"), ["b<|end|>", "c<|end|>"]),
        # No generation prompt behind an answer, and no end behind the last one.
        (
            "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
            "{% if not loop.last or m.role != 'assistant' %}<|end|>{% endif %}{% endfor %}"
            "{% if add_generation_prompt and messages[-1].role != 'assistant' %}<|assistant|>{% endif %}",
            ("U:a", "A:b", "A:c", "U:d", "A:e"),
            ["b<|end|>", "c<|end|>", "e"],
        ),
        # A turn has no end: the next one's header is not trained.
        (TURN.replace("<|end|>", "") + PROMPT, ("U:a", "A:b", "U:c", "A:d"), ["b", "d"]),
        # The same, where another token ends the last turn.
        (
            TURN.replace("<|end|>", "{% if loop.last and m.role == 'assistant' %}{{ eos_token }}{% endif %}")
            + PROMPT
            + "{# <|user|> #}",
            ("U:a", "A:b", "U:c", "A:d"),
            ["b", "d<eos>"],
        ),
        # Answers that follow one another become one turn.
        (
            "{% for m in messages %}{% if loop.first or m.role != loop.previtem.role %}<|{{ m.role }}|>{% endif %}{{ m.content }}"
            "{% if loop.last or m.role != loop.nextitem.role %}<|end|>{% endif %}{% endfor %}" + PROMPT,
            ("U:a", "A:b", "A:c", "U:d", "A:e"),
            ["b", "c<|end|>", "e<|end|>"],
        ),
        # The header of the next answer is written whether it is asked for or not.
        (TURN + "<|assistant|>", ("U:a", "A:b"), ["b"]),
        # The prompt shares its first letters with the answer.
        (TURN + PROMPT.replace("|>{%", "|><think>{%"), ("U:a", "A:<tool>"), ["<tool><|end|>"]),
        # A template that looks at the beginning of a content.
        (
            "{% for m in messages %}<|{{ 'tool' if m.content.startswith('<result>') else m.role }}|>{{ m.content }}<|end|>"
            "{% endfor %}" + PROMPT,
            ("U:a", "A:b", "U:<result>c", "A:d"),
            ["b<|end|>", "d<|end|>"],
        ),
        # Contents that hold what marks are made of.
        (TURN + PROMPT, ("U:\U000f0000", "A:\U000f0008b", "U:c", "A:d"), ["\U000f0008b<|end|>", "d<|end|>"]),
        # Answers that begin as the header does, or are a part of it.
        (TURN + PROMPT, ("U:a", "A:<|assistant|>", "U:b", "A:assistant|>"), ["<|assistant|><|end|>", "assistant|><|end|>"]),
    ],
)
def test_turns(template: str, chat: Sequence[str], expected: list[str]) -> None:
    assert turns_of(template, *chat) == expected


def test_marks_of_the_template_are_split_among_the_turns() -> None:
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% if m.note %}({{ m.note }}){% generation %}{{ m.more }}{% endgeneration %}{% endif %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}" + PROMPT
    )
    tokenizer: Any = tokenizer_of(template)
    chat: list[Any] = say("U:a", "A:b", "U:c", "A:d")
    chat[1].update(note="n", more="m")
    chat[3].update(note="n", more="o")

    def trained(train: Any) -> str:
        [encoded] = encode_batch(tokenizer, [chat], train)
        return "|".join(tokenizer.decode(encoded.tokens[start:end]) for start, end in encoded.spans)

    assert trained("all") == "b|m|d|o"
    assert trained("last") == "d|o"
    chat[1]["train"] = False
    assert trained("all") == "d|o"


def test_turns_that_the_template_does_not_mark_are_found_all_the_same() -> None:
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}{% generation %}{{ m.content }}"
        "<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}" + PROMPT
    )
    assert turns_of(template, "U:a", "A:b", "U:c", "A:d") == ["b<|end|>", "d<|end|>"]


def test_a_turn_that_ends_in_calls_ends_at_its_token_where_another_ends_the_last_turn() -> None:
    """As OLMo 3 Instruct's template: `<|im_end|>` behind a turn, the tokenizer's end behind the last one."""
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}"
        "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}({{ c.function.arguments | tojson }})</call>{% endfor %}"
        "{{ eos_token if loop.last and m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
    )
    tokenizer: Any = tokenizer_of(template + PROMPT)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    call = {"type": "function", "function": {"name": "add", "arguments": {"x": 2}}}
    chat: Any = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call, call]}]
    chat += [{"role": "tool", "content": "4"}]
    spelled = '<call>add({"x": 2})</call>'
    finder = TurnFinder.of(tokenizer)
    endings: Any = ([], [{"role": "assistant", "content": "W"}], [{"role": "user", "content": "W"}])
    for after in endings:
        rendering = finder.renderer.whole([*chat, *after], ())
        start, end = finder.find(rendering, 1) or (0, 0)
        assert rendering.text[start:end] == f"{spelled}{spelled}<|im_end|>", after


def test_marks_around_what_others_say_are_not_believed() -> None:
    template = (
        "{% for m in messages %}{% generation %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endgeneration %}{% endfor %}" + PROMPT
    )
    assert turns_of(template, "S:s", "U:a", "A:b", "U:c", "A:d") == ["b<|end|>", "d<|end|>"]


def test_marks_that_hold_the_header_lose_it() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|assistant|>{{ m.content }}<|end|>"
        "{% endgeneration %}{% else %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}" + PROMPT
    )
    assert turns_of(template, "U:a", "A:b", "U:c", "A:<|assistant|>d") == ["b<|end|>", "<|assistant|>d<|end|>"]


def random_chat(draw: random.Random) -> list[Message]:
    """A conversation with all that templates treat in their own way, and texts that come back."""
    texts = ["a", "b", "Yes", " a ", "assistant", "<|im_end|>", "<think>", "\n", "ü\u2028", "a</think>b", "<think>x</think>y"]
    chat: list[Message] = [{"role": "system", "content": draw.choice(texts)}] if draw.random() < 0.3 else []
    for _ in range(draw.randint(1, 4)):
        chat.append({"role": "user", "content": draw.choice(texts)})
        answer = draw.choice([*texts, "<think>\nw\n</think>\n\nz"])
        chat.append({"role": "assistant", "content": answer, "train": draw.random() < 0.8})
    return chat


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_row_does_not_depend_on_its_neighbours(row: TemplateRow) -> None:
    """What is learned of one conversation's gaps holds in all others."""
    draw = random.Random(row.name)
    chats = [random_chat(draw) for _ in range(60)]
    tokenizer = row.tokenizer()
    together = encode_batch(tokenizer, chats, "all")
    assert together == [encode_batch(tokenizer, [chat], "all")[0] for chat in chats]
    assert sum(not encoded.problem for encoded in together) >= 20


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_turn_begins_where_its_prompt_ends(row: TemplateRow) -> None:
    """The tokens in front of the last turn are those that the model is given when it is sampled."""
    draw = random.Random(row.name)
    tokenizer = row.tokenizer()
    chats = [random_chat(draw)[-4:] for _ in range(30)]
    prompts = encode_prompts(tokenizer, [chat[:-1] for chat in chats])
    for prompt, encoded in zip(prompts, encode_batch(tokenizer, chats, "last"), strict=True):
        if encoded.spans and not prompt.problem and encoded.tokens[: len(prompt.tokens)] == prompt.tokens:
            assert encoded.spans[0][0] == len(prompt.tokens)


def test_a_long_conversation_is_not_rendered_for_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = []
    real = Renderer._render

    def counted(self: Renderer, chat: Any, *args: Any, **options: Any) -> Any:
        rendered.append(len(chat))
        return real(self, chat, *args, **options)

    monkeypatch.setattr(Renderer, "_render", counted)
    tokenizer: Any = tokenizer_of(TURN + PROMPT)
    turns = [f"{role}:{number}" for number in range(300) for role in "UA"]
    [encoded] = encode_batch(tokenizer, [say(*turns)], "all")
    assert [tokenizer.decode(encoded.tokens[start:end]) for start, end in encoded.spans] == [f"{n}<|end|>" for n in range(300)]
    # Twice for the text, and a few times to learn how turns begin and end.
    assert len(rendered) < 20
