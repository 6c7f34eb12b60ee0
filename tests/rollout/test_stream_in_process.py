"""The stream over an engine in the learner's process, which hands completions over while it works on the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.rollout.fakes import rlvr_stage
from tests.rollout.scripted import ScriptedEngine, ScriptedGrader
from tests.rollout.test_stream import steps_of, streaming
from tulu.rollout.engine import Part, Places
from tulu.rollout.local_fleet import LocalFleet
from tulu.types import Problem, SamplingParams


class Killed(BaseException):
    """The end of a session at any moment."""


@dataclass
class Telling(ScriptedEngine):
    """Hands over a completion at a time, notes how many the journal held before each, and is killed before one of them."""

    exact = False
    journal: Path = Path()
    held: list[int] = field(default_factory=list)
    handed: list[tuple[str, int]] = field(default_factory=list)
    killed_at: int = -1

    def sample(self, problems: Sequence[Problem], n: int, params: SamplingParams, wanted: Places) -> Iterator[Part]:
        groups = self.generate(problems, n, params)
        for index, places in enumerate(wanted):
            for place in places:
                self.held.append(self.journal.read_text().count('"kind": "finished"'))
                if len(self.handed) == self.killed_at:
                    raise Killed
                self.handed.append((problems[index].id, place))
                yield [(index, place, groups[index].completions[place])]


def test_what_an_engine_of_this_process_ended_is_on_the_disk_before_the_next_and_is_not_sampled_again(tmp_path: Path) -> None:
    stage, journal = rlvr_stage(prompts=3, samples=4, refill=False), tmp_path / "from-000000.jsonl"
    whole = Telling(lambda problem, asked: "rwrw", journal=tmp_path / "whole" / "from-000000.jsonl")
    with streaming(LocalFleet(whole), tmp_path / "whole", stage, 1, ScriptedGrader()) as stream:
        [expected] = steps_of(stream, 1)
    assert whole.held == list(range(12))
    # The seventh completion is the third of the second group.
    broken = Telling(lambda problem, asked: "rwrw", journal=journal, killed_at=6)
    with streaming(LocalFleet(broken), tmp_path, stage, 1, ScriptedGrader()) as stream, pytest.raises(Killed):
        stream.take()
    again = Telling(lambda problem, asked: "rwrw", journal=journal)
    with streaming(LocalFleet(again), tmp_path, stage, 1, ScriptedGrader()) as stream:
        [found] = steps_of(stream, 1)
    assert broken.handed + again.handed == whole.handed
    assert again.held == list(range(6, 12))
    assert [rollout.group for rollout in found.trained] == [rollout.group for rollout in expected.trained]
