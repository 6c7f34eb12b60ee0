"""The documented lines of every algorithm load, and combinations that mean nothing are refused with key and cure."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.algorithm_lines import algorithms
from tests.config.recipe_text import GOOD
from tulu.config.load import load_recipe
from tulu.config.schema import Rlvr
from tulu.errors import RecipeError

Write = Callable[[str], str]
LONG = ["rlvr.max_tokens=20480", "rlvr.max_length=20512", "rlvr.prompts=16", "rlvr.batch=64", "rlvr.micro_batch=4"]
"""Sizes at which every documented line makes sense."""


def overrides(fields: dict[str, Any]) -> list[str]:
    """Fields as the command line gives them."""
    written = []
    for key, value in fields.items():
        if isinstance(value, dict) and value:
            written += [f"rlvr.{key}.{inner}={entry}" for inner, entry in value.items()]
        else:
            written.append(f"rlvr.{key}={str(value).lower() if isinstance(value, bool) else value}")
    return written


def test_the_tables_are_there() -> None:
    named = algorithms()
    assert {"GRPO, standard", "GRPO, centred", "Dr. GRPO", "DAPO", "CISPO", "GSPO", "RLOO", "PPO", "IcePop"} <= named.keys()
    assert len(named) >= 20


@pytest.mark.parametrize("name", algorithms())
def test_documented_lines_load_and_say_what_they_mean(write: Write, name: str) -> None:
    fields = algorithms()[name]
    section = load_recipe(write(GOOD), [*LONG, *overrides(fields)]).rlvr
    assert isinstance(section, Rlvr)
    plain = section.model_dump()
    for key, value in fields.items():
        if isinstance(value, dict):
            assert {inner: plain[key][inner] for inner in value} == value
        else:
            assert (plain[key]["path"] if key == "teacher" else plain[key]) == value
    assert section != load_recipe(write(GOOD), LONG).rlvr or fields == {"ratio_cap": 2.0}, "lines without an effect"


REFUSED = [
    (["loss=gspo"], "clip_low: missing, and the default is meant for loss clip", "clip_low: 3.0e-4 and clip_high: 4.0e-4"),
    (["loss=cispo", "clip_low=1.0"], "clip_high: missing", "clip_high: 0.2"),
    (["beta=0.1", "kl=k1"], 'kl: "k1": in the loss its gradient has mean 0', "kl_in: reward"),
    (["beta=0.1", "kl=k1", "kl_in=loss", "advantage=gae", "value={}"], 'kl: "k1": in the loss', "kl: k2 or k3"),
    (["kl_in=reward"], 'kl_in: "reward": beta is 0', "set beta"),
    (
        ["kl_in=reward", "beta=0.1", "mask_truncated=true"],
        "mask_truncated: true: the KL of completions that are left out",
        "false",
    ),
    (["ratio_cap=0.5"], "ratio_cap: 0.5: learner and sampler agree at a ratio of 1", "use 1 or more, or null"),
    (["ratio_floor=1.5"], "ratio_floor: 1.5: learner and sampler agree", "use 1 or less, or null"),
    (["ratio_cap=null", "ratio_outside=mask"], 'ratio_outside: "mask": no bound is set', "leave it at truncate"),
    (["ratio_cap=null", "ratio_level=geometric"], 'ratio_level: "geometric": no bound is set', "set ratio_cap"),
    (["overlong_buffer=32"], "overlong_buffer: 32: every completion would be penalised, max_tokens is 32", "a fifth"),
    (["overlong_buffer=8", "no_stop_score=0.0"], "overlong_buffer: 8: both punish", "keep one"),
    (["overlong_penalty=2.0"], "overlong_penalty: 2.0: there is no penalty without overlong_buffer", "set it"),
    (["advantage=none"], 'advantage: "none": nothing would be learned', "set teacher"),
    (["advantage=none", "teacher=owner/teacher"], "refill: true: with advantage none", "set false"),
    (["advantage=none", "refill=false", "teacher=owner/t", "overlong_buffer=8"], "overlong_buffer: 8: advantage none", "remove"),
    (["advantage=none", "refill=false", "teacher=owner/t", "beta=0.1", "kl_in=reward"], "kl_in: ", "set kl_in: loss"),
    (["advantage=gae", "value={}", "teacher=owner/teacher"], 'teacher.through: "advantage": advantages of gae', "set k2"),
    (["teacher=./nowhere"], 'teacher.path: "./nowhere": no such folder', ""),
    (["teacher=rows.jsonl"], 'teacher.path: "rows.jsonl": is a file', "config.json"),
    (["teacher.through=k1", "teacher.path=owner/t"], 'teacher.through: "k1"', "'advantage', 'k2', 'k3' or 'k4'"),
    (["teacher.weight=0.0", "teacher.path=owner/t"], "teacher.weight: 0.0", "greater than 0"),
    (["teacher.weight=1.0"], "teacher.path: missing", ""),
    (["entropy_bonus=-0.1"], "entropy_bonus: -0.1", "greater than or equal to 0"),
    (["samples=1", "batch=4"], "samples: 1: one completion has nothing to be compared with", "advantage: gae"),
]


@pytest.mark.parametrize(("fields", "expected", "cure"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_what_means_nothing_is_refused(write: Write, fields: list[str], expected: str, cure: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(write(GOOD), [f"rlvr.{field}" for field in fields])
    assert f"rlvr.{expected}" in str(error.value)
    assert cure in str(error.value)
    assert error.value.exit_code == 2


def test_one_completion_is_enough_for_a_teacher(write: Write) -> None:
    fields = ["samples=1", "batch=4", "advantage=none", "refill=false", "teacher=owner/teacher"]
    section = load_recipe(write(GOOD), [f"rlvr.{field}" for field in fields]).rlvr
    assert isinstance(section, Rlvr)
    assert section.teacher is not None
    assert section.teacher.path == "owner/teacher"


def test_a_reward_model_is_no_teacher(write: Write, tiny_reward_model: Callable[..., Any]) -> None:
    with pytest.raises(RecipeError, match=r"rlvr.teacher.path: .*is a reward model, which scores answers"):
        load_recipe(write(GOOD), [f"rlvr.teacher={tiny_reward_model()}"])


@pytest.mark.parametrize(
    ("fields", "in_reward", "later"),
    [
        ({}, False, False),
        ({"beta": 0.1}, False, False),
        ({"beta": 0.1, "kl_in": "reward"}, True, True),
        ({"beta": 0.1, "advantage": "gae"}, True, True),
        ({"beta": 0.1, "advantage": "gae", "kl_in": "loss"}, False, True),
        ({"advantage": "gae"}, False, True),
        ({"advantage": "none", "beta": 0.1}, False, False),
    ],
)
def test_where_the_kl_is_and_when_rewards_are_compared(fields: dict[str, Any], in_reward: bool, later: bool) -> None:
    sizes = {"prompts": 4, "samples": 2, "batch": 8, "max_prompt": 8, "max_tokens": 8, "max_length": 16, "steps": 1}
    stage = Rlvr.model_validate({"data": "rows.jsonl", "learning_rate": 1e-3, **sizes, **fields})
    assert (stage.kl_in_reward, stage.compares_later) == (in_reward, later)
