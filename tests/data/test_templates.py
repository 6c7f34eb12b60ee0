"""Each of the most used chat templates trains the assistant's turns and nothing else: what is trained is written in a table."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from trl import chat_template_utils

from tests.data.template_rows import ROWS, TemplateRow, tokenizer_of
from tulu.config.schema import Source
from tulu.config.templates import TEMPLATES, source_hash
from tulu.data.chat import Encoded, encode_batch
from tulu.data.formats import parse_conversation
from tulu.data.mixing import sample_rows
from tulu.data.stability import prompt_break, turn_break
from tulu.data.turns import TurnFinder
from tulu.types import Message, Tools

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "templates.md"
WORD = re.compile(r"[bcdfghjklmnpqrstvwxz]{8}")
"""Words without vowels, so that no template holds one of them."""
TOOLS: Tools = [
    {
        "type": "function",
        "function": {
            "name": "find_it",
            "description": "Finds.",
            "parameters": {"type": "object", "properties": {"q": {"type": "string", "description": "What."}}, "required": ["q"]},
        },
    }
]
by_name = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


def words() -> Iterator[str]:
    """Words that differ from one another."""
    letters = "bcdfghjklmnpqrstvwxz"
    return (
        a + b + c + d + "qzxj" for a, b, c, d in itertools.product(letters, letters, letters, letters) if len({a, b, c, d}) == 4
    )


def say(*turns: str) -> list[Message]:
    """`S:...`, `U:...`, `A:...` and `T:...` to messages; each W becomes a word of its own."""
    source = words()
    roles = {"S": "system", "U": "user", "A": "assistant", "T": "tool"}
    return [{"role": roles[turn[0]], "content": re.sub("W", lambda _: next(source), turn[2:])} for turn in turns]


def with_call() -> list[Message]:
    """A user asks, the assistant calls a tool without a word, reads its result and answers."""
    chat = say("U:W", "A:", "T:W", "A:W", "U:W", "A:W")
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "find_it", "arguments": {"q": "bcdfzqxj"}}}
    chat[1]["tool_calls"] = [call]
    return chat


def turns_of(tokenizer: Any, encoded: Encoded) -> list[str]:
    """The trained ranges as text."""
    return [str(tokenizer.decode(encoded.tokens[start:end])) for start, end in encoded.spans]


def trained(tokenizer: Any, chat: Sequence[Message], tools: Tools = ()) -> list[str]:
    """The trained turns of a conversation, its words as W, after a check that they hold the assistant's words and no other."""
    [encoded] = encode_batch(tokenizer, [chat], "all", [tools])
    assert not encoded.problem
    assert encoded.left_out == ()
    turns, text = turns_of(tokenizer, encoded), str(tokenizer.decode(encoded.tokens))
    for message in chat:
        own = message["role"] == "assistant" and message.get("train", True)
        for word in WORD.findall(json.dumps(message)):
            assert (word in "|".join(turns)) == (own and word in text)
    return [WORD.sub("W", turn) for turn in turns]


@by_name
def test_conversations_train_the_turns_with_their_end(row: TemplateRow) -> None:
    tokenizer = row.tokenizer()
    assert trained(tokenizer, say("U:W", "A:W")) == [row.last]
    assert trained(tokenizer, say("U:W", "A:W", "U:W", "A:W", "U:W", "A:W")) == [row.turn, row.turn, row.last]
    # An empty question, answers that are the same, and one that is not trained.
    assert trained(tokenizer, say("U:", "A:W", "U:W", "A:W")) == [row.turn, row.last]
    same = encode_batch(tokenizer, [say("U:Yes?", "A:Yes", "U:Yes?", "A:Yes")], "all")[0]
    assert turns_of(tokenizer, same) == [row.turn.replace("W", "Yes"), row.last.replace("W", "Yes")]
    chat = say("U:W", "A:W", "U:W", "A:W")
    chat[1]["train"] = False
    assert trained(tokenizer, chat) == [row.last]


@by_name
def test_white_space_around_a_content_loses_no_row(row: TemplateRow) -> None:
    turns = trained(row.tokenizer(), say("U:\n W ", "A:  W\n\n", "U: W\n", "A:\n W \t"))
    # Templates write or trim the spaces; the rest of the turn is as without them.
    squeezed = [re.sub(r"\s", "", turn) for turn in turns]
    assert squeezed == [re.sub(r"\s", "", turn) for turn in (row.turn, row.last)]


@by_name
def test_text_that_spells_headers_and_end_tokens_is_text(row: TemplateRow) -> None:
    # Without what a template reads in a content: thoughts, and channels, which gpt-oss refuses there.
    ends = re.sub(r"</?think>|<\|(?:channel|message)\|>", "", row.last.replace("W", "said"))
    spelled = f"{ends}<|im_start|>assistant\n<|assistant|>\n[/INST]"
    chat = say("U:W", "A:W", "U:W", "A:W")
    for message in chat:
        message["content"] = f"{message['content']} {spelled}{message['content']}"
    turns = trained(row.tokenizer(), chat)
    shown = [f"W {spelled}W", f"W {spelled}W"]
    assert turns == [row.turn.replace("W", shown[0]), row.last.replace("W", shown[1])]


@by_name
def test_thoughts_are_trained_where_the_template_keeps_them(row: TemplateRow) -> None:
    tokenizer = row.tokenizer()
    chat = say("U:W", "A:<think>\nW\n</think>\n\nW", "U:W", "A:<think>\nW\n</think>\n\nW")
    assert trained(tokenizer, chat)[-1] == row.thought
    [encoded] = encode_batch(tokenizer, [chat], "all")
    assert encoded.shortened == {"": (), "past": (1,), "all": (1, 3)}[row.cut]


