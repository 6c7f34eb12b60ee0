"""Task sets of the package `verifiers`: their rollout drives, our engine answers, and the tokens are those that were sampled."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from tests.environments.test_turns import TEMPLATE, encoded
from tests.rollout.test_episodes import END, Aside, Script, Speaker, ends_of
from tulu.config.parts import EnvironmentSettings, Source
from tulu.config.tasksets import taskset_problem
from tulu.data.chat import make_byte_tokenizer
from tulu.data.sources import load_rows
from tulu.data.tasksets import OPENS
from tulu.environments.authoring import Description
from tulu.environments.nursery import describe
from tulu.environments.turns import Turns
from tulu.errors import DataError, RecipeError
from tulu.rollout.episodes import Episodes
from tulu.rollout.fleet import Finished, Request
from tulu.rollout.local_fleet import LocalFleet
from tulu.types import SamplingParams, Verdict

FOLDER = Path(__file__).parents[1] / "environments"
GUESSING, COLUMNS = (f"verifiers:{FOLDER / name}" for name in ("guessing_v1.py", "columns_v1.py"))
PROBLEM = taskset_problem(str(FOLDER / "guessing_v1.py"))
pytestmark = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))
TAIL = "\n<|assistant|>\n"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the task set writes what its own trace holds."""
    return tmp_path_factory.mktemp("record") / "trace.json"


@pytest.fixture(scope="module")
def description() -> Description:
    return describe(GUESSING, {})


@pytest.fixture(scope="module")
def rows(record: Path) -> list[dict[str, Any]]:
    loaded = load_rows(Source(name=GUESSING, count=3, options={"record": str(record)}))
    return [dict(row.columns) for row in loaded]


def episodes(
    path: str, description: Description, script: Script, row: Any, tail: bool, **settings: Any
) -> tuple[Episodes, Speaker]:
    tokenizer = make_byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    turns, speaker = Turns(tokenizer, description.tools), Speaker(script)
    local: Any = Aside(LocalFleet(cast(Any, speaker)))
    parts = EnvironmentSettings(path=path, **settings)
    return Episodes(local, parts, turns, description, lambda _: row, (lambda _: TAIL) if tail else None), speaker


@pytest.fixture(scope="module")
def guessing(description: Description, rows: list[dict[str, Any]]) -> Iterator[Callable[..., tuple[Episodes, Speaker]]]:
    """One fleet for all tests, because every import of the package takes seconds; the number to guess is 2."""
    fleet, speaker = episodes(GUESSING, description, lambda *_: "2", rows[1], True, call_seconds=20.0)

    def with_script(script: Script, **settings: Any) -> tuple[Episodes, Speaker]:
        speaker.script, speaker.asked = script, []
        fleet.settings = fleet.settings.model_copy(update={"turns": 4, "turn_seconds": 60.0, **settings})
        return fleet, speaker

    yield with_script
    fleet.close()


def play(fleet: Episodes, prompt: list[int], most: int = 200) -> Any:
    fleet.submit([Request("a:0", "a", prompt, SamplingParams(most, seed=1))])
    end = ends_of(fleet, seconds=90.0)["a:0"]
    assert isinstance(end, Finished)
    return end.completion


def test_rows_are_tasks(rows: list[dict[str, Any]]) -> None:
    assert [row["task"]["number"] for row in rows] == [1, 2, 3]
    assert rows[0]["messages"] == [{"role": "user", "content": OPENS}]
    with pytest.raises(DataError, match="tasks without end; give a count"):
        load_rows(Source(name=GUESSING, fraction=1.0))


