"""Files of token ids with their masks: on paper, against the original's rule, without a copy, and what is wrong with them."""

import json
import logging
import tracemalloc
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from tulu.cli import app
from tulu.config.parts import Source
from tulu.data import token_files
from tulu.data.chat import make_byte_tokenizer
from tulu.data.datasets import cache_groups, load_groups, open_groups
from tulu.errors import DataError

TOKENIZER = make_byte_tokenizer()
END = TOKENIZER.eos_token_id
"""The end-of-text token, beyond 255, so that token ids take two bytes."""


def write(folder: Path, *parts: tuple[list[int], list[int]], dtype: str = "uint16") -> Source:
    folder.mkdir(exist_ok=True)
    for number, (tokens, mask) in enumerate(parts):
        np.array(tokens, dtype).tofile(folder / f"token_ids_part_{number:04d}.npy")
        np.array(mask, np.bool_).tofile(folder / f"labels_mask_part_{number:04d}.npy")
    return Source(name=str(folder), fraction=1.0)


def rows(source: Source, length: int = 100, **options: Any) -> list[tuple[str, list[int], list[int], list[bool]]]:
    groups = load_groups("sft", [source], TOKENIZER, length, **options)
    return [
        (group.id.rpartition("/")[2], list(group.prompt), list(one.tokens), list(one.trained))
        for group in groups
        for one in group.completions
    ]