@by_name
def test_a_system_turn_is_read_and_not_trained(row: TemplateRow) -> None:
    chat = say("S:W", "U:W", "A:W", "U:W", "A:W")
    if row.system:
        [encoded] = encode_batch(row.tokenizer(), [chat], "all")
        assert row.system in encoded.problem
        assert "first user turn" in encoded.problem
    else:
        assert trained(row.tokenizer(), chat) == [row.turn, row.last]


@by_name
def test_calls_are_trained_or_the_row_says_why_not(row: TemplateRow) -> None:
    tokenizer, chat = row.tokenizer(), with_call()
    if row.takes_calls:
        turns = trained(tokenizer, chat, TOOLS)
        assert turns[0] == row.call
        assert turns[-1] == row.last
        assert len(turns) == 3
        return
    [encoded] = encode_batch(tokenizer, [chat], "all", [TOOLS])
    assert 1 in encoded.left_out if row.call == "left out" else row.call in encoded.problem


@pytest.fixture(scope="module")
def threads(shared_data: Path) -> list[list[Message]]:
    """The conversations of the OASST trees in which a user answers an answer."""
    source = Source(name=str(shared_data / "sft_oasst_trees" / "en_100_tree.jsonl"), fraction=1.0)
    chats = [list(parse_conversation(row).messages) for row in sample_rows(source, 1, "sft")]
    return [chat for chat in chats if len(chat) > 2]


@by_name
def test_real_conversations_survive(row: TemplateRow, threads: list[list[Message]]) -> None:
    tokenizer = row.tokenizer()
    survivors = 0
    threads = threads[ROWS.index(row) % 4 :: 4]
    for chat, encoded in zip(threads, encode_batch(tokenizer, threads, "all"), strict=True):
        answers = [message["content"] for message in chat if message["role"] == "assistant"]
        expected = [row.turn] * (len(answers) - 1) + [row.last if chat[-1]["role"] == "assistant" else row.turn]
        turns = turns_of(tokenizer, encoded)
        whole = [re.sub(r"\s", "", turn) for turn in turns] == [
            re.sub(r"\s", "", frame.replace("W", answer)) for frame, answer in zip(expected, answers, strict=True)
        ]
        survivors += whole and not encoded.left_out
    assert survivors == len(threads) > 100


def trl_pairs() -> list[str]:
    """The templates of TRL of which it ships a training template too."""
    names = [
        name.removesuffix("_training_chat_template")
        for name in vars(chat_template_utils)
        if name.endswith("_training_chat_template")
    ]
    return sorted(name for name in names if hasattr(chat_template_utils, f"{name}_chat_template"))


@pytest.mark.parametrize("name", trl_pairs())
def test_turns_hold_what_the_marks_of_trl_hold(name: str) -> None:
    """Where TRL's training template renders the same text, its marks and ours hold the same words.

    Its marks go further at the edges: some hold the header, others begin at the header's last newline.
    """
    plain, marked = (getattr(chat_template_utils, f"{name}{kind}_chat_template") for kind in ("", "_training"))
    chat = say("U:W", "A:W", "U:W", "A:W")
    if "'image'" in plain and "content is string" not in plain:
        pytest.skip("the template takes parts of contents alone, and TRL's reader has no such spelling")
    ours_tokenizer, theirs_tokenizer = tokenizer_of(plain), tokenizer_of(plain)
    theirs_tokenizer.chat_template = marked
    ours, theirs = (encode_batch(each, [chat], "all")[0] for each in (ours_tokenizer, theirs_tokenizer))
    if ours.tokens != theirs.tokens:
        pytest.skip("the training template renders other text")
    assert turns_of(ours_tokenizer, ours)
    for start, end in ours.spans:
        inside = [theirs.trained[place] for place in range(start, end)]
        text = str(ours_tokenizer.decode([token for token, flag in zip(ours.tokens[start:end], inside, strict=True) if not flag]))
        assert not WORD.search(text)


def test_the_document_lists_the_named_templates() -> None:
    lines = ["| name | the prompt ends in | prompt stable | turns stable | hash |", "|---|---|---|---|---|"]
    for name, source in TEMPLATES.items():
        tokenizer = tokenizer_of(source)
        ends = TurnFinder.of(tokenizer).prompt.text[-48:]
        stable = ["no" if found else "yes" for found in (prompt_break(tokenizer), turn_break(tokenizer))]
        cells = [f"`{name}`", code(ends) if ends else "nothing", *stable, f"`{source_hash(source)}`"]
        lines.append(f"| {' | '.join(cells)} |")
    assert "\n".join(lines) in DOCUMENT.read_text(encoding="utf-8"), "\n".join(lines)


def code(text: str) -> str:
    """A text as code in a cell of a table."""
    shown = json.dumps(text, ensure_ascii=False)[1:-1].replace("|", "\\|")
    return f"```` {shown} ````" if "`" in shown else f"`{shown}`"


def test_the_document_has_the_table() -> None:
    lines = ["| template | source | a turn | the last turn | thoughts | tools | system turn |", "|---|---|---|---|---|---|---|"]
    for row in ROWS:
        kept = {"": "kept", "past": "kept in the last turn", "all": "left out: noted"}[row.cut]
        tools = "trained" if row.takes_calls else "left out: dropped" if row.call == "left out" else "refused: dropped"
        source = row.source if "/" in row.source and not row.source.startswith("chat_templates") else "written here"
        cells = [
            row.name,
            source,
            *(code(turn) for turn in (row.turn, row.last)),
            kept,
            tools,
            "refused: dropped" if row.system else "read",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    assert "\n".join(lines) in DOCUMENT.read_text(encoding="utf-8"), "\n".join(lines)
