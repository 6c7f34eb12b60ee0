"""Files of a run as they are found: damage is named and never an error."""

import json
from pathlib import Path

import pytest

from tulu.report import reading
from tulu.report.reading import Faults, number, pair, read_json, read_lines, read_yaml


def test_damaged_lines_are_counted_and_a_line_that_is_being_written_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(
        b'{"step": 1}\nnot json\n[2]\n\xff\xfe\n{"step": NaN}\n' + b"[" * 100_000 + b'\n{"step": 7}\n{"step": 8, "lo'
    )
    faults = Faults(tmp_path)
    assert [row["step"] for row in read_lines(file, faults)][::2] == [1, 7]
    assert faults.lines == ["metrics.jsonl: 4 damaged lines are left out, the first is line 2"]


def test_a_line_longer_than_any_is_damage_and_what_stands_behind_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_LINE", 16)
    file, faults = tmp_path / "rows.jsonl", Faults(tmp_path)
    file.write_text('{"step": 1}\n{"text": "' + "x" * 12 + '"}\n{"step": 3}\n')
    assert [row["step"] for row in read_lines(file, faults)] == [1, 3]
    assert "damaged lines are left out, the first is line 2" in faults.lines[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "cannot be read (JSONDecodeError"),
        (b"[1]", "holds no object but list"),
        (b"\xff", "cannot be read (UnicodeDecodeError"),
        (b"", "cannot be read"),
        (b"[" * 100_000, "cannot be read (RecursionError"),
    ],
)
def test_a_damaged_file_is_named(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    faults = Faults(tmp_path)
    assert read_json(tmp_path / "manifest.json", faults) == {}
    assert faults.lines[0].startswith(f"manifest.json: {told}")


def test_what_is_absent_is_no_fault_and_a_folder_in_its_place_is(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    assert (read_json(tmp_path / "no.json", faults), read_lines(tmp_path / "no.jsonl", faults)) == ({}, [])
    assert faults.lines == []
    (tmp_path / "recipe.yaml").mkdir()
    (tmp_path / "metrics.jsonl").mkdir()
    assert (read_yaml(tmp_path / "recipe.yaml", faults), read_lines(tmp_path / "metrics.jsonl", faults)) == ({}, [])
    assert len(faults.lines) == 2


def test_numbers_are_finite_or_nothing() -> None:
    row = json.loads('{"a": 1, "b": NaN, "c": Infinity, "d": true, "e": "1", "f": null, "g": 1e999, "h": [0.1, 0.2]}')
    assert [number(row[name]) for name in "abcdefg"] == [1.0, *[None] * 6]
    assert number(10**400) is None
    assert (pair(row["h"]), pair([1]), pair([0, None]), pair("ab")) == ((0.1, 0.2), None, None, None)