def test_on_paper(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two documents and a rest in one file, one document in the next; what follows the last trained token is never read."""
    source = write(
        tmp_path / "data",
        ([10, 11, 12, END, 20, 21, 22, 23, END, 30], [0, 0, 1, 1, 0, 1, 0, 1, 0, 1]),
        ([40, 41, END], [1, 1, 1]),
    )
    caplog.set_level(logging.WARNING, "tulu")
    groups = load_groups("sft", [source], TOKENIZER, 100)
    assert rows(source) == [
        ("token_ids_part_0000.npy:0", [10, 11], [12, END], [True, True]),
        ("token_ids_part_0000.npy:1", [20], [21, 22, 23], [True, False, True]),
        ("token_ids_part_0001.npy:0", [40], [41, END], [True, True]),
    ]
    assert groups.report.lines()[1:] == [
        f"1 tokens after the last end-of-text token belong to no document: 1 ({tmp_path}/data/token_ids_part_0000.npy)"
    ]
    assert (groups.report.used, groups.report.tokens) == (3, 4 + 4 + 3)
    assert groups.lengths.tolist() == [4, 4, 3]
    assert groups.completions.tolist() == [1, 1, 1]


def test_long_documents_are_cut_off_or_left_out(tmp_path: Path) -> None:
    document = [1, 2, 3, 4, 5, END]
    source = write(tmp_path / "data", (document * 2 + [7, END], [*(0, 0, 1, 1, 1, 1), *(0, 0, 0, 0, 1, 1), *(0, 1)]))
    assert [row[1:3] for row in rows(source, 4)] == [([1, 2], [3, 4]), ([7], [END])]
    assert [row[1:3] for row in rows(source, 4, drop_long=True)] == [([7], [END])]
    groups = load_groups("sft", [source], TOKENIZER, 4)
    assert groups.report.dropped["nothing to train on after truncation"].count == 1
    assert (groups.report.truncated.count, groups.report.lost_end.count) == (1, 1)


def test_a_document_without_a_trained_token_is_left_out(tmp_path: Path) -> None:
    """The first token of a document is predicted by nothing, so a document of which it alone is trained has none."""
    source = write(tmp_path / "data", ([1, END, 2, END, 3, END], [0, 0, 1, 0, 0, 1]))
    assert rows(source) == [("token_ids_part_0000.npy:2", [3], [END], [True])]
    assert load_groups("sft", [source], TOKENIZER, 9).report.dropped["nothing to train on"].count == 2
    with pytest.raises(DataError, match="none of 1 rows can be used: nothing to train on"):
        rows(write(tmp_path / "none", ([1, END], [0, 0])))


@pytest.mark.parametrize("window", [1, 7, 64, 1 << 24])
def test_windows_find_what_the_original_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """The oracle is the original's rule, document by document over the whole file."""
    random = np.random.RandomState(0)
    tokens = random.choice([5, 6, 7, END], size=500, p=[0.4, 0.3, 0.2, 0.1])
    mask = random.rand(500) < 0.3
    source = write(tmp_path / "data", (tokens.tolist(), mask.tolist()))
    expected, start = [], 0
    for end in np.flatnonzero(tokens == END) + 1:
        cut = min(end, start + 12)
        labels = [place for place in range(start + 1, cut) if mask[place]]
        if labels:
            expected.append([(int(tokens[place]), place) for place in labels])
        start = int(end)
    monkeypatch.setattr(token_files, "_WINDOW", window)
    found = rows(source, 12)
    trained = [[token for token, flag in zip(completion, flags, strict=True) if flag] for _, _, completion, flags in found]
    assert trained == [[token for token, _ in labels] for labels in expected]


def test_samples_and_copies(tmp_path: Path) -> None:
    parts = [([place, END], [0, 1]) for place in range(10)]
    whole = write(tmp_path / "data", *parts)
    twice = rows(whole.model_copy(update={"fraction": 2.5}))
    assert len(twice) == 25
    assert [row[0] for row in twice[10:20]] == [f"{row[0]}#2" for row in twice[:10]]
    assert len(rows(Source(name=whole.name, count=3))) == 3
    one = Source(name=f"{whole.name}/token_ids_part_0003.npy", fraction=1.0)
    assert rows(one) == [("token_ids_part_0003.npy:0", [3], [END], [True])]
    some = Source(name=f"{whole.name}/token_ids_part_000[12].npy", fraction=1.0)
    assert [row[1] for row in rows(some)] == [[1], [2]]


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_the_type_is_the_smallest_that_holds_the_vocabulary_unless_it_is_stated(tmp_path: Path, dtype: str) -> None:
    source = write(tmp_path / "data", ([1, 2, END], [0, 1, 1]), dtype=dtype)
    assert rows(source.model_copy(update={"dtype": dtype})) == [("token_ids_part_0000.npy:0", [1], [2, END], [True, True])]
    if dtype != "uint16":
        # Read as two bytes each, the mask has half as many.
        with pytest.raises(DataError, match="which are not as many"):
            rows(source)


def damage(kind: str, folder: Path) -> None:
    tokens, mask = folder / "token_ids_part_0000.npy", folder / "labels_mask_part_0000.npy"
    if kind == "odd":
        tokens.write_bytes(tokens.read_bytes()[:-1])
    elif kind == "short":
        tokens.write_bytes(tokens.read_bytes()[:-2])
    elif kind == "mask":
        mask.unlink()
    elif kind == "empty":
        tokens.write_bytes(b"")
        mask.write_bytes(b"")
    elif kind == "saved":
        np.save(tokens, np.array([1, 2, END], np.uint16))
    elif kind == "labels":
        mask.write_bytes(bytes([0, 7, 1]))
    elif kind == "vocabulary":
        np.array([1, 60_000, END], np.uint16).tofile(tokens)
    elif kind == "no end":
        np.array([1, 2, 3], np.uint16).tofile(tokens)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("odd", "its 5 bytes are no token ids of 2 bytes each (uint16); copy it again, or set dtype"),
        ("short", "has 2 token ids of uint16, and labels_mask_part_0000.npy 3 bytes, which are not as many"),
        ("mask", "its mask labels_mask_part_0000.npy is not beside it"),
        ("empty", "its 0 bytes are no token ids"),
        ("saved", "was written by numpy.save"),
        ("labels", "holds other bytes than 0 and 1"),
        ("vocabulary", "token id 60,000 at place 1 is none of"),
        ("no end", "no end-of-text token"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, kind: str, message: str) -> None:
    source = write(tmp_path / "data", ([1, 2, END], [0, 1, 1]))
    damage(kind, tmp_path / "data")
    with pytest.raises(DataError) as error:
        rows(source)
    assert message in str(error.value)


def test_everything_that_is_wrong_is_one_message(tmp_path: Path) -> None:
    source = write(tmp_path / "data", *[([1, 2, END], [0, 1, 1])] * 3)
    damage("odd", tmp_path / "data")
    (tmp_path / "data" / "labels_mask_part_0002.npy").unlink()
    with pytest.raises(DataError, match="2 problems with files of token ids"):
        rows(source)


def test_only_sft_reads_them_and_only_they_have_a_type(tmp_path: Path) -> None:
    source = write(tmp_path / "data", ([1, 2, END], [0, 1, 1]))
    with pytest.raises(DataError, match="token ids, which sft alone reads"):
        load_groups("pairs", [source], TOKENIZER, 9)
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(DataError, match="dtype belongs to files of token ids"):
        load_groups("sft", [Source(name=str(tmp_path / "rows.jsonl"), fraction=1.0, dtype="uint16")], TOKENIZER, 9)


def test_the_cache_keeps_an_index_and_follows_the_content(tmp_path: Path) -> None:
    source = write(tmp_path / "data", ([1, 2, END] * 3, [0, 1, 1] * 3))
    cache = tmp_path / "cache"

    def made() -> list[Path]:
        return cache_groups("sft", [source], TOKENIZER, 9, cache)

    [entry] = made()
    assert sorted(file.name for file in entry.iterdir()) == ["meta.json", "spans"]
    before, plain = open_groups([entry]), load_groups("sft", [source], TOKENIZER, 9)
    assert before.digest == plain.digest
    assert [vars_of(group) for group in before] == [vars_of(group) for group in plain]
    assert made() == [entry]
    (entry / "spans").write_bytes(b"damaged")
    assert made() == [entry]
    assert open_groups([entry]).digest == plain.digest
    np.array([1, 3, END] * 3, np.uint16).tofile(tmp_path / "data" / "token_ids_part_0000.npy")
    [other] = made()
    assert other != entry
    assert open_groups([other]).digest != plain.digest
    assert json.loads((other / "meta.json").read_text())["report"]["rows"] == 3


def vars_of(group: Any) -> tuple[Any, ...]:
    return group.id, group.prompt, group.completions


def test_memory_does_not_grow_with_the_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 million token ids in documents of a thousand: an index of 8,000 lines, and windows of 64 thousand tokens."""
    tokens = np.tile(np.array([5] * 999 + [END], np.uint16), 8_000)
    folder = tmp_path / "data"
    folder.mkdir()
    tokens.tofile(folder / "token_ids_part_0000.npy")
    np.tile(np.array([0] * 500 + [1] * 500, np.bool_), 8_000).tofile(folder / "labels_mask_part_0000.npy")
    del tokens
    monkeypatch.setattr(token_files, "_WINDOW", 1 << 16)
    tracemalloc.start()
    groups = load_groups("sft", [Source(name=str(folder), fraction=1.0)], TOKENIZER, 4096)
    group = groups[7_999]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(groups), len(group.prompt), group.completions[0].n_trained) == (8_000, 500, 500)
    # The hash of the files is taken through a buffer of 16 MB.
    assert peak < 22e6


def test_a_stage_trains_on_them(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    documents = [[*b"add 1 and 2: ", *b"three" * (place % 3 + 1), END] for place in range(12)]
    masks = [[0] * 13 + [1] * (len(document) - 13) for document in documents]
    write(tmp_path / "data", ([*chain(*documents)], [*chain(*masks)]))
    sft = {"data": str(tmp_path / "data"), "max_length": 64, "batch_tokens": 96, "epochs": 1.0, "learning_rate": 1e-3}
    recipe = {"name": "tokens", "model": str(tiny_model("olmo2")), "template": "tulu", "sft": {**sft, "precision": "fp32"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    result = CliRunner().invoke(app, ["sft", str(tmp_path / "recipe.yaml"), "--runs", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "tokens" / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["sequences"] for line in lines) == 12
    assert sum(line["tokens"] for line in lines) == sum(map(len, documents))
    shown = CliRunner().invoke(app, ["data", str(tmp_path / "recipe.yaml")], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert "add 1 and 2" in shown.output
