"""A finished stage reads nothing again, and says so where what it began with is another thing now."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_bad_input import Place
from tulu.config.schema import Source
from tulu.data.sources import local_files
from tulu.train import remembered
from tulu.train.remembered import EDGE, changes, looks_of

SAID = "finished, and nothing is read again although"


def later(file: Path) -> None:
    """As if it were written a second later."""
    os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns + 10**9))


def test_a_finished_stage_names_the_file_that_has_changed(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    model = shutil.copytree(tiny_model("olmo2"), tmp_path / "start")
    place = Place(tmp_path, model)
    again = ("sft", "sft.steps=1")
    assert place.call(*again).exit_code == 0
    later(place.rows)
    done = place.call(*again)
    assert (done.exit_code, SAID in done.stderr) == (0, False), "what was only touched is what it was"
    size = place.rows.stat().st_size
    place.rows.write_text(place.rows.read_text() * 2)
    done = place.call(*again)
    assert done.exit_code == 0
    assert f"sft: {SAID} {place.rows} has changed since it began ({size} bytes, now {2 * size}); --fresh trains" in done.stderr
    place.rows.write_bytes(place.rows.read_bytes()[:size])
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    done = place.call("run", *again[1:], "rlvr=null", "evaluate=null")
    assert done.exit_code == 0
    assert f"sft: {SAID} {model} has changed since it began; --fresh" in done.stderr
    assert str(place.rows) not in done.stderr


def test_large_files_are_looked_at_by_their_ends_and_their_time(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"a" * (2 * EDGE) + b"middle" + b"z" * EDGE)
    source = Source(name=str(rows), fraction=1.0)
    before = looks_of([source], None)
    assert changes(before, looks_of([source], None)) == []
    later(rows)
    assert changes(before, looks_of([source], None)) == [f"{rows} was written again since it began, and may have changed"]
    rows.write_bytes(b"b" + rows.read_bytes()[1:])
    assert changes(before, looks_of([source], None)) == [f"{rows} has changed since it began"]
    assert changes({}, before) == changes({str(rows): "odd"}, before) == []


def test_no_more_of_a_file_is_read_than_its_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "EDGE", 4)
    rows = tmp_path / "rows.jsonl"
    looks = []
    for content in (b"abcd....wxyz", b"abcd,,,,wxyz", b"abcd....wxyZ"):
        rows.write_bytes(content)
        looks.append(looks_of([Source(name=str(rows), fraction=1.0)], None)[str(rows)]["ends"])
    assert looks[0] == looks[1] != looks[2]


def test_the_files_of_a_source(tmp_path: Path) -> None:
    for name in ("b/part-2.jsonl", "b/part-10.jsonl", "one.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    assert local_files(Source(name=str(tmp_path / "one.jsonl"), fraction=1.0)) == [tmp_path / "one.jsonl"]
    assert len(local_files(Source(name=str(tmp_path / "b"), fraction=1.0))) == 2
    assert local_files(Source(name=str(tmp_path / "b" / "*.jsonl"), fraction=1.0)) == [
        tmp_path / f"b/part-{number}.jsonl" for number in (2, 10)
    ]
    assert local_files(Source(name="sums:sft", fraction=1.0)) == local_files(Source(name="owner/rows", fraction=1.0)) == []


def test_what_cannot_be_read_is_left_to_those_who_read_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert looks_of([Source(name=str(rows), fraction=1.0)], None) == {}
