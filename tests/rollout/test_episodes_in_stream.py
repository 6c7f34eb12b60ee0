"""Episodes in the stream of rollouts: graded, kept on disk with their verdicts, and not played again by the next session."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, cast

import pytest

from tests.environments.test_turns import TEMPLATE
from tests.rollout.fakes import Numbers
from tests.rollout.scripted import ScriptedEngine, stage
from tests.rollout.test_episodes import PROMPT, SHOP, Aside, NoGrader, Speaker, ask, calls, ends_of
from tulu import deadlines
from tulu.config.parts import EnvironmentSettings
from tulu.data.chat import make_byte_tokenizer
from tulu.environments.authoring import Description
from tulu.environments.nursery import describe
from tulu.environments.turns import Turns
from tulu.model.parallel import Parallel
from tulu.rollout.draws import Queue
from tulu.rollout.episode import acting_told
from tulu.rollout.episodes import Episodes
from tulu.rollout.fleet import Finished
from tulu.rollout.journal import StreamLog
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.sampler import RolloutGrader, StepRollouts
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.rollout.team import Team
from tulu.types import Problem, Verdict


@cache
def shop() -> Description:
    return describe(SHOP, {})


@contextmanager
def watched(status: Status, seen: set[str], told: str, go: Callable[[], Any]) -> Iterator[None]:
    """While the context lasts, what is waited for is noted again and again, as the status's own thread does.

    Once a wait is told like that, what is waited for is let go.
    """
    ended = Event()

    def watch() -> None:
        until = monotonic() + 60
        while not ended.wait(0.02):
            seen.update(whom for whom, _, _ in status.waits())
            if any(re.search(told, whom) for whom in seen) or monotonic() > until:
                go()

    watching = Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


class Rising(Speaker):
    """Every completion of a problem adds another number, so that a group teaches something."""

    def __init__(self) -> None:
        super().__init__(lambda name, turn: calls(int(name[1:]) + len(self.asked) % 2) if turn == 0 else "Done.")


ACTING = r"^rollouts \((?!.*with the engines).* in the environment \(reset\) for \d+ s"


def session(folder: Path, seen: set[str] | None = None) -> tuple[StepRollouts, Rising]:
    """The first step of a run; where `seen` is to get what it waits for, no environment begins before it is waited for."""
    begins = folder / "begins"
    row = {"goal": 1} if seen is None else {"begins": str(begins)}
    tokenizer = make_byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    turns = Turns(tokenizer, shop().tools)
    problems = [Problem(f"p{number}", (), PROMPT, None, ("exact",)) for number in range(10)]
    settings, engine = stage(max_tokens=100, max_prompt=60, max_length=160), Rising()
    fleet = Episodes(LocalFleet(cast(Any, engine)), EnvironmentSettings(path=SHOP), turns, shop(), lambda _: row)
    grader = RolloutGrader(NoGrader(), tokenizer, problems, settings)
    queue = Queue.of(settings, 1000, len(problems))
    status = Status()
    stream = Stream(fleet, grader, Team(Parallel(settings)), queue, StreamLog(folder), status)
    try:
        stream.resume({})
        with nullcontext() if seen is None else watched(status, seen, ACTING, begins.touch):
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


def test_a_wait_for_an_environment_says_so_and_for_which_of_its_methods(tmp_path: Path) -> None:
    """Its engine, which has nothing to do, is not blamed."""
    seen: set[str] = set()
    session(tmp_path, seen)
    assert [whom for whom in seen if re.search(ACTING, whom)]
    assert all(whom.startswith("rollouts (") for whom in seen)


@pytest.mark.parametrize("aside", [False, True])
def test_a_wait_for_a_verifier_says_which(aside: bool, tmp_path: Path) -> None:
    class Slow:
        def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
            assert go.wait(120)
            return [Verdict(float(place % 2)) for place, _ in enumerate(items)]

    settings, seen, status, go = stage(), set[str](), Status(), Event()
    told = r"4 sampled; the oldest is .*being graded by math and mine\.py:score for \d+ s"
    problems = [Problem(f"p{number}", (), [number], None, ("math", "mine.py:score")) for number in range(10)]
    engine: Any = ScriptedEngine(lambda *_: "rw")
    fleet: Any = LocalFleet(engine)
    grader = RolloutGrader(Slow(), cast(Any, Numbers()), problems, settings)
    queue = Queue.of(settings, 1000, len(problems))
    stream = Stream(Aside(fleet) if aside else fleet, grader, Team(Parallel(settings)), queue, StreamLog(tmp_path), status)
    try:
        stream.resume({})
        with watched(status, seen, told, go.set):
            assert len(stream.take().trained) == 4
    finally:
        stream.close()
    assert [whom for whom in seen if re.search(told, whom)]


@pytest.mark.parametrize("aside", [False, True])
def test_what_environments_do_is_known_while_they_are_waited_for(aside: bool, tmp_path: Path) -> None:
    """One thread for three episodes: one is in a tool, and the others wait for the thread."""
    tokenizer = make_byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    wakes = tmp_path / "awake"
    napping = Speaker(lambda _, turn: "<tool_call>nap(seconds=0)</tool_call>" if turn == 0 else "Done.")
    engine: Any = LocalFleet(cast(Any, napping))
    settings, turns = EnvironmentSettings(path=SHOP, parallel=1), Turns(tokenizer, shop().tools)
    fleet = Episodes(Aside(engine) if aside else engine, settings, turns, shop(), lambda _: {"wakes": str(wakes)})
    ask(fleet, "a", samples=3)
    keys = [f"a:{sample}" for sample in range(3)]
    behind = "nap, behind other episodes: rlvr.env.parallel"
    seen: list[list[str]] = []
    expected = sorted(["nap", behind, behind])

    def watch() -> None:
        until = monotonic() + 30
        while expected not in seen and monotonic() < until:
            seen.append(sorted(doing for doing, _ in fleet.acting([*keys, "gone:0"]).values()))
            sleep(0.02)
        wakes.touch()

    watching = Thread(target=watch)
    watching.start()
    ends_of(fleet, 3)
    watching.join()
    assert expected in seen
    assert fleet.acting(keys) == {}
    fleet.close()
    now = monotonic()
    told = acting_told({"a:0": ("nap", now - 12), "a:1": ("nap", now - 3), "b:0": ("reset", now - 1)}, now)
    assert told == ["2 in the environment (nap) for 12 s", "1 in the environment (reset) for 1 s"]


def test_an_episode_whose_time_is_up_ends_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that hangs is where it will stay, and the other one has ended, when the time is up."""
    tokenizer = make_byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    nap = "<tool_call>nap(seconds=1000)</tool_call>"
    engine: Any = LocalFleet(cast(Any, Speaker(lambda name, _: nap if name == "a" else "Done.")))
    settings, turns = EnvironmentSettings(path=SHOP, parallel=4, episode_seconds=50.0), Turns(tokenizer, shop().tools)
    fleet = Episodes(Aside(engine), settings, turns, shop(), lambda _: {})
    ask(fleet, "a", "b")
    [other] = ends_of(fleet, 1).values()
    until = monotonic() + 60
    while [doing for doing, _ in fleet.acting(["a:0"]).values()] != ["nap"]:
        assert monotonic() < until
        assert fleet.collect(0.01) == []
    now = deadlines.now
    monkeypatch.setattr("tulu.deadlines.now", lambda: now() + 100.0)
    [late] = ends_of(fleet, 1).values()
    fleet.close()
    assert isinstance(late, Finished)
    assert isinstance(other, Finished)
    assert late.completion.verdict == Verdict(None, "timeout", "the episode took longer than 50 s")
    assert (bytes(late.completion.tokens[:-1]).decode(), late.completion.finish) == (nap, "data")
    assert other.completion.verdict == Verdict(0.0)
