"""Episodes in the stream of rollouts: graded, kept on disk with their verdicts, and not played again by the next session."""

from pathlib import Path
from typing import Any, cast

from tests.environments.test_turns import TEMPLATE
from tests.rollout.scripted import stage
from tests.rollout.test_episodes import PROMPT, SHOP, NoGrader, Speaker, calls
from tulu.config.parts import EnvironmentSettings
from tulu.data.chat import make_byte_tokenizer
from tulu.environments.nursery import describe
from tulu.environments.turns import Turns
from tulu.model.parallel import Parallel
from tulu.rollout.draws import Queue
from tulu.rollout.episodes import Episodes
from tulu.rollout.journal import StreamLog
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.sampler import RolloutGrader, StepRollouts
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.rollout.team import Team
from tulu.types import Problem


class Rising(Speaker):
    """Every completion of a problem adds another number, so that a group teaches something."""

    def __init__(self) -> None:
        super().__init__(lambda name, turn: calls(int(name[1:]) + len(self.asked) % 2) if turn == 0 else "Done.")


def session(folder: Path) -> tuple[StepRollouts, Rising]:
    tokenizer = make_byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    turns = Turns(tokenizer, describe(SHOP, {}).tools)
    problems = [Problem(f"p{number}", (), PROMPT, None, ("exact",)) for number in range(10)]
    settings, engine = stage(max_tokens=100, max_prompt=60, max_length=160), Rising()
    fleet = Episodes(
        LocalFleet(cast(Any, engine)), EnvironmentSettings(path=SHOP), turns, describe(SHOP, {}), lambda _: {"goal": 1}
    )
    grader = RolloutGrader(NoGrader(), tokenizer, problems, settings)
    queue = Queue.of(settings, 1000, len(problems))
    stream = Stream(fleet, grader, Team(Parallel(settings)), queue, StreamLog(folder), Status())
    try:
        stream.resume({})
        return stream.take(), engine
    finally:
        stream.close()
        fleet.close()


def test_what_was_played_is_on_disk_and_is_not_played_again(tmp_path: Path) -> None:
    taken, engine = session(tmp_path)
    assert len(taken.trained) == 4
    verdicts = [grades.verdict for one in taken.trained for grades in one.grades]
    rewards = sorted(one.score for one in verdicts if one is not None and one.score is not None)
    assert rewards == sorted(float(int(one.problem.id[1:]) + place % 2) for one in taken.trained for place in range(2))
    assert engine.asked
    again, other = session(tmp_path)
    assert other.asked == []
    assert [(one.problem.id, one.rewards, one.group.completions) for one in again.trained] == [
        (one.problem.id, one.rewards, one.group.completions) for one in taken.trained
    ]
