"""Rows to groups: what is shared, trained, truncated, dropped and counted, on tokens that can be read."""

import tracemalloc
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tulu.config.stages import RowKind
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.data.formats import ACCEPTED
from tulu.data.row_report import total
from tulu.data.sources import Row
from tulu.data.token_cache import Groups
from tulu.data.tokenise import TokeniseOptions, encode_part
from tulu.errors import DataError
from tulu.types import Group

EOS = 256
HEAD = "<|user|>\n{}\n<|assistant|>\n"
ENOUGH = 1000


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = make_byte_tokenizer()
    apply_template(made, "tulu")
    return made


def message(turn: str) -> dict[str, str]:
    return {"role": "user" if turn[0] == "U" else "assistant", "content": turn[2:]}


def encoded(
    tokenizer: Any, kind: RowKind, rows: list[dict[str, Any]], max_length: int = ENOUGH, drop_long: bool = False
) -> Groups:
    placed = [Row(f"rows:{number}", columns) for number, columns in enumerate(rows)]
    return Groups([encode_part("rows", placed, tokenizer, TokeniseOptions(kind, max_length, drop_long))])


def sft(*turns: str) -> dict[str, Any]:
    return {"messages": [message(turn) for turn in turns]}


def two(chosen: list[str], rejected: list[str], **more: Any) -> dict[str, Any]:
    return {"chosen": [message(turn) for turn in chosen], "rejected": [message(turn) for turn in rejected], **more}


def spelled(group: Group) -> tuple[str, list[str]]:
    """The prompt, and each completion with untrained tokens as dots."""

    def show(tokens: Any, trained: Any) -> str:
        return "".join(
            ("$" if token == EOS else chr(token)) if flag else "." for token, flag in zip(tokens, trained, strict=True)
        )

    return bytes(group.prompt).decode(), [show(each.tokens, each.trained) for each in group.completions]


def test_sft_groups_begin_at_the_first_trained_token(tokenizer: Any) -> None:
    groups = encoded(tokenizer, "sft", [sft("U:q", "A:one"), sft("U:q", "A:one", "U:r", "A:two", "U:bye")])
    assert spelled(groups[0]) == (HEAD.format("q"), ["one$"])
    # Between the turns a line break and the header; after the last trained token nothing.
    assert spelled(groups[1]) == (HEAD.format("q"), ["one$" + "." * len("\n" + HEAD.format("r")) + "two$"])
    assert (groups[1].id, groups.report.used) == ("rows:1", 2)


def test_sft_truncates_counts_and_drops_what_has_nothing_left(tokenizer: Any) -> None:
    head = len(HEAD.format("q"))
    rows = [sft("U:q", "A:" + "x" * 10), sft("U:q", "A:xy"), sft("U:" + "q" * 50, "A:x")]
    groups = encoded(tokenizer, "sft", rows, max_length=head + 3)
    assert [spelled(group)[1] for group in groups] == [["xxx"], ["xy$"]]
    assert (groups.report.truncated.count, groups.report.truncated.first) == (1, ("rows:0",))
    assert {reason: tally.first for reason, tally in groups.report.dropped.items()} == {
        "nothing to train on after truncation": ("rows:2",)
    }


@pytest.mark.parametrize(("kind", "rows"), [("sft", [sft("U:q", "A:" + "x" * 10), sft("U:q", "A:xy")]), ("pairs", None)])
def test_truncated_rows_that_lost_their_end_are_counted(tokenizer: Any, kind: RowKind, rows: Any) -> None:
    rows = rows or [two(["U:q", "A:" + "x" * 10], ["U:q", "A:n"]), two(["U:q", "A:xy"], ["U:q", "A:n"])]
    report = encoded(tokenizer, kind, rows, max_length=len(HEAD.format("q")) + 3).report
    assert report.lines() == ["2 of 2 rows used", "truncated: 1 (rows:0)", "lost their end: 1 (rows:0)"]


def test_a_row_that_is_cut_between_turns_keeps_its_end(tokenizer: Any) -> None:
    first = len(HEAD.format("q")) + len("one") + 1
    for length, lost in ((first, 0), (first + 5, 0), (first - 1, 1)):
        groups = encoded(tokenizer, "sft", [sft("U:q", "A:one", "U:r", "A:two")], max_length=length)
        assert (groups.report.truncated.count, groups.report.lost_end.count) == (1, lost)
        assert (EOS in groups[0].completions[0].tokens) is not bool(lost)


