"""Rollouts out of Parquet files: filters against plain loops, the sample's kinds, and tokens told apart."""

import math
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from tests.report.made_run import make_run, make_stage, rollout_row, write_rollouts, write_rows
from tulu.data.chat import make_byte_tokenizer
from tulu.report import page, rollout_views
from tulu.report.filters import BadQuestion, Wanted, listing
from tulu.report.page import LEVELS
from tulu.report.rollout_files import Damaged, Index, Indexes, RolloutFile, rollout_files
from tulu.report.rollout_views import cut, group_view, pieces, read_group
from tulu.report.runs import read_run
from tulu.report.sampling import SAMPLE, Tally, count_again, draw_sample, take_census


def oracle(steps: range, groups: int, samples: int) -> list[dict[str, Any]]:
    """Every completion of the made run, the newest step first."""
    return [
        {"step": step, **rollout_row(step, group, member)}
        for step in reversed(steps)
        for group in range(groups)
        for member in range(samples)
    ]


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({}, lambda row: True),
        ({"step_min": "3", "step_max": "4"}, lambda row: 3 <= row["step"] <= 4),
        ({"reward_min": "1"}, lambda row: row["reward"] >= 1),
        ({"reward_max": "0.5"}, lambda row: row["reward"] <= 0.5),
        ({"verifier": "ifeval"}, lambda row: row["verifier"] == "ifeval"),
        ({"verifier": "absent"}, lambda row: False),
        ({"truncated": "yes"}, lambda row: row["finish"] == "length"),
        ({"masked": "yes"}, lambda row: row["status"] != "ok"),
        ({"masked": "no", "truncated": "no"}, lambda row: row["status"] == "ok" and row["finish"] == "stop"),
        ({"tokens_min": "15", "tokens_max": "15"}, lambda row: row["tokens"] == 15),
        ({"stage": "0/rlvr", "step_max": "2"}, lambda row: row["step"] <= 2),
    ],
)
def test_filters_find_what_a_plain_loop_finds(fields: dict[str, str], fits: Any, tmp_path: Path) -> None:
    make_stage(tmp_path / "rlvr", "rlvr", 6, "")
    write_rollouts(tmp_path / "rlvr", range(1, 7), groups=5, samples=4, part=3)
    runs, indexes = [read_run(tmp_path)], Indexes()
    expected = [row for row in oracle(range(1, 7), 5, 4) if fits(row)]
    shown: list[dict[str, Any]] = []
    for offset in range(0, max(1, len(expected)), 7):
        found = listing(runs, Wanted.of(fields), offset, 7, indexes)
        assert found["total"] == len(expected)
        shown += found["rows"]
    assert [(row["step"], row["preview"]) for row in shown] == [(row["step"], row["completion"]) for row in expected]
    assert [row["masked"] for row in shown] == [row["status"] != "ok" for row in expected]


@pytest.mark.parametrize(
    "fields", [{"step_min": "x"}, {"reward_max": "nan"}, {"truncated": "maybe"}, {"stage": "0/../../etc"}, {"stage": "9/rlvr"}]
)
def test_a_question_without_sense_is_refused(fields: dict[str, str], tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / "demo", steps=2))]
    with pytest.raises(BadQuestion):
        listing(runs, Wanted.of(fields), 0, 9, Indexes())


def test_files_of_earlier_versions_are_read_without_the_columns_they_lack(tmp_path: Path) -> None:
    old = [rollout_row(1, group, member) for group in range(3) for member in range(2)]
    for row in old:
        for name in ("group", "verifier", "token_ids", "token_mismatch"):
            del row[name]
    write_rows(tmp_path / "step-000001.parquet", old)
    index = RolloutFile(tmp_path / "step-000001.parquet", 1).index()
    assert index.starts.tolist() == [0, 2, 4, 6]
    assert index.verifiers[int(index.verifier[0])] == "not recorded"
    rows = read_group(RolloutFile(tmp_path / "step-000001.parquet", 1), index, 1, 9)
    view = group_view(1, 1, rows, None, 100)
    assert [row["text"] for row in view["rows"]] == ["1.1.0 so #### 1", "1.1.1 so #### 1"]
    assert "pieces" not in view["rows"][0]