def test_the_trained_tokens_are_the_sampled_ones_here_and_in_the_package(guessing: Any, record: Path) -> None:
    # Bytes that are no UTF-8 would come back from a second rendering as others.
    said = [b"\xff 1", b"1\n", b"2"]
    fleet, speaker = guessing(lambda _, turn: said[turn])
    prompt = encoded("<|user|>\n")
    episode = play(fleet, prompt)
    between = ["Guess.\n<|assistant|>\n", "\n<|user|>\nNot \ufffd 1.\n<|assistant|>\n", "\n<|user|>\nNot 1.\n<|assistant|>\n"]
    parts = [part for text, turn in zip(between, said, strict=True) for part in (encoded(text), [*turn, END])]
    assert list(episode.tokens) == [token for part in parts for token in part]
    assert list(episode.trained) == [number % 2 == 1 for number, part in enumerate(parts) for _ in part]
    assert (episode.finish, episode.verdict) == ("stop", Verdict(1.0))
    for asked in speaker.asked:
        assert asked == [*prompt, *episode.tokens][: len(asked)]
    # The package's own record of the conversation, which its rewards may read.
    theirs = json.loads(record.read_text())
    assert theirs["tokens"] == [*prompt, *episode.tokens]
    assert theirs["sampled"] == [False] * len(prompt) + list(episode.trained)
    assert theirs["said"] == ["\ufffd 1", "1", "2"]


@pytest.mark.parametrize(("script", "most", "turns"), [("1", 200, 2), ("1" * 500, 60, 4), ("1" * 40, 90, 4)])
def test_what_is_cut_off_is_scored_as_it_is(guessing: Any, script: str, most: int, turns: int) -> None:
    """By the number of turns, in the middle of a turn, and where no room is left for a further one."""
    fleet, _ = guessing(lambda *_: script, turns=turns)
    episode = play(fleet, encoded("<|user|>\n"), most)
    assert (episode.finish, episode.verdict) == ("length", Verdict(0.0))


def test_unscored_is_not_zero(guessing: Any) -> None:
    fleet, _ = guessing(lambda _, turn: "fault" if turn == 0 else "2")
    episode = play(fleet, encoded("<|user|>\n"))
    assert episode.verdict.score is None
    assert "the judge is down" in episode.verdict.detail
    assert episode.finish == "data"


def test_what_hangs_is_killed_at_the_deadline(guessing: Any) -> None:
    fleet, _ = guessing(lambda *_: "hang", turn_seconds=8.0)
    episode = play(fleet, encoded("<|user|>\n"))
    assert (episode.verdict.score, episode.verdict.status) == (None, "timeout")
    assert episode.verdict.detail == "nothing was said within 8 s of a turn"


def test_tools_are_served_and_end_with_the_episode() -> None:
    row = dict(load_rows(Source(name=COLUMNS, fraction=1.0, options={"size": 1}))[0].columns)
    description = describe(COLUMNS, {"size": 1})
    assert [tool["function"]["name"] for tool in description.tools] == ["adder_add"]
    assert (description.drives, description.speaks) == (True, False)
    call = "<tool_call>adder_add(x=10, y=20)</tool_call>"
    fleet, _ = episodes(COLUMNS, description, lambda _, turn: call if turn == 0 else "30", row, False, options={"size": 1})
    try:
        prompt = encoded("<|tools|>adder_add\n<|system|>\nAdd.\n<|user|>\n10+20=?\n<|assistant|>\n")
        episode = play(fleet, prompt)
        assert bytes(token for token in episode.tokens if token < 256).decode() == f"{call}\n<|tool|>\n30\n<|assistant|>\n30"
        assert episode.verdict == Verdict(2.0 + 0.5 * 2)
        until = time.monotonic() + 60
        while (left := _servers()) and time.monotonic() < until:
            time.sleep(0.1)
        assert left == []
    finally:
        fleet.close()


def _servers() -> list[str]:
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if "-m columns_v1" in line]


def test_a_task_set_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "broken_v1.py"
    file.write_text("__all__ = []")
    with pytest.raises(RecipeError, match=r"cannot be used as a task set: TypeError: .*exports no Taskset"):
        describe(f"verifiers:{file}", {})
    file.write_text("raise SystemExit('no licence')")
    with pytest.raises(RecipeError, match="cannot be used as a task set: SystemExit: no licence"):
        describe(f"verifiers:{file}", {})
    with pytest.raises(DataError, match="cannot be used as a task set: SystemExit: no licence"):
        load_rows(Source(name=f"verifiers:{file}", count=2))


def test_a_reader_that_is_killed_in_the_middle_of_a_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off = 'import os, sys; os.write(int(sys.argv[3]), b\'{"messages": []}\\n{"messages": [\')'
    monkeypatch.setattr("tulu.data.tasksets._BOOT", cut_off)
    with pytest.raises(DataError, match="the process that reads its tasks ended"):
        load_rows(Source(name=GUESSING, count=2))