def test_long_conversations_can_be_dropped(tokenizer: Any) -> None:
    length = len(HEAD.format("q")) + 3
    groups = encoded(tokenizer, "sft", [sft("U:q", "A:xyz"), sft("U:q", "A:xy")], length, drop_long=True)
    assert [spelled(group)[1] for group in groups] == [["xy$"]]
    assert groups.report.lines()[1:] == [f"dropped, longer than {length} tokens: 1 (rows:0)"]


def test_an_untrained_turn_is_read_and_not_trained(tokenizer: Any) -> None:
    row = {"messages": [message("U:q"), message("A:no") | {"weight": 0}, message("U:r"), message("A:yes")]}
    group = encoded(tokenizer, "sft", [row])[0]
    assert spelled_tail(group) == ["yes$"]
    assert all(group.completions[0].trained)
    assert group.prompt == [*HEAD.format("q").encode(), *b"no", EOS, *b"\n", *HEAD.format("r").encode()]


def test_odd_rows_are_counted_and_the_first_is_quoted(tokenizer: Any) -> None:
    good = sft("U:q", "A:x")
    rows = [good, {"messages": 3}, {"a": 1}, {"messages": [3]}, {"messages": 4}, good, good, good, good]
    assert encoded(tokenizer, "sft", rows).report.lines() == [
        "5 of 9 rows used",
        "dropped, messages holds no list of messages: 2 (rows:1, :4); "
        "the first: rows:1: messages: holds a int, not a list of messages; write [{role, content}, ...]",
        f"dropped, no columns for sft: 1 (rows:2); the first: rows:2: no columns for sft among a; accepted are {ACCEPTED['sft']}",
        "dropped, a message is no {role, content}: 1 (rows:3); the first: rows:3: messages: message 1 holds a int; "
        "write {role, content}",
    ]


def test_a_first_row_of_another_kind_stops_and_an_odd_one_does_not(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"^rows:0: no columns for sft among a; accepted are"):
        encoded(tokenizer, "sft", [{"a": 1}, sft("U:q", "A:x")])
    assert encoded(tokenizer, "sft", [{"messages": 3}, sft("U:q", "A:x")]).report.used == 1
    with pytest.raises(
        DataError, match=r"none of 1 rows can be used: messages holds no list.*the first: rows:0: messages: holds a int"
    ):
        encoded(tokenizer, "sft", [{"messages": 3}])


def test_a_source_of_which_most_is_dropped_is_called_out(tokenizer: Any) -> None:
    bad, good = encoded(tokenizer, "sft", [sft("U:q"), sft("U:q"), sft("U:q", "A:x")]), sft("U:q", "A:x")
    many = encoded(tokenizer, "sft", [good] * 9 + [sft("U:q")] * 9)
    assert total([many.report.sources[0], bad.report.sources[0]]).alarms() == [
        "WARNING: more than half of rows is dropped, 2 of 3 rows"
    ]


def test_columns_that_are_not_read_are_noted(tokenizer: Any) -> None:
    rows = [sft("U:q", "A:x") | {"prompt": "q"}, sft("U:q", "A:x") | {"prompt": "r", "history": [["a", "b"]], "source": "web"}]
    assert encoded(tokenizer, "sft", rows).report.lines()[1:] == [
        "column prompt is not read: 1 (rows:1)",
        "column history is not read: 1 (rows:1)",
    ]


def test_pairs_share_the_longest_untrained_prefix_and_train_the_last_turn(tokenizer: Any) -> None:
    chosen, rejected = ["U:q", "A:a", "U:r", "A:yes"], ["U:q", "A:a", "U:r", "A:yet"]
    group = encoded(tokenizer, "pairs", [two(chosen, rejected, margin=0.5)])[0]
    # The answers' common beginning is trained, so it is not shared.
    assert group.completions[0].tokens == [*b"yes", EOS]
    assert spelled_tail(group) == ["yes$", "yet$"]
    assert bytes(token for token in group.prompt if token < EOS).decode() == HEAD.format("q") + "a\n" + HEAD.format("r")
    assert group.margin == 0.5