@pytest.mark.parametrize("column", ["score", "reward", "status", "finish", "verifier", "tokens", "group"])
def test_a_column_of_another_type_than_it_should_have_is_taken_as_absent(column: str, tmp_path: Path) -> None:
    rows = [{**rollout_row(1, 0, member), column: [["odd"]]} for member in range(3)]
    file = RolloutFile(tmp_path / "step-000001.parquet", 1)
    write_rows(file.path, rows)
    index = file.index()
    assert len(index) == 3
    group = int(index.group[0])
    assert len(group_view(1, group, read_group(file, index, group, 9), None, 50)["rows"]) in (1, 3)


def test_a_damaged_file_and_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    for name, content in (("step-000001.parquet", b"PAR1 nothing"), ("step-000002.parquet", b"")):
        (tmp_path / "rollouts" / name).write_bytes(content)
    pq.write_table(pa.table({"reward": pa.array([], pa.float64())}), tmp_path / "rollouts" / "step-000003.parquet")
    (tmp_path / "rollouts" / "step-x.parquet").write_bytes(b"")
    files = rollout_files(tmp_path)
    assert [file.step for file in files] == [1, 2, 3]
    with pytest.raises(Damaged):
        files[0].index()
    census = take_census(files, Indexes())
    assert [file.step for file, _ in census.damaged] == [1, 2]
    assert (census.rollouts, draw_sample(census)) == (0, [])


