"""`tulu rewardbench --scores FILE`: what is read, what is refused, what is printed."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tulu.errors import DataError, RecipeError
from tulu.reward_models.options import RewardBenchOptions
from tulu.reward_models.rewardbench import run


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def printed(path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert run(None, data, path, RewardBenchOptions(json_output=True)) is None
    result = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert isinstance(result, dict)
    return result


V1 = [
    {"id": 0, "subset": "llmbar-natural", "chosen": 1.5, "rejected": 0.5},
    {"id": 1, "subset": "llmbar-natural", "chosen": [1], "rejected": [1]},
    {"id": 2, "subset": "llmbar-natural", "chosen": None, "rejected": 0.5},
    '{"id": 3, "subset": "llmbar-natural", "chosen": NaN, "rejected": 0.5}',
    {"id": 4, "subset": "math-prm", "chosen": 2, "rejected": -1},
]


def test_v1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(write(tmp_path / "s.jsonl", V1), "v1", capsys) == {
        "data": "v1",
        "subsets": {"llmbar-natural": {"accuracy": 0.25, "count": 4}, "math-prm": {"accuracy": 1.0, "count": 1}},
        "sections": {"Chat Hard": 0.25, "Reasoning": 1.0},
        "score": 0.625,
        "ties": 1,
        "missing": 2,
    }


def test_v2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[object] = [
        {"id": "7", "subset": "Math", "chosen": [1.0], "rejected": [1.0, 0.0, None]},
        {"id": "8", "subset": "Math", "chosen": [1.0], "rejected": [1.0, 0.0, 0.0]},
        {"id": "ref:1", "subset": "Ties", "chosen": [[2.0]], "rejected": [[0.5]]},
        {"id": "tied:1", "subset": "Ties", "chosen": [3.0, 2.5], "rejected": [1.0]},
    ]
    result = printed(write(tmp_path / "s.jsonl", rows), "v2", capsys)
    subsets = result["subsets"]
    assert isinstance(subsets, dict)
    assert subsets["Math"] == {"accuracy": 0.25, "count": 2}
    assert subsets["Ties"] == {"accuracy": pytest.approx(1.009640, abs=1e-6), "count": 2}
    assert (result["score"], result["missing"]) == (pytest.approx((0.25 + 1.009640) / 2, abs=1e-6), 1)


def test_undefined_ties_is_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = printed(write(tmp_path / "s.jsonl", [{"id": "ref:1", "subset": "Ties", "chosen": 2, "rejected": 1}]), "v2", capsys)
    assert result["subsets"] == {"Ties": {"accuracy": None, "count": 1}}
    assert result["score"] is None


def test_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[object] = [{"chosen": 1, "rejected": 0}, {"subset": "mine", "chosen": [1], "rejected": [1, 0]}]
    assert printed(write(tmp_path / "s.jsonl", rows), "free", capsys) == {
        "data": "free",
        "subsets": {"all": {"accuracy": 1.0, "count": 1}, "mine": {"accuracy": 0.5, "count": 1}},
        "sections": {},
        "score": 0.75,
        "ties": 1,
        "missing": 0,
    }


@pytest.mark.parametrize(
    ("rows", "data", "message"),
    [
        (["{", "[1]"], "v1", r"s.jsonl:1: broken JSON .*\n.*s.jsonl:2: holds a list"),
        ([V1[0], {"id": 1, "subset": "llmbar", "chosen": 1, "rejected": 0}], "v1", "s.jsonl:2: unknown subset 'llmbar' for v1"),
        ([{"id": 1, "subset": "ties", "chosen": 1, "rejected": 0}], "v2", "unknown subset 'ties' for v2"),
        ([{"id": 1, "subset": "shp", "chosen": 1}], "v1", "s.jsonl:1: no 'rejected'"),
        ([{"id": 1, "chosen": 1, "rejected": 0}], "v1", "s.jsonl:1: subset: None"),
        ([{"id": 1, "subset": "shp", "chosen": "1", "rejected": 0}], "v1", "chosen: '1' is not a number"),
        ([{"id": 1, "subset": "shp", "chosen": True, "rejected": 0}], "v1", "chosen: True is not a number"),
        ([{"id": 1, "subset": "shp", "chosen": [], "rejected": 0}], "v1", "chosen: an empty list"),
        ([{"id": 1, "subset": "shp", "chosen": [1, 2], "rejected": 0}], "v1", "s.jsonl:1: v1 compares one chosen"),
        ([{"id": 1, "subset": "Ties", "chosen": [1, 2], "rejected": 0}], "v2", "s.jsonl:1: id: 1; a Ties id"),
        ([{"id": "tied:1", "subset": "Ties", "chosen": [1], "rejected": 0}], "v2", "s.jsonl:1: id 'tied:1': a tied item needs"),
        ([{"id": 1, "subset": "shp", "chosen": 10**400, "rejected": 0}], "v1", r"s.jsonl:1: chosen: 10+… \(401 digits\) is no"),
        ([V1[0], V1[4], V1[0]], "v1", r"s.jsonl:3: id '0' of 'llmbar-natural' stands in .*s.jsonl:1 too"),
        ([{"id": "ref:1", "subset": "Ties", "chosen": [1, 2], "rejected": 0}], "v2", "s.jsonl:1: id 'ref:1': a ref item has one"),
        ([], "v1", "file is empty"),
    ],
)
def test_refuses(rows: list[object], data: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        run(None, data, write(tmp_path / "s.jsonl", rows), RewardBenchOptions())
    assert caught.value.exit_code == 2


def test_what_is_not_finite_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f'{{"id": "{score}", "chosen": {score}, "rejected": 0}}' for score in ("1e400", "-1e400", "Infinity", "NaN", "null")]
    result = printed(write(tmp_path / "s.jsonl", rows), "free", capsys)
    assert (result["score"], result["missing"], result["ties"]) == (0.0, 5, 0)


def test_rows_without_ids_and_an_evaluations_rows_may_look_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[object] = [{"chosen": 1, "rejected": 0}] * 2
    rows += [{"index": k, "id": "same", "chosen": 1, "rejected": 0} for k in range(2)]
    assert printed(write(tmp_path / "s.jsonl", rows), "free", capsys)["score"] == 1.0


@pytest.mark.parametrize(
    "options", [RewardBenchOptions(out=Path("x")), RewardBenchOptions(limit=3), RewardBenchOptions(fresh=True)]
)
def test_refuses_what_it_would_ignore(options: RewardBenchOptions, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--(out|limit|fresh): --scores reads the whole file .* leave it out"):
        run(None, "v1", write(tmp_path / "s.jsonl", V1), options)


def test_absent_subsets_of_v2_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        None,
        "v2",
        write(tmp_path / "s.jsonl", [{"id": "1", "subset": "Math", "chosen": [1], "rejected": [0]}]),
        RewardBenchOptions(),
    )
    assert "no rows of Factuality, Precise IF, Safety, Focus, Ties: the score is the mean" in capsys.readouterr().out


def test_refuses_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        run(None, "v1", tmp_path / "absent.jsonl", RewardBenchOptions())
    with pytest.raises(DataError, match="is a folder"):
        run(None, "v1", tmp_path, RewardBenchOptions())


def test_refuses_options_that_do_not_go_together(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", V1)
    for model, data, scores, options in [
        ("model", "v1", path, RewardBenchOptions()),
        (None, "v1", None, RewardBenchOptions()),
        (None, "v3", path, RewardBenchOptions()),
        (None, "free", path, RewardBenchOptions(compare=True)),
    ]:
        with pytest.raises(RecipeError):
            run(model, data, scores, options)


def test_table_names_what_a_reader_must_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(None, "v1", write(tmp_path / "s.jsonl", V1), RewardBenchOptions(compare=True))
    shown = capsys.readouterr().out
    for words in ("llmbar-natural", "62.50", "1 exact ties, 2 with missing scores", "no rows of Chat, Safety", "INF-ORM"):
        assert words in shown
