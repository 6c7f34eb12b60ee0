"""Scores on disk: resumed after a cut line, refused under other settings, readable by --scores."""

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tulu.errors import DataError, RecipeError
from tulu.reward_models.items import Scored
from tulu.reward_models.score_file import ScoreStore, read_scores

SETTINGS = {"model": "m", "max_length": None}
ROWS = {
    0: Scored("a", "shp", (1.5,), (0.5,), details={"tokens": [3, 4]}),
    1: Scored("b", "shp", (math.nan,), (0.5,)),
    2: Scored("c", "hep-go", (1.0,), (0.0,), 0.5, details={"text": "x\ny"}),
}


def store(folder: Path, fresh: bool = False, **settings: object) -> ScoreStore:
    return ScoreStore(folder, "v1", {**SETTINGS, **settings}, fresh)


def test_resumes_where_a_line_was_cut(tmp_path: Path) -> None:
    store(tmp_path).append({place: ROWS[place] for place in (0, 1)})
    with (tmp_path / "scores.jsonl").open("a") as stream:
        stream.write('{"index": 2, "id": "c", "sub')
    again = store(tmp_path)
    assert sorted(again.rows) == [0, 1]
    again.append({2: ROWS[2]})
    third = store(tmp_path)
    assert [row.id for row in third.in_order()] == ["a", "b", "c"]
    assert third.in_order()[0].details == {"tokens": [3, 4]}
    assert math.isnan(third.in_order()[1].chosen[0])
    assert third.in_order()[2].credit == 0.5


def test_rows_are_a_scores_file(tmp_path: Path) -> None:
    made = store(tmp_path)
    made.append(ROWS)
    made.write_parquet()
    read = read_scores(tmp_path / "scores.jsonl", "v1")
    assert [(item.id, item.subset, item.missing) for item in read] == [
        ("a", "shp", False),
        ("b", "shp", True),
        ("c", "hep-go", False),
    ]
    columns = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert [row["chosen"] for row in columns] == [[1.5], [None], [1.0]]
    assert columns[0]["tokens"] == "[3, 4]"


def test_other_settings_are_named(tmp_path: Path) -> None:
    store(tmp_path).append(ROWS)
    with pytest.raises(RecipeError, match=r"max_length: null -> 512\n.*--fresh"):
        store(tmp_path, max_length=512)
    assert store(tmp_path, fresh=True, max_length=512).rows == {}


@pytest.mark.parametrize("left", [None, "", '{"index": 0, "id'])
def test_a_folder_without_any_score_takes_other_settings(left: str | None, tmp_path: Path) -> None:
    store(tmp_path)
    if left is not None:
        (tmp_path / "scores.jsonl").write_text(left)
    store(tmp_path, max_length=512).append(ROWS)
    assert len(store(tmp_path, max_length=512).rows) == 3
    with pytest.raises(RecipeError, match="max_length: 512 -> null"):
        store(tmp_path)


def test_a_file_where_the_folder_belongs_is_a_wrong_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RecipeError, match=r"--out .*file is a file where a folder belongs; name another") as caught:
            store(folder)
        assert caught.value.exit_code == 2


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text("{}\n")
    with pytest.raises(RecipeError, match=r"scores without a settings\.json"):
        store(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    with pytest.raises(DataError, match=r"scores\.jsonl:1: not a row of an evaluation"):
        store(tmp_path)
