"""What a run asks of its environment before anything is sampled."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.environments.test_turns import TEMPLATE
from tests.rollout.test_episodes import SHOP
from tulu.config.parts import EnvironmentSettings
from tulu.data.chat import make_byte_tokenizer
from tulu.data.problems import Problems
from tulu.data.row_report import total
from tulu.environments.authoring import Description
from tulu.errors import RecipeError
from tulu.rollout import acting
from tulu.rollout.acting import Acting
from tulu.rollout.status import Status
from tulu.types import Problem


def problems_of(*rows: dict[str, Any]) -> Callable[..., Problems]:
    user: Any = {"role": "user", "content": "Go."}
    read = [Problem(f"rows:{number}", [user], [1], None, (), row) for number, row in enumerate(rows)]
    return lambda **_: Problems(read, total(()))


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which classes were described, which starts no process here."""
    asked: list[str] = []

    def describe(path: str, options: Mapping[str, Any]) -> Description:
        asked.append(path)
        return Description((), scores=True)

    monkeypatch.setattr(acting, "describe", describe)
    return asked


def make(status: Status | None = None, **settings: Any) -> Acting:
    tokenizer = make_byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return Acting(EnvironmentSettings(**{"path": SHOP, **settings}), tokenizer, status)


def test_a_class_is_described_once_and_texts_for_eval_task_alone_are_refused(described: list[str]) -> None:
    made = make()
    [whole] = made.load(problems_of({}))
    assert list(whole.prompt) == [1]
    assert len(made.load(problems_of({"number": 2}))) == 1
    assert described == [SHOP]
    with pytest.raises(RecipeError, match=r"a text for rows of eval_task and None for those of data; let it return '' instead"):
        made.load(problems_of({"hint": "Be quick."}))


@pytest.mark.parametrize("place", [0, 3, 9])
def test_rows_with_and_without_a_text_mix(described: list[str], place: int) -> None:
    """One of the rows that are tried has a text, so that the prompts of all end where one may follow."""
    rows: list[dict[str, Any]] = [{} for _ in range(12)]
    rows[place]["hint"] = "Be quick."
    made = make()
    loaded = made.load(problems_of(*rows))
    assert [list(problem.prompt) for problem in loaded] == [list(b"<|user|>\nGo.")] * 12
    assert len(made.load(problems_of({}))) == 1, "and rows of eval_task may have none"


def test_a_row_that_cannot_begin_is_told_and_only_the_first_must(described: list[str], caplog: pytest.LogCaptureFixture) -> None:
    assert len(make().load(problems_of({}, {"broken": True}))) == 2
    assert "cannot begin with row rows:1 (ValueError: this row cannot be played): its episodes are masked" in caplog.text
    caplog.clear()
    with pytest.raises(RecipeError, match="cannot begin with row rows:0: ValueError: this row cannot be played"):
        make().load(problems_of({"broken": True}, {"broken": True}, {}))
    assert "masked" not in caplog.text, "one message says what is wrong"


def test_a_verifier_that_would_grade_nothing_is_refused(described: list[str]) -> None:
    made = Acting(EnvironmentSettings(path=SHOP), make().tokenizer, verifier="math")
    with pytest.raises(RecipeError, match=r"verifier: math would grade nothing: the environment .*shop.py scores its episodes"):
        made.load(problems_of({}))


def test_who_is_waited_for_before_anything_is_sampled_is_told(
    described: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "slow.py"
    file.write_text(
        "import os, time\nclass Slow:\n    def reset(self, go, **row):\n        while not os.path.exists(go): time.sleep(0.01)\n"
    )
    caplog.set_level(logging.INFO, "tulu")
    told, go = f"waiting for the environment {file} (reset of 2 rows) since", tmp_path / "go"

    def let_go() -> None:
        until = time.monotonic() + 60
        while told not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
        go.touch()

    with Status(tell_after=0.2) as status:
        letting_go = Thread(target=let_go)
        letting_go.start()
        make(status, path=str(file), call_seconds=120.0).load(problems_of({"go": str(go)}, {"go": str(go)}))
        letting_go.join()
        assert status.waits() == []
    assert told in caplog.text


def test_an_environment_is_known_by_its_file_what_it_imports_from_beside_it_and_its_options(tmp_path: Path) -> None:
    (file := tmp_path / "own.py").write_text("import own_prices")
    (prices := tmp_path / "own_prices.py").write_text("APPLE = 2")
    (tmp_path / "other.py").write_text("")

    def known() -> list[str]:
        return [make(path=f"{file}:Shop", options={"size": size}).digest() for size in (1, 2)]

    first = known()
    prices.write_text("APPLE = 3")
    second = known()
    (tmp_path / "other.py").write_text("APPLE = 4")
    assert len({*first, *second}) == 4
    assert known() == second
