"""Episodes of several turns: what is trained is exactly what was sampled, and every end of an episode is told from the others."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.environments.test_turns import TEMPLATE, encoded
from tests.rollout.scripted import stage
from tulu.config.parts import EnvironmentSettings
from tulu.data.chat import make_byte_tokenizer
from tulu.environments.authoring import Description
from tulu.environments.nursery import describe
from tulu.environments.turns import Turns
from tulu.errors import DataError
from tulu.rollout.batches import pack_rollouts
from tulu.rollout.episodes import Episodes
from tulu.rollout.fleet import Ended, Finished, Request, Returned
from tulu.rollout.journal import completion_row, read_completion
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.sampler import RolloutGrader
from tulu.types import Completion, Group, Problem, SamplingParams, Verdict

SHOP = str(Path(__file__).parents[1] / "environments" / "shop.py")
PROMPT = encoded("<|user|>\nGo.\n<|assistant|>\n")
END = 256
Script = Callable[[str, int], str | bytes]
"""(problem, its turn) -> what the policy says."""


class Speaker:
    """An engine that follows a script; a turn's number is found in what it is asked to continue."""

    def __init__(self, script: Script) -> None:
        self.script, self.version = script, 0
        self.asked: list[list[int]] = []
        self.batches: list[int] = []

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        self.batches.append(len(problems) * n)
        return [Group(one.prompt, [self._said(one, params) for _ in range(n)], one.id) for one in problems]

    def _said(self, problem: Problem, params: SamplingParams) -> Completion:
        self.asked.append(list(problem.prompt))
        said = self.script(problem.id.partition("#")[0], bytes(t for t in problem.prompt if t < 256).count(b"<|assistant|>") - 1)
        tokens = [*(said.encode() if isinstance(said, str) else said), END]
        # Text that goes on, as from an engine that was told to stop early.
        done = 0
        for past in range(len(tokens), 0, -1):
            if list(problem.prompt[-past:]) == tokens[:past]:
                done = past
                break
        rest = tokens[done : done + params.max_tokens]
        stopped = done + len(rest) == len(tokens)
        logps = [-1.0 - token / 512 for token in rest]
        return Completion(rest, [True] * len(rest), logps, "stop" if stopped else "length", [(0, self.version)])

    def sync(self, weights: object, version: int) -> None:
        self.version = version

    def close(self) -> None:
        pass


class Aside:
    """A local fleet as one that works in other processes."""

    def __init__(self, inner: LocalFleet) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.fixture(scope="module")
def description() -> Description:
    return describe(SHOP, {})


@pytest.fixture
def made(description: Description) -> Iterator[Callable[..., tuple[Episodes, Speaker]]]:
    every: list[Episodes] = []

    def make(
        script: Script, aside: bool = False, scores: bool = True, rows: Mapping[str, Any] | None = None, hints: bool = False,
        **settings: Any,
    ) -> tuple[Episodes, Speaker]:  # fmt: skip
        tokenizer = make_byte_tokenizer()
        tokenizer.chat_template = TEMPLATE
        speaker = Speaker(script)
        local: Any = LocalFleet(cast(Any, speaker))
        turns = Turns(tokenizer, description.tools)
        every.append(
            Episodes(
                Aside(local) if aside else local,
                EnvironmentSettings(path=SHOP, **settings),
                turns,
                replace(description, scores=scores),
                lambda name: (rows or {}).get(name, {}),
                (lambda _: "\n<|assistant|>\n") if hints else None,
            )
        )
        return every[-1], speaker

    yield make
    for one in every:
        one.close()


def ask(fleet: Episodes, *names: str, samples: int = 1, most: int = 300) -> None:
    params = SamplingParams(most, seed=1)
    fleet.submit([Request(f"{n}:{s}", n, PROMPT, params, s, samples) for n in names for s in range(samples)])


def ends_of(fleet: Episodes, count: int = 1, seconds: float = 60.0) -> dict[str, Ended]:
    ended: dict[str, Ended] = {}
    until = time.monotonic() + seconds
    while len(ended) < count and time.monotonic() < until:
        ended |= {end.key: end for end in fleet.collect(0.05)}
    assert len(ended) == count
    return ended


def finished(fleet: Episodes, key: str = "a:0") -> Completion:
    end = ends_of(fleet)[key]
    assert isinstance(end, Finished)
    return end.completion


def calls(*numbers: int) -> str:
    return "".join(f"<tool_call>add(x={number})</tool_call>" for number in numbers)


@pytest.mark.parametrize("aside", [False, True])
def test_the_trained_tokens_are_exactly_the_sampled_ones(made: Any, aside: bool) -> None:
    # Bytes that are no UTF-8 would come back from a second rendering as others.
    said = [b"\xff\xfe" + calls(3, 4).encode(), calls(1).encode() + b"\n\n", b"\xc3 Done."]
    fleet, speaker = made(lambda _, turn: said[turn], aside)
    ask(fleet, "a")
    episode = finished(fleet)
    between = [encoded("\n<|tool|>\n3\n<|tool|>\n7\n<|assistant|>\n"), encoded("\n<|tool|>\n8\n<|assistant|>\n")]
    parts = [[*said[0], END], between[0], [*said[1], END], between[1], [*said[2], END]]
    assert list(episode.tokens) == [token for part in parts for token in part]
    assert list(episode.trained) == [number % 2 == 0 for number, part in enumerate(parts) for _ in part]
    assert episode.finish == "stop"
    assert episode.verdict == Verdict(8.0)
    # Every turn of the engine began with the very tokens of those before.
    for asked in speaker.asked:
        assert asked == [*PROMPT, *episode.tokens][: len(asked)]
    assert read_completion(completion_row(episode)) == replace(episode, tokens=list(episode.tokens), versions=[(0, 0)])


