import json

import pytest

from tulu.verifiers.contract import GoldError

reasoning_gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")


@pytest.mark.parametrize("name", ["basic_arithmetic", "chain_sum", "leg_counting", "spell_backward", "word_sorting"])
def test_own_answers_are_right_and_others_are_not(name: str) -> None:
    from tulu.verifiers.reasoning_gym import REASONING_GYM

    for entry in reasoning_gym.create_dataset(name, size=5, seed=1):
        gold = {"dataset": name, "entry": entry}
        REASONING_GYM.check(gold)
        assert REASONING_GYM(f"<think>hm</think><answer>{entry['answer']}</answer>", gold).score == 1
        assert REASONING_GYM(entry["answer"], json.dumps(gold)).score == 1
        assert (REASONING_GYM("no idea at all", gold).score or 0) < 0.5


def test_golds() -> None:
    from tulu.verifiers.reasoning_gym import REASONING_GYM

    for gold in ("{", {}, {"dataset": "no_such_thing", "entry": {"answer": "1"}}, {"dataset": "chain_sum", "entry": {}}):
        with pytest.raises(GoldError):
            REASONING_GYM.check(gold)


def test_entries_that_pay_for_nonsense_are_refused() -> None:
    from tulu.verifiers.reasoning_gym import REASONING_GYM

    [entry] = reasoning_gym.create_dataset("game_of_life_halting", size=1, seed=1)
    with pytest.raises(GoldError, match="pays"):
        REASONING_GYM.check({"dataset": "game_of_life_halting", "entry": entry})


@pytest.mark.parametrize("name", ["coin_flip", "complex_arithmetic", "basic_arithmetic"])
@pytest.mark.parametrize("answer", ["nan", "inf", "1e999", "nan+nanj", "", "\u200b", "<think>1</think>", "<answer></answer>"])
def test_answers_that_know_nothing(name: str, answer: str) -> None:
    from tulu.verifiers.reasoning_gym import REASONING_GYM

    for entry in reasoning_gym.create_dataset(name, size=3, seed=1):
        assert REASONING_GYM(answer, {"dataset": name, "entry": entry}).score == 0
