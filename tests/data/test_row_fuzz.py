"""5,000 rows of every form, with fields dropped, doubled, null, of a wrong type, nested, huge: each is used whole or counted.

The rows come from tests/data/fuzz_rows.py, whose texts say by their tags what belongs into the tokens, and what is trained.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.data.fuzz_rows import PAIRS, PROBLEMS, SFT, is_marked, make_rows, places, tags
from tulu.config.schema import Source
from tulu.data import row_report
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.data.decontaminate import index_of
from tulu.data.problems import load_problems
from tulu.data.sources import Row
from tulu.data.token_cache import Groups
from tulu.data.tokenise import TokeniseOptions, encode_part

LONG = 10_000_000
TOOLS_TEMPLATE = """
{%- if tools %}{{ '<|system|>\nTools:' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ eos_token + '\n' }}{% endif %}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant', 'tool'] %}{{ raise_exception('no such role') }}{% endif %}
    {{- '<|' + message.role + '|>\n' + message.content }}
    {%- for call in message.tool_calls or [] %}{{ '<call>' + (call.function | tojson) + '</call>' }}{% endfor %}
    {{- eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""


@pytest.fixture(scope="module", params=["tulu", "tools"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    made = make_byte_tokenizer()
    if request.param == "tulu":
        apply_template(made, "tulu")
    else:
        made.chat_template = TOOLS_TEMPLATE
    return made


@pytest.fixture(autouse=True)
def every_row_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_report, "NAMED", 1_000_000)


def unread(report: Any) -> dict[str, set[str]]:
    """The columns that were noted as unread, by row."""
    found: dict[str, set[str]] = {}
    for reason, tally in report.noted.items():
        if column := re.fullmatch(r"column (\w+) is not read", reason):
            for row_id in tally.first:
                found.setdefault(row_id, set()).add(column[1])
    return found


def check_counts(report: Any, used: list[str]) -> None:
    dropped = [row_id for tally in report.dropped.values() for row_id in tally.first]
    assert len(dropped) + len(used) == report.rows == len({*dropped, *used})
    # Reasons are kinds of faults: rows that say a thousand things are not dropped for a thousand reasons.
    assert len(report.dropped) < 70


def check_sound_rows_are_read(notes: dict[str, set[str]], sound: set[int], first_line: int = 0) -> None:
    """No column of a row that was not spoiled is unread."""
    assert not {row_id for row_id in notes if int(row_id.rpartition(":")[2].partition("/")[0]) - first_line in sound}


def spelled(tokenizer: Any, tokens: Any) -> str:
    return str(tokenizer.decode(list(tokens)))


def test_conversations_are_trained_whole_or_counted(tokenizer: Any) -> None:
    rows, sound = make_rows(SFT, 1300, 1)
    part = encode_part("fuzz", placed(rows), tokenizer, TokeniseOptions("sft", LONG), workers=1)
    check_counts(part.report, list(part.ids))
    notes = unread(part.report)
    check_sound_rows_are_read(notes, sound)
    has_tools = "tools" in tokenizer.chat_template
    for group in Groups([part]):
        row = rows[int(group.id.split(":")[1])]
        said_here = tags({name: value for name, value in row.items() if name not in notes.get(group.id, ())})
        completion = group.completions[0]
        text = spelled(tokenizer, [*group.prompt, *completion.tokens])
        assert said_here - after_the_last_answer(row) <= tags(text) <= tags(row), group.id
        runs = "".join(
            spelled(tokenizer, [token]) if flag and token < 128 else "\0" if not flag else ""
            for token, flag in zip(completion.tokens, completion.trained, strict=True)
        )
        answered = {tag for tag in tags(text) if tag[0] in "ac" or (tag[0] == "n" and not is_marked(row, tag))}
        assert answered <= tags(runs), group.id
        extra = tags(runs) - answered
        assert all(tag[0] == "x" or (tag[0] == "f" and has_tools) for tag in extra), group.id
        assert not any(tag[0] in "us" for tag in extra)
        if int(group.id.split(":")[1]) in sound:
            check_turns(row, completion, tokenizer)
    kept = {int(row_id.split(":")[1]) for row_id in part.ids}
    assert {number for number in sound if has_tools or not {"tools", "functions"} & rows[number].keys()} <= kept


def after_the_last_answer(row: dict[str, Any]) -> set[str]:
    """The tags of the messages behind the last trained one, which nothing reads."""
    behind: set[str] = set()
    for name in ("messages", "conversations", "prompt", "completion"):
        try:
            messages = json.loads(row[name]) if isinstance(row.get(name), str) else row.get(name)
        except ValueError:
            continue
        if isinstance(messages, list):
            answered = [index for index, message in enumerate(messages) if any(tag[0] in "acx" for tag in tags(message))]
            behind |= tags(messages[answered[-1] + 1 :]) if answered else set()
    return behind


def check_turns(row: dict[str, Any], completion: Any, tokenizer: Any) -> None:
    """The trained tokens of a sound row are its answers, each with its end, and nothing else."""
    trained = [token for token, flag in zip(completion.tokens, completion.trained, strict=True) if flag]
    turns = spelled(tokenizer, trained).split("<|endoftext|>")
    assert turns.pop().strip() == ""
    texts = {inner for holder, key in places([row]) if isinstance(inner := holder[key], str)}
    for holder, key in places([row]):
        if isinstance(holder[key], str) and holder[key].startswith("[{"):
            texts |= {inner for other, at in places(json.loads(holder[key])) if isinstance(inner := other[at], str)}
    assert all("<call>" in turn or turn.strip("\n") in {text.strip() for text in texts} for turn in turns)


def placed(rows: list[dict[str, Any]]) -> list[Row]:
    return [Row(f"fuzz:{number}", row) for number, row in enumerate(rows)]


def test_pairs_are_compared_whole_or_counted(tokenizer: Any) -> None:
    rows, sound = make_rows(PAIRS, 700, 2)
    part = encode_part("fuzz", placed(rows), tokenizer, TokeniseOptions("pairs", LONG), workers=1)
    check_counts(part.report, list(part.ids))
    notes = unread(part.report)
    check_sound_rows_are_read(notes, sound)
    for group in Groups([part]):
        number = int(group.id.split(":")[1].split("/")[0])
        row = rows[number]
        if "/" not in group.id:
            said_here = tags({name: value for name, value in row.items() if name not in notes.get(group.id, ())})
            text = spelled(tokenizer, [*group.prompt, *(token for side in group.completions for token in side.tokens)])
            assert said_here <= tags(text) <= tags(row), group.id
        for side, letter in zip(group.completions, "ar", strict=True):
            trained = [token for token, flag in zip(side.tokens, side.trained, strict=True) if flag]
            assert trained[-1] == tokenizer.eos_token_id or "tools" in tokenizer.chat_template
            if number in sound:
                assert {tag[0] for tag in tags(spelled(tokenizer, trained))} == {letter}
    kept = {int(row_id.split(":")[1].split("/")[0]) for row_id in part.ids}
    assert {number for number in sound if "tools" not in rows[number] or "tools" in tokenizer.chat_template} <= kept


@pytest.mark.parametrize("reader", ["problems", "questions"])
def test_problems_are_asked_whole_or_counted(
    tmp_path: Path, tokenizer: Any, reader: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows, sound = make_rows(PROBLEMS, 500, 3)
    for row in rows:
        # A verifier that nobody knows is a mistake of the recipe, which stops it; that is tested elsewhere.
        named: Any = row.get("dataset")
        names = named if isinstance(named, list) else [named]
        row |= {"dataset": 5} if any(isinstance(name, str) and name not in ("exact", "string_f1") for name in names) else {}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if reader == "questions":
        index = index_of([Source(name=str(path), fraction=1.0)])
        dropped = int(re.search(r"held-out questions: (\d+) of 500 rows used", caplog.text)[1])  # type: ignore[index]
        assert len(index.ids) + len(index.too_short) == dropped >= len(sound)
        return
    found = load_problems([Source(name=str(path), fraction=1.0)], tokenizer, LONG, bad_golds="skip")
    check_counts(found.report, [problem.id for problem in found])
    notes = unread(found.report)
    check_sound_rows_are_read(notes, sound, first_line=1)
    for problem in found:
        row = rows[int(problem.id.rpartition(":")[2]) - 1]
        asked = {name: value for name, value in row.items() if name not in notes.get(problem.id, ()) and name not in ANSWERED}
        text = tags(spelled(tokenizer, problem.prompt))
        assert {tag for tag in tags(asked) if tag[0] in "usfnx"} <= text | last_answer(row), problem.id
        assert not any(tag[0] in "ag" for tag in text)


ANSWERED = (
    "ground_truth",
    "answer",
    "completion",
    "response",
    "output",
    "chosen",
    "rejected",
    "label",
    "text",
    "kwargs",
    "dataset",
)


def last_answer(row: dict[str, Any]) -> set[str]:
    """The tags of a demonstration at the end of the messages, which is no part of the prompt."""
    messages = next((row[name] for name in ("messages", "prompt", "question", "problem") if row.get(name) is not None), None)
    return tags(messages[-1]) if isinstance(messages, list) and messages else set()