def spelled_tail(group: Group) -> list[str]:
    return ["".join("$" if token == EOS else chr(token) for token in each.tokens) for each in group.completions]


def test_labels_all_trains_every_turn_of_both_sides(tokenizer: Any) -> None:
    """As open-instruct until June 2025: the shared earlier turn counts on both sides, so it enters both means of dpo_norm."""
    row = Row("rows:0", two(["U:q", "A:one", "U:r", "A:xy"], ["U:q", "A:one", "U:r", "A:z"]))
    options = TokeniseOptions("pairs", ENOUGH, labels="all")
    group = Groups([encode_part("rows", [row], tokenizer, options)])[0]
    between = "." * len("\n<|user|>\nr\n<|assistant|>\n")
    assert spelled(group) == (HEAD.format("q"), [f"one${between}xy$", f"one${between}z$"])


def test_labels_all_keeps_a_pair_whose_last_answer_is_cut_off(tokenizer: Any) -> None:
    """As open-instruct, whose filter asks for one label; with the last turn alone the pair teaches nothing and is dropped."""
    row = Row("rows:0", two(["U:q", "A:one", "U:r", "A:xy"], ["U:q", "A:two", "U:r", "A:z"]))
    room = len(HEAD.format("q")) + 4
    kept = Groups([encode_part("rows", [row], tokenizer, TokeniseOptions("pairs", room, labels="all"))])
    assert spelled(kept[0]) == (HEAD.format("q"), ["one$", "two$"])
    with pytest.raises(DataError, match="lost to truncation"):
        encode_part("rows", [row], tokenizer, TokeniseOptions("pairs", room))


def test_pairs_with_different_prompts_share_what_is_equal_and_are_noted(tokenizer: Any) -> None:
    groups = encoded(tokenizer, "pairs", [two(["U:ab", "A:x"], ["U:ac", "A:y"])])
    assert spelled(groups[0]) == ("<|user|>\na", ["." * len("b\n<|assistant|>\n") + "x$", "." * len("c\n<|assistant|>\n") + "y$"])
    assert groups.report.noted["chosen and rejected answer different prompts"].first == ("rows:0",)


EQUAL = "chosen equals rejected"
HEAD_Q = len(HEAD.format("q"))


@pytest.mark.parametrize(
    ("drop_long", "kept", "truncated", "dropped"),
    [
        (
            False,
            ["rows:0", "rows:1"],
            ("rows:1",),
            {"chosen equals rejected after truncation": 1, "an answer is lost to truncation": 1},
        ),
        (True, ["rows:0"], (), {f"longer than {HEAD_Q + 3} tokens": 3}),
    ],
)
def test_long_pairs(
    tokenizer: Any, drop_long: bool, kept: list[str], truncated: tuple[str, ...], dropped: dict[str, int]
) -> None:
    rows = [
        two(["U:q", "A:ab"], ["U:q", "A:cd"]),
        two(["U:q", "A:abcdef"], ["U:q", "A:cd"]),
        two(["U:q", "A:abcdef"], ["U:q", "A:abcxyz"]),
        two(["U:" + "q" * 50, "A:a"], ["U:" + "q" * 50, "A:b"]),
    ]
    groups = encoded(tokenizer, "pairs", rows, HEAD_Q + 3, drop_long)
    assert [group.id for group in groups] == kept
    assert groups.report.truncated.first == truncated
    assert {reason: tally.count for reason, tally in groups.report.dropped.items()} == dropped


def test_unusable_rows_are_counted_by_reason_with_the_first_named(tokenizer: Any) -> None:
    groups = encoded(tokenizer, "sft", [sft("U:q")] * 7 + [sft("U:q", "A: "), sft("U:q", "A:ok")])
    report = groups.report
    assert (report.rows, report.used, len(groups)) == (9, 1, 1)
    assert report.dropped["no assistant turn"].count == 7
    assert report.dropped["no assistant turn"].first == tuple(f"rows:{number}" for number in range(5))
    assert report.lines() == [
        "1 of 9 rows used",
        "WARNING: more than half of rows is dropped, 8 of 9 rows",
        "dropped, no assistant turn: 7 (rows:0, :1, :2, :3, :4, ...)",
        "dropped, an assistant turn is empty: 1 (rows:7)",
    ]
    assert {reason: tally.count for reason, tally in report.dropped.items()} == {
        "no assistant turn": 7,
        "an assistant turn is empty": 1,
    }