def test_the_learner_reads_what_was_sampled_and_nothing_else(made: Any) -> None:
    def script(name: str, turn: int) -> str:
        return calls(2) if turn == 0 else "Done."

    fleet, _ = made(script)
    ask(fleet, "a", samples=2)
    ended = ends_of(fleet, 2)
    group = Group(PROMPT, [cast(Finished, ended[f"a:{sample}"]).completion for sample in range(2)], "a")
    grader = RolloutGrader(cast(Any, NoGrader()), make_byte_tokenizer(), [Problem("a", (), PROMPT, None, ("exact",))], stage())
    [graded] = grader.verify([(0, group)])
    rollout = replace(grader.rollout(0, group, graded), advantages=(1.0, -1.0))
    [batch] = pack_rollouts([rollout], stage())
    sampled = [*calls(2).encode(), END, *b"Done.", END]
    assert batch.target_N.tolist() == sampled * 2
    assert batch.sampler_logps_N.tolist() == pytest.approx([-1.0 - token / 512 for token in sampled] * 2)
    assert graded.texts[0] == calls(2) + "\n<|tool|>\n2\n<|assistant|>\nDone."


class NoGrader:
    """A grader that nothing is asked of; `seen` holds what it was asked."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        self.seen += [text for text, _ in items]
        return [Verdict(1.0) for _ in items]


def test_verifiers_read_the_last_turn_where_no_environment_scores(made: Any) -> None:
    fleet, _ = made(lambda _, turn: calls(42) if turn == 0 else "It is 41.", scores=False)
    ask(fleet, "a")
    episode = finished(fleet)
    assert episode.verdict is None
    judge = NoGrader()
    problems = [Problem("a", (), PROMPT, "42", ("exact",))]
    RolloutGrader(judge, make_byte_tokenizer(), problems, stage()).verify([(0, Group(PROMPT, [episode], "a"))])
    assert judge.seen == ["It is 41."]


def test_unscored_is_not_zero(made: Any) -> None:
    numbers = {"a": 13, "b": 0, "c": 2}
    fleet, _ = made(lambda name, turn: calls(numbers[name]) if turn == 0 else "Done.")
    ask(fleet, *numbers)
    ended = ends_of(fleet, 3)
    completions = [cast(Finished, ended[f"{name}:0"]).completion for name in numbers]
    group = Group(PROMPT, completions, "a")
    settings = stage(samples=3, batch=12, advantage="centred")
    grader = RolloutGrader(cast(Any, NoGrader()), make_byte_tokenizer(), [Problem("a", (), PROMPT, None, ("exact",))], settings)
    [graded] = grader.verify([(0, group)])
    rollout = grader.rollout(0, group, graded)
    assert [one.fault is not None for one in rollout.grades] == [True, False, False]
    assert list(rollout.advantages)[1:] == [-1.0, 1.0]
    assert [completion.verdict for completion in rollout.to_train(False).group.completions] == [Verdict(0.0), Verdict(2.0)]


@pytest.mark.parametrize(
    ("said", "settings", "status", "detail"),
    [
        ("<tool_call>hang()</tool_call>", {"call_seconds": 1.0}, "timeout", "hang: no result within 1 s"),
        ("<tool_call>nap(seconds=0.6)</tool_call>" * 3, {"turn_seconds": 1.5}, "timeout", "the calls of a turn took longer"),
        ("<tool_call>die()</tool_call>", {}, "error", "process ended"),
    ],
)
def test_what_hangs_or_dies_has_no_score_and_holds_nobody_up(
    made: Any, said: str, settings: dict[str, float], status: str, detail: str
) -> None:
    fleet, _ = made(lambda name, turn: said if name == "a" else "Done.", True, parallel=4, **settings)
    ask(fleet, "a", "b")
    ended = ends_of(fleet, 2)
    late, other = (cast(Finished, ended[f"{name}:0"]).completion for name in "ab")
    assert late.verdict is not None
    assert late.verdict.score is None
    assert late.verdict.status == status
    assert detail in late.verdict.detail
    # What it sampled is not lost to the record, and neither is it an answer that was cut off.
    assert (bytes(late.tokens[:-1]).decode(), late.finish) == (said, "data")
    assert other.verdict == Verdict(0.0)


def test_a_row_that_cannot_be_played_has_no_score(made: Any) -> None:
    fleet, speaker = made(lambda *_: "Done.", rows={"a": {"broken": True}})
    ask(fleet, "a")
    episode = finished(fleet)
    assert (list(episode.tokens), episode.verdict) == ([], Verdict(None, "error", "ValueError: this row cannot be played"))
    assert speaker.asked == []


@pytest.mark.parametrize("aside", [False, True])
def test_an_episode_that_is_too_long_ends_as_a_completion_does(made: Any, aside: bool) -> None:
    fleet, _ = made(lambda *_: calls(1), aside, turns=3)
    ask(fleet, "a", most=500)
    episode = finished(fleet)
    assert (episode.finish, episode.verdict) == ("length", Verdict(2.0))
    # 26 tokens a turn, 31 between two turns: no room for a third turn's first token, then for half a turn.
    turn, between = len(calls(1)) + 1, len(encoded("\n<|tool|>\n1\n<|assistant|>\n"))
    for most, tokens in ((turn + between, turn), (turn + between + 5, turn + between + 5), (7, 7)):
        ask(fleet, "a", most=most)
        short = finished(fleet)
        assert (len(short.tokens), short.finish) == (tokens, "length")


def test_a_text_of_reset_stands_behind_the_users_message_and_is_not_trained(made: Any) -> None:
    fleet, _ = made(lambda *_: "Done.", rows={"a": {"hint": "Be quick."}, "b": {}}, hints=True)
    ask(fleet, "a", "b")
    ended = ends_of(fleet, 2)
    hint, none = (cast(Finished, ended[f"{name}:0"]).completion for name in "ab")
    said = encoded("\n\nBe quick.\n<|assistant|>\n")
    assert list(hint.tokens) == [*said, *b"Done.", END]
    assert list(hint.trained) == [False] * len(said) + [True] * 6
    assert list(none.tokens) == [*encoded("\n<|assistant|>\n"), *b"Done.", END]
    ask(other := made(lambda *_: "Done.", rows={"a": {"hint": "Be quick."}})[0], "a")
    with pytest.raises(DataError, match=r"a text for row a and None for the rows that were .*\n.*return '' instead of None"):
        finished(other)


def test_one_that_is_cut_goes_on_where_it_was(made: Any, tmp_path: Path) -> None:
    rows, nap = {"a": {"wakes": str(tmp_path / "awake")}}, "<tool_call>nap(seconds=0)</tool_call>"
    fleet, _ = made(lambda _, turn: nap + calls(4) if turn == 0 else "Done.", True, rows=rows)
    ask(fleet, "a")
    until = time.monotonic() + 60
    while fleet._live["a:0"].turn == 0 and time.monotonic() < until:
        assert fleet.collect(0.01) == []
    fleet.cut(["a:0"])
    [back] = ends_of(fleet).values()
    assert isinstance(back, Returned)
    assert back.begun is not None
    # Its tools go on meanwhile, and are not called twice.
    (tmp_path / "awake").touch()
    fleet.submit([Request("a:0", "a", PROMPT, SamplingParams(300, seed=1), begun=back.begun)])
    episode = finished(fleet)
    assert episode.verdict == Verdict(4.0)
    assert list(episode.tokens[: len(back.begun.tokens)]) == list(back.begun.tokens)


def test_turns_of_all_episodes_are_sampled_together(made: Any) -> None:
    """In this process a call of the engine costs as much for one episode as for all."""
    fleet, speaker = made(lambda name, turn: calls(*range(int(name))) if turn == 0 else "Done.", parallel=4)
    names = [str(number) for number in range(1, 5)]
    ask(fleet, *names, samples=4, most=512)
    assert len(ends_of(fleet, 16)) == 16
    # The first turn is one call. In the second, what is left lies between 128 and 512 tokens: at most two calls.
    assert speaker.batches[0] == 16
    assert sum(speaker.batches[1:]) == 16
    assert len(speaker.batches) <= 3


def test_no_more_environments_than_were_allowed(made: Any) -> None:
    fleet, _ = made(lambda *_: "Done.", episodes=3)
    assert fleet.room() == 3
    ask(fleet, "a", "b")
    assert fleet.room() == 1
    assert len(ends_of(fleet, 2)) == 2
    assert fleet.room() == 3


def test_those_that_came_back_can_be_asked_for_again_when_there_may_be_no_more_environments(made: Any) -> None:
    """An engine that dies gives all of them back: without room none would be asked for again until its time is over."""
    fleet, _ = made(
        lambda _, turn: "<tool_call>nap(seconds=0.3)</tool_call>" + calls(4) if turn == 0 else "Done.", True, episodes=2
    )
    ask(fleet, "a", "b")
    fleet.cut(["a:0", "b:0"])
    assert all(isinstance(end, Returned) for end in ends_of(fleet, 2).values())
    assert fleet.room() == 2
    ask(fleet, "b")
    # A new one takes the place of the one that nobody asked for.
    ask(fleet, "c")
    assert set(fleet._live) == {"b:0", "c:0"}
    assert fleet.room() == 0
    ended = ends_of(fleet, 2)
    assert [cast(Finished, ended[key]).completion.verdict for key in ("b:0", "c:0")] == [Verdict(4.0)] * 2
    ask(fleet, "a")
    assert finished(fleet).verdict == Verdict(4.0)
