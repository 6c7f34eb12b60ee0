"""Random rows of every form, some of them spoiled, whose texts carry tags that say what they are.

A tag such as u17.2; stands in the second text of row 17, and its letter says what the text is, so that the tokens of a row can be
held against the row itself, without the code that read it.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

TAG = re.compile(r"[a-z]\d+\.\d+;")
FLAGS = ("weight", "train", "trainable", "training")
ANSWERS = ("completion", "response", "answer", "output", "chosen", "messages", "conversations")


class Maker:
    """Makes the texts of one row."""

    def __init__(self, number: int, chance: random.Random) -> None:
        self.number, self.chance, self.made = number, chance, 0

    def text(self, letter: str) -> str:
        """A text of several words: a trained, n not, u user, s system, c call, t result, f tool, r rejected, d, g gold."""
        self.made += 1
        return f'{letter}{self.number}.{self.made}; some {"words " * self.chance.randrange(3)}é\n"x" end'

    def turns(self, answer: str = "a", count: int | None = None) -> list[dict[str, Any]]:
        """User and assistant in turn."""
        pairs = range(self.chance.randint(1, 3) if count is None else count)
        return [message for _ in pairs for message in (said("user", self.text("u")), said("assistant", self.text(answer)))]

    def schema(self) -> dict[str, Any]:
        properties = {"place": {"type": "string", "description": self.text("f"), "enum": None}, "day": None}
        return {"name": f"f{self.number}.0;", "description": self.text("f"), "parameters": {"properties": properties}}

    def call(self) -> dict[str, Any]:
        return {"name": f"f{self.number}.0;", "arguments": {"place": self.text("c"), "day": None, "at": {"hour": None}, "n": 3}}


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def share_gpt(turns: list[dict[str, Any]], spell: dict[str, str]) -> list[dict[str, Any]]:
    return [{"from": spell.get(turn["role"], turn["role"]), "value": turn["content"]} for turn in turns]


def with_tools(make: Maker) -> list[dict[str, Any]]:
    """A conversation in which a tool is called, its arguments an object or JSON text."""
    call = make.call()
    arguments = call["arguments"] if make.chance.random() < 0.5 else json.dumps(call["arguments"])
    wrapped = {"id": "1", "type": "function", "function": {"name": call["name"], "arguments": arguments}}
    calling = {"role": "assistant", "content": None, "tool_calls": [wrapped]}
    return [said("user", make.text("u")), calling, said("tool", make.text("t")), said("assistant", make.text("a"))]


def untrained(make: Maker) -> list[dict[str, Any]]:
    wrong = said("assistant", make.text("n")) | {make.chance.choice(FLAGS): make.chance.choice([0, False])}
    return [said("user", make.text("u")), wrong, *make.turns(count=1)]


def tools_of(make: Maker) -> Any:
    schema = make.schema()
    listed = [schema if make.chance.random() < 0.5 else {"type": "function", "function": schema}]
    return listed if make.chance.random() < 0.5 else json.dumps(listed)


def parts(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [turn | {"content": [{"type": "text", "text": turn["content"], "image_url": None}]} for turn in turns]


def calls_of_share_gpt(make: Maker) -> list[dict[str, Any]]:
    turns = [said("human", make.text("u")), said("function_call", json.dumps(make.call())), said("observation", make.text("t"))]
    return share_gpt([*turns, said("gpt", make.text("a"))], {})


GPT = {"user": "human", "assistant": "gpt"}
SFT: list[Callable[[Maker], dict[str, Any]]] = [
    lambda make: {"messages": make.turns()},
    lambda make: {"messages": [said("system", make.text("s")), *make.turns()], "id": 3, "source": "web"},
    lambda make: {"messages": [said("developer", make.text("s")), *make.turns()]},
    lambda make: {"messages": json.dumps(make.turns())},
    lambda make: {"messages": parts(make.turns())},
    lambda make: {"messages": untrained(make)},
    lambda make: {"messages": with_tools(make), "tools": tools_of(make)},
    lambda make: {"messages": with_tools(make), "functions": tools_of(make), "system": make.text("s")},
    lambda make: {"conversations": share_gpt(make.turns(), GPT), "system": make.text("s")},
    lambda make: {"conversations": share_gpt(make.turns(), {"user": "prompter", "assistant": "chatgpt"})},
    lambda make: {"conversations": calls_of_share_gpt(make), "tools": tools_of(make)},
    lambda make: {"prompt": make.text("u"), "completion": make.text("a")},
    lambda make: {"prompt": [said("user", make.text("u"))], "completion": [said("assistant", make.text("a"))]},
    lambda make: {"system_prompt": make.text("s"), "question": make.text("u"), "response": make.text("a")},
    lambda make: {"question": make.text("u"), "answer": make.text("a")},
    lambda make: {"instruction": make.text("u"), "input": make.text("u"), "output": make.text("a"), "system": make.text("s")},
    lambda make: {
        "instruction": make.text("u"),
        "input": "",
        "output": make.text("a"),
        "history": [[make.text("u"), make.text("a")] for _ in range(2)],
    },
]


def answers(make: Maker, as_list: bool = False) -> dict[str, Any]:
    both = {"chosen": said("assistant", make.text("a")), "rejected": said("assistant", make.text("r"))}
    return {name: [message] for name, message in both.items()} if as_list else both


def whole_pair(make: Maker) -> dict[str, Any]:
    before = make.turns("n")[:-1]
    return {name: [*before, *message] for name, message in answers(make, as_list=True).items()}


PAIRS: list[Callable[[Maker], dict[str, Any]]] = [
    lambda make: {"prompt": make.text("u"), "chosen": make.text("a"), "rejected": make.text("r"), "margin": 0.5},
    lambda make: {"messages": make.turns("n")[:-1], **answers(make, as_list=True)},
    lambda make: {"messages": make.turns("n")[:-1], **answers(make), "system": make.text("s")},
    lambda make: {"conversations": share_gpt(make.turns("n")[:-1], GPT), **answers(make)},
    lambda make: {
        "instruction": make.text("u"),
        "input": make.text("u"),
        **answers(make),
        "history": [[make.text("u"), make.text("n")]],
    },
    whole_pair,
    lambda make: whole_pair(make) | {"system": make.text("s")},
    lambda make: whole_pair(make) | {"tools": tools_of(make)},
    lambda make: {"input": make.text("u"), "output_1": make.text("a"), "output_2": make.text("r"), "label": 1},
    lambda make: {"prompt": make.text("u"), "chosen": [make.text("a"), make.text("a")], "rejected": make.text("r")},
]
PROBLEMS: list[Callable[[Maker], dict[str, Any]]] = [
    lambda make: {"messages": make.turns("d"), "ground_truth": make.text("g"), "dataset": "exact"},
    lambda make: {"prompt": make.text("u"), "ground_truth": make.text("g"), "dataset": "exact", "system": make.text("s")},
    lambda make: {"question": make.text("u"), "answer": make.text("g"), "dataset": ["exact"], "ground_truth": [make.text("g")]},
    lambda make: {"problem": make.text("u"), "ground_truth": [make.text("g"), make.text("g")], "dataset": ["exact", "string_f1"]},
    lambda make: {
        "messages": [said("user", make.text("u"))],
        "tools": tools_of(make),
        "answer": make.text("g"),
        "dataset": "exact",
    },
    lambda make: {
        "prompt": make.text("u"),
        "history": [[make.text("u"), make.text("n")]],
        "answer": make.text("g"),
        "dataset": "exact",
    },
]


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else "deep"


JUNK: list[Any] = [
    *(
        None,
        None,
        None,
        0,
        1,
        -3.5,
        10**400,
        float("nan"),
        float("inf"),
        True,
        False,
        "",
        " ",
        "text",
        "\ud83d",
        "[",
        "{}",
        "[1]",
    ),
    *([], {}, [None], [[]], [{}], {"a": None}, {"role": "user"}, [{"role": "x", "content": "y"}], {"type": "image_url"}),
    *([{"type": "image", "image": "x.png"}], ["a", 1], nested(80), nested(400), "<|endoftext|>", "huge " * 20_000),
]
EXTRA = (
    *("messages", "conversations", "prompt", "completion", "response", "question", "answer", "instruction", "input", "output"),
    *("system", "history", "tools", "functions", "images", "chosen", "rejected", "label", "text", "query", "kwargs"),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of nested lists and objects."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places(inner)


def spoil(row: dict[str, Any], make: Maker) -> None:
    """One random change: a field dropped, null or of another type, an entry doubled, or a column more."""
    container, key = make.chance.choice(list(places(row)) or [(row, "a")])
    change = make.chance.random()
    if change < 0.2:
        container.pop(key) if isinstance(container, list) or key in container else None
    elif change < 0.6:
        container[key] = deepcopy(make.chance.choice(JUNK))
    elif change < 0.75:
        inner = container[key] if key in row or isinstance(container, list) else None
        if isinstance(container, list):
            container.insert(key, deepcopy(inner))
        else:
            container[key] = [deepcopy(container.get(key))] * 2
    else:
        name = make.chance.choice(EXTRA)
        row[name] = make.text("x") if make.chance.random() < 0.5 else [said("user", make.text("x")), said("gpt", make.text("x"))]


def make_rows(forms: list[Callable[[Maker], dict[str, Any]]], count: int, seed: int) -> tuple[list[dict[str, Any]], set[int]]:
    """Rows of all forms, the first ones of each as they should be, and the numbers of those that were not spoiled."""
    chance = random.Random(seed)
    rows, sound = [], set()
    for number in range(count):
        make = Maker(number, chance)
        row = forms[number % len(forms)](make)
        changes = 0 if number < len(forms) else chance.choice([0, 1, 1, 1, 2, 3])
        if not changes:
            sound.add(number)
        for _ in range(changes):
            spoil(row, make)
        rows.append(row)
    return rows, sound


def tags(value: Any) -> set[str]:
    return set(TAG.findall(value if isinstance(value, str) else json.dumps(value)))


def is_marked(row: Any, tag: str) -> bool:
    """Whether the message with this tag says that it is not trained."""
    holders = [holder for holder, key in places([row]) if isinstance(holder, dict) and tag in json.dumps(holder.get("content"))]
    return any(holder.get(flag) in (0, False) and holder.get(flag) is not None for holder in holders for flag in FLAGS)