def test_a_row_with_several_answers_is_every_pair_of_them(tokenizer: Any) -> None:
    rows = [
        {"prompt": "q", "chosen": ["a", "b"], "rejected": ["c", "a", "d"], "margin": 2.0},
        two(["U:q", "A:x"], ["U:q", "A:y"]),
    ]
    groups = encoded(tokenizer, "pairs", rows)
    assert [(group.id, spelled_tail(group), group.margin) for group in groups] == [
        ("rows:0/1", ["a$", "c$"], 2.0),
        # rows:0/2 is a against a.
        ("rows:0/3", ["a$", "d$"], 2.0),
        ("rows:0/4", ["b$", "c$"], 2.0),
        ("rows:0/5", ["b$", "a$"], 2.0),
        ("rows:0/6", ["b$", "d$"], 2.0),
        ("rows:1", ["x$", "y$"], 0.0),
    ]
    assert (groups.report.rows, groups.report.used) == (7, 6)
    assert groups.report.lines()[1:] == [
        "dropped, chosen equals rejected: 1 (rows:0/2)",
        "several answers in a row: every chosen one is paired with every rejected one: 5 (rows:0/1, :0/3, :0/4, :0/5, :0/6)",
    ]


def test_nothing_usable_is_an_error_with_the_reasons(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"rows: none of 2 rows can be used: no assistant turn: 2 \(rows:0, :1\)"):
        encoded(tokenizer, "sft", [sft("U:q")] * 2)
    with pytest.raises(DataError, match="chosen equals rejected"):
        encoded(tokenizer, "pairs", [two(["U:q", "A:x"], ["U:q", "A:x"])])


def test_text_is_trained_on_every_token_once(tokenizer: Any) -> None:
    groups = encoded(tokenizer, "text", [{"text": "abcdefg"}, {"text": "xy"}], max_length=4)
    assert [spelled_text(group) for group in groups] == [("$", "abc"), ("c", "def"), ("f", "g$"), ("$", "xy$")]
    assert [group.id for group in groups] == ["rows:0", "rows:0/1", "rows:0/2", "rows:1"]
    assert all(all(group.completions[0].trained) for group in groups)
    assert (groups.report.rows, groups.report.used, groups.report.trained) == (2, 2, 11)


def spelled_text(group: Group) -> tuple[str, str]:
    prompt, tail = (
        "".join("$" if token == EOS else chr(token) for token in tokens) for tokens in (group.prompt, group.completions[0].tokens)
    )
    return prompt, tail


def test_a_template_without_end_of_turn_is_noted() -> None:
    tokenizer = make_byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ '\n' }}{% endfor %}"
    groups = encoded(tokenizer, "sft", [sft("U:q", "A:x")])
    assert any("no end-of-turn token is trained" in reason for reason in groups.report.noted)


def test_text_that_spells_a_special_token_is_noted(tokenizer: Any) -> None:
    groups = encoded(tokenizer, "sft", [sft("U:what is <|endoftext|>?", "A:x"), sft("U:q", "A:x")])
    assert groups.report.noted["its text spells a special token, which becomes that token"].first == ("rows:0",)


def test_rows_are_not_held_in_memory(tokenizer: Any) -> None:
    """Of 12,000 rows with 4 kB beside their text, which are 48 MB, one batch of 1,000 rows stands in memory at a time."""
    rows = (Row(f"rows:{number}", sft("U:q", "A:ok") | {"notes": "x" * 4000}) for number in range(12_000))
    tracemalloc.start()
    try:
        part = encode_part("rows", rows, tokenizer, TokeniseOptions("sft", ENOUGH), workers=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(part.arrays) == 12_000
    assert peak < 16e6


def test_many_rows_come_out_in_order(tokenizer: Any) -> None:
    groups = encoded(tokenizer, "sft", [sft("U:q", f"A:{number}") for number in range(2100)])
    assert [spelled_tail(group) for group in groups] == [[f"{number}$"] for number in range(2100)]
