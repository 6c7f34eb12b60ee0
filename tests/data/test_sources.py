"""Every kind of file gives the same rows, and every broken one a message with its place."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tulu.config.locate import DATA_SUFFIXES, source_problem
from tulu.config.schema import Source
from tulu.data import sums
from tulu.data.sources import _READERS, content_key, load_rows
from tulu.errors import DataError

ROWS = [{"prompt": "a, b", "completion": 'say "é"\nline'}, {"prompt": "c", "completion": "d"}]


def source(name: Path | str, **fields: object) -> Source:
    return Source.model_validate({"name": str(name), **({"fraction": 1.0} if "count" not in fields else {}), **fields})


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=2))


def write_csv(path: Path) -> None:
    path.write_bytes(b'\xef\xbb\xbfprompt,completion\r\n"a, b","say ""\xc3\xa9""\nline"\r\nc,d\r\n')


def write_tsv(path: Path) -> None:
    path.write_text('prompt\tcompletion\na, b\t"say ""é""\nline"\nc\td\n')


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def write_arrow(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def write_arrow_file(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("suffix", "write", "places"),
    [
        (".jsonl", write_jsonl, [1, 2]),
        (".ndjson", write_jsonl, [1, 2]),
        (".json", write_json, [0, 1]),
        # Some .json files hold one object a line.
        (".json", write_jsonl, [1, 2]),
        # The first row's last cell holds a line break: the second row begins on line 4.
        (".csv", write_csv, [2, 4]),
        (".tsv", write_tsv, [2, 4]),
        (".parquet", write_parquet, [0, 1]),
        (".arrow", write_arrow, [0, 1]),
        (".arrow", write_arrow_file, [0, 1]),
    ],
)
def test_files(tmp_path: Path, suffix: str, write: Callable[[Path], None], places: list[int], zipped: bool) -> None:
    path = tmp_path / f"rows{suffix}"
    write(path)
    if zipped:
        data = path.read_bytes()
        path = tmp_path / f"rows{suffix}.gz"
        path.write_bytes(gzip.compress(data, mtime=0))
    rows = load_rows(source(path))
    assert [dict(row.columns) for row in rows] == ROWS
    assert [row.id for row in rows] == [f"{path}:{place}" for place in places]
    assert rows[-1] == rows[1]
    assert rows[0:2] == list(rows)


def test_one_object_alone_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(ROWS[0], indent=1))
    assert [dict(row.columns) for row in load_rows(source(tmp_path / "one.json"))] == ROWS[:1]


def test_saved_arrow_folder_and_its_splits(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "plain")
    assert [dict(row.columns) for row in load_rows(source(tmp_path / "plain"))] == ROWS
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])})
    splits.save_to_disk(tmp_path / "split")
    assert len(load_rows(source(tmp_path / "split", split="test"))) == 1
    with pytest.raises(DataError, match="no split 'dev'; set split to one of train, test"):
        load_rows(source(tmp_path / "split", split="dev"))


def shards(folder: Path, count: int = 3, rows: int = 1200) -> Path:
    """A folder as the hub keeps it, whose shards hold the numbers from 0 on."""
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# About")
    for number in range(count):
        texts = [str(number * rows + row) for row in range(rows)]
        pq.write_table(pa.table({"text": texts}), folder / f"data/train-{number:05}-of-{count:05}.parquet", row_group_size=500)
    pq.write_table(pa.table({"text": ["held out"]}), folder / "data/test-00000-of-00001.parquet")
    return folder


def test_a_folder_of_shards_is_one_data_set_with_splits(tmp_path: Path) -> None:
    folder = shards(tmp_path / "set")
    rows = load_rows(source(folder))
    assert [row.columns["text"] for row in rows] == [str(number) for number in range(3600)]
    assert rows[1200].id == f"{folder}/data/train-00001-of-00003.parquet:0"
    # Backwards and across shards, as a row that is looked up.
    assert [rows[place].columns["text"] for place in (3599, 0, 1999, 1200)] == ["3599", "0", "1999", "1200"]
    assert [row.columns["text"] for row in load_rows(source(folder, split="test"))] == ["held out"]
    assert [row.columns["text"] for row in load_rows(source(f"{folder}/data/test-*"))] == ["held out"]
    with pytest.raises(DataError, match=r"no split 'dev'.*it has: test, train"):
        load_rows(source(folder, split="dev"))


def test_a_pattern_of_lines_keeps_the_place_of_every_row(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        (tmp_path / f"part-{number}.jsonl").write_text(f'{{"text": "{number}"}}\n\n{{"text": "{number}b"}}\n')
    rows = load_rows(source(f"{tmp_path}/part-*.jsonl"))
    assert [row.columns["text"] for row in rows] == ["1", "1b", "2", "2b", "10", "10b"]
    assert [row.id for row in rows][3:] == [
        f"{tmp_path}/part-2.jsonl:3",
        f"{tmp_path}/part-10.jsonl:1",
        f"{tmp_path}/part-10.jsonl:3",
    ]
    (tmp_path / "part-2.jsonl").write_text('{"text": ')
    with pytest.raises(DataError, match=r"part-2.jsonl:1: broken JSON"):
        list(load_rows(source(f"{tmp_path}/part-*.jsonl")))


def test_the_key_of_a_folder_covers_the_files_that_are_read(tmp_path: Path) -> None:
    folder = shards(tmp_path / "set", rows=3)
    keys = [
        content_key(source(folder), 1),
        content_key(source(folder, split="test"), 1),
        content_key(source(f"{folder}/data/train*"), 1),
    ]
    (folder / "README.md").write_text("# Another")
    assert content_key(source(folder), 1) == keys[0]
    pq.write_table(pa.table({"text": ["changed"]}), folder / "data/train-00001-of-00003.parquet")
    assert content_key(source(folder), 1) != keys[0]
    assert content_key(source(folder, split="test"), 1) == keys[1]
    assert content_key(source(f"{folder}/data/train*"), 1) != keys[2]


def test_shards_are_not_held_in_memory(tmp_path: Path) -> None:
    """Of 20 shards of 4 MB each, of which the text takes 80 MB, one row group stands in memory at a time."""
    texts = [str(row).rjust(4000, "x") for row in range(1000)]
    for number in range(20):
        path = tmp_path / f"part-{number:02}.parquet"
        pq.write_table(pa.table({"text": texts}), path, row_group_size=250, compression="none", use_dictionary=False)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    held = 0
    try:
        for row in load_rows(source(f"{tmp_path}/part-*.parquet")):
            if row.id.endswith("9"):
                held = max(held, pa.total_allocated_bytes() - before)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Two shards are open: of each a chunk of 1,000 rows or two as Python's, and a row group as Arrow's.
    assert peak < 20e6
    assert held < 5e6


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": ' * 100_000])
def test_too_many_brackets_are_an_error_with_a_place(tmp_path: Path, content: bytes) -> None:
    for name in ("deep.jsonl", "deep.json"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}.*mend"):
            list(load_rows(source(tmp_path / name)))


def test_long_tables_are_read_in_chunks(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [str(number) for number in range(2345)]}), tmp_path / "long.parquet")
    rows = load_rows(source(tmp_path / "long.parquet"))
    assert [row.columns["text"] for row in rows] == [str(number) for number in range(2345)]
    assert rows[2344].id.endswith(":2344")


BROKEN_LINE_17 = b'{"text": "x"}\n' * 16 + b'{"text": "x", }\n' + b'{"text": "x"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", BROKEN_LINE_17, r"rows.jsonl:17: broken JSON at column 1\d: .*; mend or remove the line"),
        ("rows.jsonl.gz", gzip.compress(BROKEN_LINE_17, mtime=0), "rows.jsonl.gz:17: broken JSON"),
        ("rows.jsonl", b'{"text": "x"}\n"only text"\n', "rows.jsonl:2: holds a str; every row must be a JSON object"),
        ("rows.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "rows.jsonl:2: not UTF-8"),
        ("rows.json", b'[\n{"text": "x"},\n{"text": }\n]', "rows.json:3: broken JSON at column 10"),
        ("rows.json", b"[1, 2]", "entry 0: holds a int"),
        ("rows.csv", b"a,b\n1,2\n1,2,3\n", "rows.csv:3: 3 cells, but the header has 2"),
        ("rows.csv", b'a,b\n1,2\n"1,2\n', "rows.csv:3: broken CSV"),
        ("rows.parquet", b"not parquet", "broken Parquet"),
        ("rows.arrow", b"not arrow", "broken Arrow"),
        ("rows.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:-6], "broken gzip file"),
        ("rows.jsonl", b"", "the file is empty"),
        ("rows.jsonl", b"\n\n", "holds no rows"),
        ("rows.json", b"[]", "holds no rows"),
        ("rows.csv", b"a,b\n", "holds no rows"),
        ("rows.jsonl.gz", gzip.compress(b"", mtime=0), "holds no rows"),
        ("rows.txt", b"text", "unknown kind of file; known are .jsonl"),
    ],
)
def test_broken_files_say_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(load_rows(source(path)))


@pytest.mark.parametrize("name", ["missing.jsonl", "./missing", "a/b/c", "~/missing.json.gz"])
def test_missing_files_are_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_rows(source(name))


def test_every_suffix_of_the_list_has_a_reader() -> None:
    assert tuple(_READERS) == DATA_SUFFIXES
    for suffix in DATA_SUFFIXES:
        # A recipe's check and the reader agree on what can only be a file.
        assert "no such file" in (source_problem(f"missing{suffix}") or "")
        with pytest.raises(DataError, match="no such file"):
            load_rows(source(f"missing{suffix}.gz"))


def test_a_folder_that_holds_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.jsonl, .* file and no saved Arrow folder"):
        load_rows(source(tmp_path))


def test_a_hub_name_that_cannot_be_had() -> None:
    with pytest.raises(DataError, match=r"nobody/nothing: no file here, and the hub does not give it"):
        load_rows(source("nobody/nothing"))


def test_generated_tasks() -> None:
    assert [row.columns for row in load_rows(source("sums:sft", count=3), seed=5)] == sums.rows("sft", 3, 5)
    assert len(load_rows(source("sums:held_out"))) == sums.SPLITS["held_out"]
    with pytest.raises(DataError, match="no split 'dev'"):
        load_rows(source("sums:dev"))


def test_content_key_follows_the_content_not_the_name(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_jsonl(first)
    write_jsonl(second)
    assert content_key(source(first), 1) == content_key(source(second), 1)
    before = content_key(source(first), 1)
    first.write_text(first.read_text().replace("c", "x"))
    assert content_key(source(first), 1) != before
    assert content_key(source("some/hub-name"), 1) is None
    assert content_key(source("some/hub-name", revision="a" * 40), 1) is not None
    assert content_key(source("sums:sft"), 1) != content_key(source("sums:sft"), 2)
