"""The cache: what it is keyed by, what it gives back, and what happens when it is damaged or the disk is full."""

import errno
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from tulu.config.schema import Source
from tulu.data import datasets as data
from tulu.data import token_cache as groups
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.data.datasets import code_digest, load_groups
from tulu.errors import DataError

ROWS = [{"prompt": f"question {number}", "completion": f"answer {number}"} for number in range(20)] + [
    {"prompt": "x", "completion": " "}
]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    made = make_byte_tokenizer()
    apply_template(made, "tulu")
    return made


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return Source(name=str(path), fraction=1.0)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were tokenised, one entry each time."""
    calls: list[str] = []
    original = data.encode_part

    def counted(name: str, *rest: Any) -> Any:
        calls.append(name)
        return original(name, *rest)

    monkeypatch.setattr(data, "encode_part", counted)
    return calls


def entries(cache: Path) -> list[Path]:
    return list((cache / "tokens").iterdir())


def test_a_second_reading_comes_from_the_cache_and_is_the_same(
    tmp_path: Path, source: Source, tokenizer: Any, encodings: list[str]
) -> None:
    made = load_groups("sft", [source], tokenizer, 100, tmp_path / "cache")
    read = load_groups("sft", [source], tokenizer, 100, tmp_path / "cache")
    plain = load_groups("sft", [source], tokenizer, 100)
    assert len(encodings) == 2
    assert list(made) == list(read) == list(plain)
    assert made.digest == read.digest == plain.digest
    assert made.report == read.report == plain.report
    assert read.report.dropped["an assistant turn is empty"].count == 1
    assert isinstance(read[0].prompt[0], int)


def test_the_key_holds_everything_that_decides_the_tokens(
    tmp_path: Path, source: Source, tokenizer: Any, encodings: list[str]
) -> None:
    cache = tmp_path / "cache"
    load_groups("sft", [source], tokenizer, 100, cache)
    load_groups("sft", [source], tokenizer, 101, cache)
    load_groups("sft", [source.model_copy(update={"fraction": 0.5})], tokenizer, 100, cache)
    load_groups("sft", [source.model_copy(update={"fraction": 0.5})], tokenizer, 100, cache, seed=2)
    tokenizer.chat_template = "{# another #}" + tokenizer.chat_template
    load_groups("sft", [source], tokenizer, 100, cache)
    tokenizer.add_tokens(["question"])
    load_groups("sft", [source], tokenizer, 100, cache)
    path = Path(source.name)
    path.write_text(path.read_text().replace("answer 3", "answer X"))
    changed = load_groups("sft", [source], tokenizer, 100, cache)
    assert len(encodings) == len(entries(cache)) == 7
    assert bytes(changed[3].completions[0].tokens[:-1]) == b"answer X"


def test_pairs_of_dpo_and_reward_models_are_not_confused(tmp_path: Path, tokenizer: Any) -> None:
    source = Source(name="sums:pairs", count=50)
    cut = load_groups("pairs", [source], tokenizer, 69, tmp_path)
    dropped = load_groups("pairs", [source], tokenizer, 69, tmp_path, drop_long=True)
    assert len(dropped) < len(cut) <= 50
    assert dropped.report.rows == cut.report.rows == 50


def test_conversations_that_are_cut_and_dropped_are_not_confused(tmp_path: Path, source: Source, tokenizer: Any) -> None:
    cut = load_groups("sft", [source], tokenizer, 44, tmp_path / "cache")
    dropped = load_groups("sft", [source], tokenizer, 44, tmp_path / "cache", drop_long=True)
    # Of 20 questions and answers, those with two digits are too long by one or two tokens.
    assert (len(cut), cut.report.lost_end.count) == (20, 10)
    assert (len(dropped), dropped.report.dropped["longer than 44 tokens"].count) == (10, 10)


def test_which_turns_are_trained_is_part_of_the_key(tmp_path: Path, tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "first"}, {"role": "user", "content": "r"}]
    row = {side: [*turns, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row))
    source = Source(name=str(tmp_path / "pairs.jsonl"), fraction=1.0)
    last = load_groups("pairs", [source], tokenizer, 100, tmp_path / "cache")
    both = load_groups("pairs", [source], tokenizer, 100, tmp_path / "cache", labels="all")
    assert both.report.trained == last.report.trained + 2 * len("first$")


def test_code_is_part_of_the_key(tmp_path: Path, source: Source, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    load_groups("sft", [source], tokenizer, 100, tmp_path / "cache")
    monkeypatch.setattr(data, "code_digest", lambda: "another version")
    load_groups("sft", [source], tokenizer, 100, tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 2


PACKAGE = Path(data.__file__).parents[1]


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("data/formats.py", True),
        ("data/preferences.py", True),
        ("data/sums.py", True),
        ("data/added.py", True),
        ("data/folder/added.py", True),
        ("config/templates.py", True),
        ("config/plan.py", False),
        ("model/batch.py", False),
    ],
)
def test_a_changed_file_of_the_chapter_changes_the_key(tmp_path: Path, file: str, counts: bool) -> None:
    for chapter in ("data", "config", "model"):
        shutil.copytree(PACKAGE / chapter, tmp_path / chapter)
    before = code_digest(tmp_path)
    assert before == code_digest(PACKAGE) == code_digest()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    with (tmp_path / file).open("a") as handle:
        handle.write("# changed\n")
    code_digest.cache_clear()
    assert (code_digest(tmp_path) != before) is counts


@pytest.mark.parametrize(
    "damage", ["tokens", "trained", "bounds", "first", "margins", "ids", "id_ends", "meta.json", "gone", "short"]
)
def test_a_damaged_entry_is_found_out_and_made_again(
    tmp_path: Path, source: Source, tokenizer: Any, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = list(load_groups("sft", [source], tokenizer, 100, tmp_path / "cache"))
    [entry] = entries(tmp_path / "cache")
    if damage == "gone":
        (entry / "tokens").unlink()
    elif damage == "short":
        (entry / "tokens").write_bytes((entry / "tokens").read_bytes()[:-4])
    else:
        content = bytearray((entry / damage).read_bytes())
        content[len(content) // 2] ^= 1
        (entry / damage).write_bytes(content)
    with caplog.at_level(logging.WARNING, "tulu"):
        again = load_groups("sft", [source], tokenizer, 100, tmp_path / "cache")
    assert "damaged cache entry" in caplog.text
    assert list(again) == made
    assert entries(tmp_path / "cache") == [entry]
    assert groups.is_whole(entry)


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, source: Source, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(groups, "sync_folder", full)
    with pytest.raises(DataError, match=r"cannot be written: No space left on device; free some space"):
        load_groups("sft", [source], tokenizer, 100, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_a_mix_is_its_sources_one_after_the_other(tmp_path: Path, source: Source, tokenizer: Any, encodings: list[str]) -> None:
    sums = Source(name="sums:sft", count=5)
    both = load_groups("sft", [source, sums], tokenizer, 100, tmp_path / "cache")
    assert len(both) == 25
    assert both[20].id == both[-5].id == "sums:sft:0"
    assert [part.report.sources[0].name for part in both.parts] == [source.name, "sums:sft"]
    assert both[18:22] == [both[18], both[19], both[20], both[21]]
    assert both.lengths.tolist() == [group.n_tokens for group in both]
    assert both.report.tokens == int(both.lengths.sum())
    # A source added to a mix leaves the others' entries alone.
    load_groups("sft", [sums], tokenizer, 100, tmp_path / "cache")
    assert encodings == [source.name, "sums:sft"]
    with pytest.raises(IndexError):
        both[25]


def test_digests_tell_order_and_content_apart(source: Source, tokenizer: Any) -> None:
    sums = Source(name="sums:sft", count=5)
    mixes = ([source], [source, sums], [sums, source])
    digests = {load_groups("sft", sources, tokenizer, length).digest for sources in mixes for length in (40, 100)}
    assert len(digests) == 6


def test_text_groups_hold_no_more_than_max_length(tokenizer: Any) -> None:
    made = load_groups("text", [Source(name="sums:base", count=20)], tokenizer, 32)
    assert int(made.lengths.max()) == 32
    assert all(np.all(group.completions[0].trained) for group in made)


def test_rows_of_a_hub_without_commit_are_keyed_by_what_they_hold(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, encodings: list[str], source: Source
) -> None:
    monkeypatch.setattr(data, "content_key", lambda source, seed: None)
    load_groups("sft", [source], tokenizer, 100, tmp_path / "cache")
    load_groups("sft", [source], tokenizer, 100, tmp_path / "cache")
    assert len(encodings) == 1
    path = Path(source.name)
    path.write_text(path.read_text().replace("answer 3", "answer X"))
    load_groups("sft", [source], tokenizer, 100, tmp_path / "cache")
    assert len(encodings) == 2
