"""What the stream keeps on disk: the same numbers to the last bit, whole lines alone, and nothing that no checkpoint needs."""

import errno
import json
import math
import struct
from pathlib import Path

import pytest

from tulu.errors import CheckpointError
from tulu.grading.reward import Grades
from tulu.rollout.journal import StreamLog, completion_row, grades_row, read_completion, read_grades
from tulu.types import Completion, Verdict

SINGLE = struct.unpack("<f", struct.pack("<f", -1.1))[0]
"""-1.1 in float32, which is another number in float64."""


@pytest.mark.parametrize(
    "completion",
    [
        Completion([1, 2, 100_000], [True] * 3, [SINGLE, 0.0, -0.0], "stop", [(0, 3), (2, 4)]),
        Completion([1, 2], [True, False], [-1.1, -2.2], "length", [(0, 0)]),
        Completion([5], [True], None, "data", []),
        Completion([], [], [], "data", []),
    ],
)
def test_a_completion_comes_back_to_the_last_bit(completion: Completion) -> None:
    again = read_completion(json.loads(json.dumps(completion_row(completion))))
    assert again == completion
    if completion.sampler_logps:
        signs = [[math.copysign(1.0, number) for number in one.sampler_logps or ()] for one in (again, completion)]
        assert signs[0] == signs[1]
    assert all(type(token) is int for token in again.tokens)


@pytest.mark.parametrize(
    "grades",
    [
        Grades(Verdict(1 / 3, "ok", "a")),
        Grades(None, Verdict(None, "error", "too long"), 0.5),
        Grades(Verdict(None, "timeout", "6 s"), None),
        Grades(Verdict(None, "error", "", [("math", Verdict(1.0)), ("file.py:f", Verdict(None, "error", "b"))])),
    ],
)
def test_grades_come_back(grades: Grades) -> None:
    again = read_grades(json.loads(json.dumps(grades_row(grades))))
    assert again == grades
    if grades.verdict is not None and again.verdict is not None:
        assert list(again.verdict.parts) == list(grades.verdict.parts), "which no comparison of verdicts looks at"


def log(folder: Path, step: int = 0) -> tuple[StreamLog, list[dict[str, object]]]:
    made = StreamLog(folder)
    return made, list(made.resume(step))


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    first, found = log(tmp_path)
    assert found == []
    first.append([{"kind": "a", "text": "\u2028 \ud83d é"}, {"kind": "b"}])
    first.append([{"kind": "c"}])
    assert [row["kind"] for row in log(tmp_path)[1]] == ["a", "b", "c"]
    assert log(tmp_path)[1][0]["text"] == "\u2028 \ud83d é"


@pytest.mark.parametrize("damage", ["flip", "cut", "middle", "none"])
def test_a_damaged_line_and_what_rests_on_it_are_left_out(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, _ = log(tmp_path)
    for row in ({"kind": "a"}, {"kind": "b", "number": 17}, {"kind": "c"}):
        made.append([row])
    path = tmp_path / "from-000000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "flip":
        lines[1] = lines[1].replace(b"17", b"71")
    elif damage == "cut":
        # A crash in the middle of the last write is nothing that anybody must be told.
        lines[2] = lines[2][:5]
    elif damage == "middle":
        lines[1] = b"\0\xff\n"
    path.write_bytes(b"".join(lines))
    again, found = log(tmp_path)
    expected = {"flip": ["a"], "middle": ["a"], "cut": ["a", "b"], "none": ["a", "b", "c"]}[damage]
    assert [row["kind"] for row in found] == expected
    told = f"{path}:2 is damaged" in caplog.text
    assert told == (damage in ("flip", "middle"))
    again.append([{"kind": "d"}])
    assert [row["kind"] for row in log(tmp_path)[1]] == [*expected, "d"]


def test_lines_that_were_written_together_are_there_together_or_not_at_all(tmp_path: Path) -> None:
    """Wherever a crash ends the write: the completions of one batch are sampled again as a batch, or none of them is."""
    made, _ = log(tmp_path)
    made.append([{"kind": "a"}])
    path = tmp_path / "from-000000.jsonl"
    before = path.stat().st_size
    made.append([{"kind": "b"}, {"kind": "c"}, {"kind": "d"}])
    whole = path.read_bytes()
    for size in range(before, len(whole)):
        path.write_bytes(whole[:size])
        assert [row["kind"] for row in log(tmp_path)[1]] == ["a"], size
        assert path.read_bytes() == whole[:before]
    path.write_bytes(whole)
    again, found = log(tmp_path)
    assert found == [{"kind": kind} for kind in "abcd"]
    again.append([{"kind": "e"}])
    assert [row["kind"] for row in log(tmp_path)[1]] == [*"abcde"]


def test_lines_that_lost_one_of_their_own_are_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, _ = log(tmp_path)
    made.append([{"kind": "a"}])
    made.append([{"kind": "b"}, {"kind": "c"}, {"kind": "d"}])
    path = tmp_path / "from-000000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert [row["kind"] for row in log(tmp_path)[1]] == ["a"]
    assert f"{path}:3 is damaged (lines that belong before it are lost)" in caplog.text
    assert path.read_bytes() == lines[0]


def test_while_a_checkpoint_is_written_both_files_grow(tmp_path: Path) -> None:
    """Whichever checkpoint a session resumes from, its file says all that happened after it."""
    made, _ = log(tmp_path)
    made.append([{"kind": "a"}])
    made.begin(5, [{"kind": "head"}])
    made.append([{"kind": "b"}])
    assert [row["kind"] for row in StreamLog(tmp_path).resume(5)] == ["head", "b"]
    assert [row["kind"] for row in StreamLog(tmp_path).resume(0)] == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["from-000000.jsonl"], "the checkpoint of step 5 is not whole"


def test_files_go_with_their_checkpoints(tmp_path: Path) -> None:
    made, _ = log(tmp_path)
    for step in (5, 10, 15):
        made.begin(step, [])
        made.settle(oldest=max(0, step - 5))
        made.append([{"kind": f"after {step}"}])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from-000010.jsonl", "from-000015.jsonl"]
    assert [row["kind"] for row in StreamLog(tmp_path).resume(10)] == ["after 10"]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = log(tmp_path)
    made.append([{"kind": "a"}])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        for write in (lambda: made.append([{"kind": "b"}]), lambda: made.begin(5, [{"kind": "c"}])):
            with pytest.raises(CheckpointError, match=r"rollouts could not be written \(No space left on device\)"):
                write()
    assert [row["kind"] for row in log(tmp_path)[1]][:1] == ["a"]
