"""Episodes of an evaluation."""

from typing import Any, cast

from tests.environments.test_turns import TEMPLATE
from tests.rollout.test_episodes import PROMPT, SHOP, Speaker, calls
from tulu.config.parts import EnvironmentSettings
from tulu.data.chat import make_byte_tokenizer
from tulu.environments.nursery import describe
from tulu.environments.turns import Turns
from tulu.rollout.acting import Acting
from tulu.rollout.played import PlayedEngine
from tulu.types import Problem, SamplingParams, Verdict


def test_problems_may_have_the_same_name_and_need_no_room_at_once() -> None:
    tokenizer = make_byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    acting = Acting(EnvironmentSettings(path=SHOP, episodes=2), tokenizer)
    acting._description = description = describe(SHOP, {})
    acting._turns = Turns(tokenizer, description.tools)
    problems = [Problem("a", (), PROMPT, None, ("exact",)) for _ in range(3)]
    engine = PlayedEngine(cast(Any, Speaker(lambda _, turn: calls(3) if turn == 0 else "Done.")), acting, problems)
    try:
        groups = engine.generate(problems, 1, SamplingParams(300))
    finally:
        engine.close()
    assert [group.completions[0].verdict for group in groups] == [Verdict(3.0)] * 3