def test_the_sample_holds_every_kind_and_whole_groups(tmp_path: Path) -> None:
    """Of 100 steps with 10 groups a single group is solved by all: it is in a sample of a hundredth."""
    make_stage(tmp_path / "rlvr", "rlvr", 100, "")
    write_rollouts(tmp_path / "rlvr", range(1, 101), groups=10, samples=4)
    rare = [{**rollout_row(50, 0, member), "score": 1.0, "reward": 1.0} for member in range(4)]
    write_rows(tmp_path / "rlvr/rollouts/step-000050.parquet", rare)
    census = take_census(rollout_files(tmp_path / "rlvr"), Indexes())
    assert census.rollouts == 99 * 40 + 4
    assert census.masked == 99 * 2
    assert census.faults == Counter({("gsm8k", "timeout", "took 5 s"): 99, ("ifeval", "timeout", "took 5 s"): 99})
    known: dict[Any, Any] = {}
    for _ in range(2):
        again = count_again(rollout_files(tmp_path / "rlvr"), Indexes(), known)
        assert len(known) == 100
        assert all(getattr(again, name) == getattr(census, name) for name in Tally.__dataclass_fields__)
    chosen = draw_sample(census, 400)
    assert 380 <= sum(drawn.count for drawn in chosen) <= 400
    assert (50, 0) in {(drawn.file.step, drawn.group) for drawn in chosen}
    # Every tenth of the run is there as often as every other.
    tenths = Counter((drawn.file.step - 1) // 10 for drawn in chosen)
    assert set(tenths) == set(range(10))
    assert max(tenths.values()) - min(tenths.values()) <= 4
    assert chosen == draw_sample(census, 400)
    assert len({(drawn.file.step, drawn.group) for drawn in chosen}) == len(chosen)


def test_a_group_larger_than_a_sample_stands_with_its_first_completions(tmp_path: Path) -> None:
    file = RolloutFile(tmp_path / "rollouts" / "step-000001.parquet", 1)
    file.path.parent.mkdir()
    write_rows(file.path, [rollout_row(1, 0, member) for member in range(SAMPLE + 50)])
    [drawn] = draw_sample(take_census([file], Indexes()))
    assert drawn.count == SAMPLE
    assert len(read_group(file, file.index(), 0, drawn.count)) == SAMPLE


def test_indexes_are_kept_within_their_room_and_read_again_where_a_file_is_replaced(tmp_path: Path) -> None:
    write_rollouts(tmp_path, range(1, 4), groups=2, samples=2)
    files, indexes = rollout_files(tmp_path), Indexes(room=9)
    first = [indexes.of(file) for file in files]
    assert indexes.of(files[2]) is first[2]
    assert indexes.of(files[0]) is not first[0], "three files of four completions do not fit a room of nine"
    write_rows(files[2].path, [rollout_row(3, 0, 0)])
    assert len(indexes.of(files[2])) == 1


def test_tokens_add_up_to_the_text_whatever_they_split() -> None:
    tokenizer = Tokenizer.from_str(make_byte_tokenizer().backend_tokenizer.to_str())
    for text in ("so #### 7", "größer 😀 汉字", "<|user|>\n", ""):
        tokens = tokenizer.encode(text, add_special_tokens=False).ids
        found = pieces(tokenizer, tokens)
        assert len(found) == len(tokens)
        assert "".join(found) == text
    # Bytes that are no text show as such, and the tokens behind them are read again.
    broken = pieces(tokenizer, [0xFF, 0xFE, *b"abc"])
    assert len(broken) == 5
    assert "".join(broken).endswith("abc")


def test_tokens_that_never_become_a_character_cost_no_more_than_others() -> None:
    """The library's stream decodes all tokens again that have no text yet: 8,000 of them took eight seconds."""
    tokenizer = Tokenizer.from_str(make_byte_tokenizer().backend_tokenizer.to_str())
    began = time.process_time()
    found = pieces(tokenizer, [200] * 8000)
    assert time.process_time() - began < 2
    assert found == ["\N{REPLACEMENT CHARACTER}"] * 8000
    # What begins a character at the end of them is read with the rest of it, wherever the stream begins anew.
    for count in range(30):
        assert "".join(pieces(tokenizer, [200] * count + [*"€".encode(), *"😀 so".encode()])).endswith("€😀 so"), count
    assert pieces(tokenizer, [*b"ab", 0xE2, 0x82]) == ["a", "b", *["\N{REPLACEMENT CHARACTER}"] * 2], "an answer that was cut off"


def test_no_more_tokens_are_decoded_than_are_shown() -> None:
    tokenizer = Tokenizer.from_str(make_byte_tokenizer().backend_tokenizer.to_str())
    assert pieces(tokenizer, [*b"abcdef"], 3) == ["a", "b", "c"]
    assert pieces(tokenizer, [*"a€bc".encode()], 2) == ["a", "", "", "€"]
    assert sum(map(len, pieces(tokenizer, [200] * 1000, 20))) <= 26


def test_a_page_that_is_too_large_shortens_texts_that_it_decodes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rollouts(make_run(tmp_path / "demo") / "rlvr", range(1, 3), groups=2, samples=2, text="#" * 3000)
    decoded: list[int] = []

    def counted(tokenizer: Tokenizer, tokens: list[int], most: int) -> list[str]:
        decoded.append(most)
        return pieces(tokenizer, tokens, most)

    monkeypatch.setattr(rollout_views, "pieces", counted)
    monkeypatch.setattr(page, "LEVELS", [replace(level, packed=1500) for level in LEVELS])
    indexes = Indexes()
    assert f"of {2 * 4 + 10 * 16} rollouts" in page.report_page(page.gather([tmp_path / "demo"], indexes), indexes)
    assert decoded == [LEVELS[0].text] * (2 * 4 + 10 * 16)


def test_long_texts_lose_their_middle_and_say_so() -> None:
    assert cut("abc", 3) == ("abc", 0)
    shown, lost = cut("a" * 60 + "b" * 60, 30)
    assert lost == 90
    assert shown == "a" * 20 + " ⋯ 90 characters ⋯ " + "b" * 10


def test_numbers_of_tokens_stand_with_their_tokens(tmp_path: Path) -> None:
    row = rollout_row(1, 0, 0)
    row["token_mismatch"][2] = math.nan
    row["token_trained"] = [place != 2 for place in range(len(row["token_ids"]))]
    file = RolloutFile(tmp_path / "step-000001.parquet", 1)
    write_rows(file.path, [row])
    tokenizer = Tokenizer.from_str(make_byte_tokenizer().backend_tokenizer.to_str())
    [shown] = group_view(1, 0, read_group(file, file.index(), 0, 9), tokenizer, 9)["rows"]
    assert shown["pieces"] == list(row["completion"][:9])
    assert shown["token_mismatch"] == pytest.approx([-0.03, -0.02, None, 0.0, 0.01, 0.02, 0.03, -0.03, -0.02])
    assert shown["token_trained"] == [1, 1, 0, 1, 1, 1, 1, 1, 1]
    assert shown["cut"] == len(row["token_ids"]) - 9


def test_a_completion_without_a_reward_is_within_no_bounds() -> None:
    zeros = np.zeros(2)
    flags = np.zeros(2, bool)
    reward = np.array([math.nan, 0.0])
    index = Index(1, zeros, reward, zeros, flags, flags, zeros.astype(int), ("a",), np.array([0, 0]))
    assert Wanted.of({"reward_min": "-inf", "reward_max": "5"}).places(index).tolist() == [1]
    assert Wanted.of({}).places(index).tolist() == [0, 1]
