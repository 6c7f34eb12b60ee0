"""A session that finds the journal of another in a state that no kill leaves: lines of a stranger, or files that were lost."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.rollout.fakes import ByPosition, FakeFleet, Numbers, make_problems, rlvr_stage
from tulu.config.schema import Rlvr
from tulu.errors import ResumeError
from tulu.model.parallel import Parallel
from tulu.rollout.draws import Queue
from tulu.rollout.journal import StreamLog, _sealed
from tulu.rollout.sampler import RolloutGrader
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.rollout.team import Team

STEPS = 6


@contextmanager
def session(folder: Path, stage: Rlvr, step: int = 0, state: Mapping[str, Any] | None = None) -> Iterator[Stream]:
    """A session that resumes from a checkpoint of this step, which held this of the stream."""
    grader = RolloutGrader(ByPosition(stage.samples), cast(Any, Numbers()), make_problems(40), stage)
    queue = Queue.of(stage, STEPS, 40, step)
    made = Stream(FakeFleet(), grader, Team(Parallel(stage)), queue, StreamLog(folder), Status())
    with closing(made):
        made.sync(iter([("w", torch.zeros(1))]), step)
        made.resume(state or {})
        yield made


def trained(stream: Stream, count: int = 1) -> list[int]:
    """The positions of so many further steps."""
    found: list[int] = []
    for _ in range(count):
        stream.take()
        found += stream.taken.trained
        stream.sync(iter([("w", torch.zeros(1))]), stream.queue.step + 1)
    return found


def stage_of(max_staleness: int) -> Rlvr:
    return rlvr_stage(prompts=2, samples=2, batch=4, max_staleness=max_staleness, refill=False, drop_equal=False)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"kind": "shelved", "position": 0}, "ValueError: nothing is known of 'shelved'"),
        ({"kind": "graded", "position": 999, "grades": []}, "KeyError: 999"),
        ({"kind": "drawn", "first": 0, "count": 2, "version": 1}, "ValueError: prompts from 0 on are drawn after "),
        ({"kind": "step", "step": 9, "trained": [999], "aside": []}, "KeyError: 999"),
        ({"kind": "finished"}, "KeyError: 'position'"),
        ({"position": 3}, "KeyError: 'kind'"),
        ("the last completion again", "ValueError: sample 1 of prompt 3 cannot end now"),
        ("the last grades again", "ValueError: prompt 3 cannot be graded now"),
    ],
)
def test_a_line_that_does_not_follow_is_refused_by_its_place(line: Any, why: str, tmp_path: Path) -> None:
    stage = stage_of(0)
    with session(tmp_path, stage) as stream:
        trained(stream, 2)
    file = tmp_path / "from-000000.jsonl"
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    if isinstance(line, str):
        kind = "finished" if "completion" in line else "graded"
        row = [row for row in lines if row["kind"] == kind][-1]
        line = {name: value for name, value in row.items() if name != "digest"}
    with file.open("a") as stream_file:
        stream_file.write(json.dumps(_sealed(line)) + "\n")
    before = file.read_bytes()
    with pytest.raises(ResumeError) as refused, session(tmp_path, stage):
        pass
    told = str(refused.value)
    assert told.startswith(f"{file}:{len(lines) + 1}: does not follow from the lines before it ({why}"), told
    assert "Remove the file to sample again what stands there" in told
    assert file.read_bytes() == before
    # That cure works.
    file.unlink()
    with session(tmp_path, stage) as stream:
        assert sorted(trained(stream, STEPS)) == list(range(2 * STEPS))


@pytest.mark.parametrize("loss", ["all of it", "its end", "nothing"])
@pytest.mark.parametrize("max_staleness", [0, 2])
def test_steps_whose_rollouts_are_lost_are_done_with_others_however_often_it_dies(
    loss: str, max_staleness: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint may say of steps that they were begun; where their rollouts are lost, they are begun anew, and die again."""
    stage = stage_of(max_staleness)
    with session(tmp_path, stage) as stream:
        trained(stream, 4)
    with session(tmp_path, stage) as stream:
        first = trained(stream)
        state = json.loads(json.dumps(stream.checkpoint(1)))
        stream.settle(1)
    assert len(state["planned"]) == 3, "steps 2 to 4 are to be done again"
    file = tmp_path / "from-000001.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    if loss == "all of it":
        file.unlink()
    elif loss == "its end":
        file.write_bytes(b"".join(lines[: len(lines) // 2]))
    for _ in range(3):
        with session(tmp_path, stage, 1, state) as stream:
            trained(stream, 2)
    with session(tmp_path, stage, 1, state) as stream:
        rest = trained(stream, STEPS - 1)
    assert sorted(first + rest) == list(range(2 * STEPS)), "every prompt once"
    assert (f"{file} is gone: what was sampled before" in caplog.text) == (loss == "all of it")


def test_a_copy_of_a_file_is_left_alone(tmp_path: Path) -> None:
    stage = stage_of(0)
    with session(tmp_path, stage) as stream:
        trained(stream, 2)
    copy = tmp_path / "from-000009 (copy).jsonl"
    copy.write_text("{}\n")
    with session(tmp_path, stage) as stream:
        trained(stream, 2)
        stream.checkpoint(2)
        stream.settle(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from-000002.jsonl", copy.name]
