"""Environments in processes of their own: what a class offers, deadlines, and that one episode cannot hurt another."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tulu.environments.authoring import load_class
from tulu.environments.nursery import EpisodeProcess, Failed, Late, Nursery, describe
from tulu.errors import RecipeError, TuluError

SHOP = str(Path(__file__).with_name("shop.py"))


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery(SHOP, {"begin": 5}, 1.0)
    yield made
    made.close()


def begun(nursery: Nursery, **row: object) -> EpisodeProcess:
    process = nursery.start()
    process.reset(row, 60.0)
    return process


@pytest.mark.parametrize(
    "text",
    [
        "def make():\n    class Made:\n        def reset(self, **row): pass\n    return Made\nEnv = make()",
        "import abc\nfrom shop import Shop\nclass Env(Shop):\n    pass",
        "from shop import Shop as Env",
        "Env = type('Env', (), {'reset': lambda self, **row: None})\nAlso = Env",
    ],
)
def test_a_class_may_come_from_anywhere(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    file = tmp_path / "own.py"
    file.write_text(text)
    (tmp_path / "shop.py").write_text(Path(SHOP).read_text())
    assert load_class(str(file)).__qualname__ == load_class(f"{file}:Env").__qualname__
    sys.modules.pop("shop", None)


def is_running(pid: int) -> bool:
    """Whether a process works; one that ended and that nobody waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_public_methods_are_tools_by_their_hints() -> None:
    made = describe(SHOP, {})
    assert [tool["function"]["name"] for tool in made.tools] == ["add", "die", "fetch", "hang", "nap"]
    assert made.tools[0]["function"]["parameters"]["properties"] == {"x": {"type": "integer", "description": "How much."}}
    assert made.scores
    assert not describe("python", {}).scores


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class A:\n    def reset(self, **row): pass\nclass B(A):\n    pass", "the classes A, B with a method reset; name one"),
        ("raise OSError('no disk')", "cannot be imported: OSError: no disk"),
        ("import os\nos._exit(1)", "the process that imports it ended"),
        ("import sys\nsys.exit('no licence')", "cannot be imported: SystemExit: no licence; let it end no program"),
        ("import not_there.inside", r"No module named 'not_there'; install not_there beside tulu, or put not_there\.py into /"),
        ("from .shop import Shop", "attempted relative import.*; write `import NAME` in place of `from .NAME`"),
        (
            "class A:\n    def __init__(self, size): pass\n    def reset(self): pass",
            r"env\.options: A cannot be made of no options",
        ),
        ("class A:\n    def rest(self): pass", "has no class with a method reset; write one"),
        ("class A:\n    def reset(self, **row): pass\n    def tool(self, x): pass", r"A\.tool: .*docstring"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        describe(str(file), {})


def test_episodes_have_states_of_their_own_and_errors_are_results(nursery: Nursery) -> None:
    one, other = begun(nursery), begun(nursery)
    assert one.call([("add", {"x": 2}), ("add", {"x": 1})], 60.0, 60.0) == ["7", "8"]
    assert other.call([("add", {"x": "a"}), ("buy", {}), ("_secret", {})], 60.0, 60.0) == [
        "error: TypeError: unsupported operand type(s) for +=: 'int' and 'str'",
        "error: no tool buy; the tools are add, die, fetch, hang, nap",
        "error: no tool _secret; the tools are add, die, fetch, hang, nap",
    ]
    assert (one.reward(60.0), other.reward(60.0)) == (8.0, 5.0)
    one.kill()
    other.kill()


def test_results_of_parallel_calls_stand_in_the_order_of_the_calls(nursery: Nursery) -> None:
    process = begun(nursery)
    calls = [
        ("fetch", {"name": name, "seconds": seconds}) for name, seconds in (("a", 0.1), ("b", 0.0), ("c", 0.05), ("d", 1000))
    ]
    began = time.monotonic()
    assert process.call(calls, 1.0, 60.0) == ["a", "b", "c", "error: no result within 1 s"]
    assert time.monotonic() - began < 30.0
    process.kill()


@pytest.mark.parametrize(
    ("calls", "call_seconds", "turn_seconds", "message"),
    [
        ([("add", {"x": 1}), ("hang", {})], 0.3, 60.0, r"hang: no result within 0\.3 s"),
        ([("nap", {"seconds": 0.2})] * 4, 60.0, 0.5, r"the calls of a turn took longer than 0\.5 s"),
    ],
)
def test_a_deadline_ends_the_episode_and_no_other(
    nursery: Nursery, calls: list[tuple[str, dict[str, float]]], call_seconds: float, turn_seconds: float, message: str
) -> None:
    late, other = begun(nursery), begun(nursery)
    other.call([("add", {"x": 1})], 60.0, 60.0)
    began = time.monotonic()
    with pytest.raises(Late, match=message):
        late.call(calls, call_seconds, turn_seconds)
    assert time.monotonic() - began < 30.0
    assert not is_running(late.pid)
    assert other.call([("add", {"x": 1})], 60.0, 60.0) == ["7"]
    other.kill()


def test_an_environment_that_dies_or_says_nothing_of_worth_has_no_score(nursery: Nursery) -> None:
    dead, unscored, wrong = begun(nursery), begun(nursery), begun(nursery)
    with pytest.raises(Failed, match="process ended"):
        dead.call([("die", {})], 60.0, 60.0)
    unscored.call([("add", {"x": 8})], 60.0, 60.0)
    assert unscored.reward(60.0) is None
    wrong.call([("add", {"x": 9})], 60.0, 60.0)
    with pytest.raises(Failed, match="get_reward returned nan"):
        wrong.reward(60.0)
    with pytest.raises(Failed, match="ValueError: this row cannot be played"):
        begun(nursery, broken=True)


def test_a_nursery_that_is_killed_takes_its_episodes_along_and_another_follows() -> None:
    nursery = Nursery(SHOP, {}, 0.5)
    process = begun(nursery)
    nursery.popen.kill()
    nursery.popen.wait()
    with pytest.raises(Failed):
        process.call([("nap", {"seconds": 5.0})], 3.0, 3.0)
    assert begun(nursery).call([("add", {"x": 1})], 60.0, 60.0) == ["1"]
    nursery.close()
    until = time.monotonic() + 60
    while is_running(process.pid):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_answer_that_comes_too_late_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the nursery stands still, what it says later must not name the process of another episode."""
    nursery = Nursery(SHOP, {}, 0.5)
    process = begun(nursery)
    monkeypatch.setattr("tulu.environments.nursery._FORK_SECONDS", 0.3)
    stopped = nursery.popen.pid
    os.kill(stopped, signal.SIGSTOP)
    process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(stopped, signal.SIGCONT)
    monkeypatch.setattr("tulu.environments.nursery._FORK_SECONDS", 20.0)
    other = begun(nursery)
    assert psutil.Process(other.pid).ppid() == nursery.popen.pid
    other.kill()
    assert not is_running(other.pid)
    nursery.close()


ODD = """
import os, sys
class Text(str): pass
class Odd:
    episodes = []
    def _prepare(self): return "a helper of the user's, and no business of tulu's"
    def reset(self, how=None):
        self.episodes.append(how)
        if how == "fork": os.fork()
        if how == "exit": sys.exit("no licence")
        if how == "chdir": os.chdir("/")
        if how == "forget": sys.modules.clear()
        return Text(len(self.episodes))
    def buy(self, how: str):
        '''Buys.

        Args:
            how: How.
        '''
        if how == "fork": os.fork()
        if how == "exit": sys.exit(2)
        return Text(how)
    def get_reward(self):
        os.fork()
        return 1
"""


def test_what_user_code_may_do_stays_in_its_episode(tmp_path: Path) -> None:
    """It forks, exits, deletes what is imported, has types of its own: no answer is lost, doubled, or takes another's place."""
    file = tmp_path / "odd.py"
    file.write_text(ODD)
    nursery = Nursery(str(file), {}, 5.0)
    for how in ("fork", "chdir", "forget", None):
        process = nursery.start()
        # What the class keeps for itself is new in every episode.
        assert process.reset({"how": how}, 60.0) == "1"
        assert process.call([("buy", {"how": one}) for one in ("a", "fork", "b", "exit")], 60.0, 60.0) == [
            "a", "fork", "b", "error: SystemExit: 2"]  # fmt: skip
        assert process.call([("buy", {"how": "c"})], 60.0, 60.0) == ["c"]
        assert process.reward(60.0) == 1.0
        process.kill()
    process = nursery.start()
    with pytest.raises(Failed, match=r"^SystemExit: no licence$"):
        process.reset({"how": "exit"}, 60.0)
    nursery.close()


def test_what_an_environment_prints_is_seen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its process is killed, which writes out nothing that waits."""
    file = tmp_path / "talks.py"
    file.write_text("class Talks:\n    def reset(self): print('I began')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONUNBUFFERED", raising=False)
        nursery = Nursery(str(file), {}, 5.0)
    process = nursery.start()
    process.reset({}, 60.0)
    process.kill()
    nursery.close()
    assert capfd.readouterr().err == "I began\n"


def test_a_file_that_was_changed_meanwhile_is_no_mistake_of_the_recipe(tmp_path: Path) -> None:
    file, read = tmp_path / "own.py", tmp_path / "rules.json"
    text = f"open({str(read)!r})\nclass A:\n    def reset(self): pass\n"
    file.write_text(text)
    read.write_text("{}")
    nursery = Nursery(str(file), {}, 5.0)
    changes: list[tuple[Callable[[], object], str]] = [
        (read.unlink, "It could be imported when the command began; was the file changed"),
        (lambda: file.write_text(text + "# edited"), r"own\.py, or a file that it imports, is not what it was when its episodes"),
    ]
    for change, told in changes:
        change()
        nursery.popen.kill()
        nursery.popen.wait()
        with pytest.raises(TuluError, match=told) as raised:
            nursery.start()
        assert raised.value.exit_code == 1
    nursery.close()
