"""The generated task: right solutions are right, wrong ones wrong, and held-out operands stay held out."""

import re
from typing import Any

import pytest

from tulu.data.sums import SPLITS, Difficulty, Sum, answer, is_held_out, rows, work_out
from tulu.errors import DataError


def parse_operands(prompt: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\+(\d+)=\?", prompt)
    assert found
    return int(found[1]), int(found[2])


def operands_of(row: dict[str, Any]) -> tuple[int, int]:
    return parse_operands((row.get("messages") or row["chosen"])[0]["content"])


@pytest.mark.parametrize(
    ("a", "b", "carry", "expected"),
    [
        (347, 285, True, "7+5+0=12\n4+8+1=13\n3+2+1=06\n#### 632"),
        (347, 285, False, "7+5+0=12\n4+8+0=12\n3+2+0=05\n#### 522"),
        (71, 852, True, "1+2+0=03\n7+5+0=12\n0+8+1=09\n#### 923"),
        (999, 1, True, "9+1+0=10\n9+0+1=10\n9+0+1=10\n#### 1000"),
        (999, 1, False, "9+1+0=10\n9+0+0=09\n9+0+0=09\n#### 990"),
        (120, 3, True, "0+3+0=03\n2+0+0=02\n1+0+0=01\n#### 123"),
    ],
)
def test_worked_by_hand(a: int, b: int, carry: bool, expected: str) -> None:
    assert work_out(Sum(a, b), carry) == expected


def test_a_slip_is_carried_on() -> None:
    # 7+5 read as 13, then the carry as ever: 3, 13, 6.
    assert work_out(Sum(347, 285), slip=(0, 1)) == "7+5+0=13\n4+8+1=13\n3+2+1=06\n#### 633"
    assert answer(work_out(Sum(347, 285), slip=(2, -1))) == 532


def test_every_right_solution_is_the_sum() -> None:
    for a in range(10, 1000, 7):
        for b in range(10, 1000, 11):
            assert answer(work_out(Sum(a, b))) == a + b


def test_pairs_are_right_and_wrong() -> None:
    for row in rows("pairs", 500, 1) + rows("held_out_pairs", 200, 1):
        chosen, rejected = row["chosen"][1]["content"], row["rejected"][1]["content"]
        assert answer(chosen) == sum(operands_of(row)) != answer(rejected)
        assert row["chosen"][0] == row["rejected"][0]


def test_demonstrations_are_sloppy_as_often_as_said() -> None:
    made = rows("sft", 2000, 1)
    carrying = [row for row in made if Sum(*operands_of(row)).carries]
    right = [row for row in carrying if answer(row["messages"][1]["content"]) == sum(operands_of(row))]
    # 0.4 of about 1400; three standard deviations are 0.04.
    assert abs(len(right) / len(carrying) - 0.4) < 0.04
    for row in made:
        assert row["messages"][1]["content"] in (work_out(Sum(*operands_of(row))), work_out(Sum(*operands_of(row)), carry=False))


def test_held_out_operands_occur_nowhere_else() -> None:
    held = {tuple(sorted(operands_of(row))) for name in ("held_out", "held_out_pairs") for row in rows(name, 800, 3)}
    others = {tuple(sorted(operands_of(row))) for name in ("sft", "pairs", "train") for row in rows(name, 3000, 3)}
    for row in rows("base", 3000, 3):
        others |= {tuple(sorted(parse_operands(f"{a}+{b}=?"))) for a, b in re.findall(r"(\d+)\+(\d+)=\?", row["text"])}
    assert len(others) > 9000
    assert not held & others
    assert all(is_held_out(Sum(*pair)) and is_held_out(Sum(pair[1], pair[0])) for pair in held)


@pytest.mark.parametrize("split", ["sft", "pairs", "train", "held_out", "held_out_pairs"])
def test_operands_of_a_split_are_distinct(split: str) -> None:
    made = [tuple(sorted(operands_of(row))) for row in rows(split, 1000, 2)]
    assert len(set(made)) == len(made) == 1000


@pytest.mark.parametrize("split", SPLITS)
def test_rows_depend_on_the_seed_alone(split: str) -> None:
    assert rows(split, 50, 1) == rows(split, 50, 1)
    assert rows(split, 50, 1) != rows(split, 50, 2)
    # A larger count begins with the smaller one's rows.
    assert rows(split, 80, 1)[:50] == rows(split, 50, 1)


def test_problems_name_their_verifier_and_truth() -> None:
    for row in rows("train", 100, 1):
        assert (row["ground_truth"], row["dataset"]) == (str(sum(operands_of(row))), "gsm8k")


def test_base_text_is_right_and_knows_no_chat() -> None:
    for row in rows("base", 500, 1):
        assert "<|" not in row["text"]
        for line in row["text"].splitlines():
            if fact := re.fullmatch(r"(\d)\+(\d)\+([01])=(\d\d)", line):
                assert int(fact[1]) + int(fact[2]) + int(fact[3]) == int(fact[4])
        for a, b, total in re.findall(r"(\d+)\+(\d+)=\?\n(?:.*\n)*?#### (\d+)", row["text"]):
            assert int(a) + int(b) == int(total)


def test_answers_are_short() -> None:
    lengths = [len(row["messages"][1]["content"]) for row in rows("sft", 2000, 1)]
    assert max(lengths) <= 45


def test_difficulty_is_adjustable() -> None:
    easy = rows("sft", 50, 1, Difficulty(smallest=10, largest=99, sloppy=0.0))
    assert all(max(operands_of(row)) < 100 and answer(row["messages"][1]["content"]) == sum(operands_of(row)) for row in easy)
    with pytest.raises(DataError, match="no 100 different sums of 10 to 12"):
        rows("train", 100, 1, Difficulty(smallest=10, largest=12))


def test_unknown_split() -> None:
    with pytest.raises(DataError, match="no split 'test'; it has base, sft"):
        rows("test", 1, 1)
