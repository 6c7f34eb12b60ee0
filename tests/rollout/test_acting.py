"""What a run asks of its environment before anything is sampled."""

from collections.abc import Mapping
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
from tulu.types import Problem


def test_a_class_is_described_once_and_all_rows_must_begin_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    described = []

    def describe(path: str, options: Mapping[str, Any]) -> Description:
        described.append(path)
        return Description((), scores=True)

    def read(row: dict[str, Any]) -> Any:
        user: Any = {"role": "user", "content": "Go."}
        return lambda **_: Problems([Problem(f"rows:{row}", [user], [1], None, (), row)], total(()))

    monkeypatch.setattr(acting, "describe", describe)
    tokenizer = make_byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    made = Acting(EnvironmentSettings(path=SHOP), tokenizer)
    [whole] = made.load(read({}))
    assert list(whole.prompt) == [1]
    assert len(made.load(read({"number": 2}))) == 1
    assert described == [SHOP]
    with pytest.raises(RecipeError, match="reset returns a text for rows of data and None for those of eval_task, or the other"):
        made.load(read({"hint": "Be quick."}))
