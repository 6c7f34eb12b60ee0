"""Files that are never half of something, and logs of rows that a crash cannot spoil."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tulu import files
from tulu.errors import CheckpointError
from tulu.files import JsonLines, differences, finite, remove_partials, write_atomic


def whole_row(row: dict[str, Any], _where: str) -> dict[str, Any]:
    return row


def test_rows_come_back_with_their_place(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    assert log.read(whole_row) == []
    log.append([{"step": 1}, {"step": 2}])
    log.append([{"step": 3}])
    assert log.read(lambda row, where: (row["step"], where)) == [(n, f"{log.path}:{n}") for n in (1, 2, 3)]


@pytest.mark.parametrize("cut", ['{"step": 3, "te', '{"step": 3}', "{", "\u00fc"])
def test_a_last_line_that_was_cut_is_removed(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "log.jsonl"
    JsonLines(path).append([{"step": 1}, {"step": 2}])
    whole = path.read_bytes()
    path.write_bytes(whole + cut.encode())
    assert len(JsonLines(path).read(whole_row)) == 2
    assert path.read_bytes() == whole
    path.write_bytes(whole + cut.encode())
    JsonLines(path).append([{"step": 4}])
    assert [row["step"] for row in JsonLines(path).read(whole_row)] == [1, 2, 4]


def test_a_file_that_is_all_one_cut_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"a')
    assert JsonLines(path).read(whole_row) == []
    assert path.read_bytes() == b""


def test_only_a_newline_ends_a_row(tmp_path: Path) -> None:
    texts = ["a\u2028b", "a\u0085b\x0c\x1c", "\r\n", "\ud83d alone", "ü 🙂"]
    log = JsonLines(tmp_path / "log.jsonl")
    log.append({"text": text} for text in texts)
    assert log.read(lambda row, _: row["text"]) == texts
    log.keep(lambda row: "b" not in row["text"])
    assert log.read(lambda row, _: row["text"]) == texts[2:]
    log.path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "reason"), [("nonsense", "Expecting value"), ("[1]", "list where an object belongs"), ('{"other": 1}', "'step'")]
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(CheckpointError, match=rf"log\.jsonl:2: not a row of this command \(.*{reason}.*--fresh starts over"):
        JsonLines(path).read(lambda row, _: row["step"])


def test_keep_removes_rows_and_what_cannot_be_read(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.keep(lambda row: True)
    assert not log.path.exists()
    log.path.write_text('{"step": 1}\nnonsense\n{"step":  2}\n{"step": 3}\n{"step": 2, "cu')
    log.keep(lambda row: row["step"] <= 2)
    assert log.path.read_text() == '{"step": 1}\n{"step":  2}\n', "the lines that stay are the same to the byte"


def test_rows_are_on_the_disk_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("tulu.files.os.fsync", synced.append)
    JsonLines(tmp_path / "log.jsonl").append([{"step": 1}])
    assert len(synced) == 1


def test_what_json_cannot_write_is_an_error_unless_somebody_says_how(tmp_path: Path) -> None:
    row = {"answer": Path("x")}
    with pytest.raises(TypeError):
        JsonLines(tmp_path / "a").append([row])
    JsonLines(tmp_path / "b", default=str).append([row])
    assert json.loads((tmp_path / "b").read_text()) == {"answer": "x"}


def test_finite() -> None:
    assert finite({"a": [math.nan, 1.0, (2, -math.inf)], "b": "nan"}) == {"a": [None, 1.0, [2, None]], "b": "nan"}


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 -> 2"]),
        ({"sft": {"lr": 0.1, "n": 1}}, {"sft": {"lr": 0.2, "n": 1}}, ["sft.lr: 0.1 -> 0.2"]),
        ({"a": 1}, {"b": 1}, ["a: 1 -> null", "b: null -> 1"]),
        ({"data": [1, 2]}, {"data": [1, 3]}, ["data: [1, 2] -> [1, 3]"]),
        ({"lora": None}, {"lora": {"rank": 4}}, ['lora: null -> {"rank": 4}']),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": "1"}, {"a": 1}, ['a: "1" -> 1']),
        ({"a": 1, "b": 2}, {"b": 3, "c": None}, ["a: 1 -> null", "b: 2 -> 3"]),
    ],
)
def test_differences_are_one_line_each(before: Any, after: Any, lines: list[str]) -> None:
    assert differences(before, after) == lines


def test_write_atomic_leaves_the_old_file_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_atomic(file, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "old"


def test_remove_partials_takes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".partial-a").mkdir()
    (tmp_path / ".partial-a" / "b").write_text("")
    (tmp_path / ".partial-c").write_text("")
    (tmp_path / "kept").write_text("")
    remove_partials(tmp_path)
    remove_partials(tmp_path / "absent")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
