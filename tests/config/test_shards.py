"""Folders and patterns of data files: which files they stand for, in what order, and what is refused rather than guessed."""

from pathlib import Path

import pytest

from tulu.config.locate import source_problem
from tulu.config.shards import folder_files, is_pattern, matching_files
from tulu.errors import DataError


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path, split: str = "train", subset: str | None = None) -> list[str]:
    return [str(file.relative_to(folder)) for file in folder_files(folder, "set", split, subset)]


def test_a_pattern_is_all_files_that_match_in_their_natural_order(tmp_path: Path) -> None:
    touched(tmp_path, "a/part-10.jsonl", "a/part-2.jsonl", "b/deep/part-1.jsonl.gz", "a/notes.txt", "a/folder.jsonl/x.csv")
    assert [file.name for file in matching_files(f"{tmp_path}/a/*.jsonl")] == ["part-2.jsonl", "part-10.jsonl"]
    assert [file.name for file in matching_files(f"{tmp_path}/**/part-*")] == ["part-2.jsonl", "part-10.jsonl", "part-1.jsonl.gz"]
    assert source_problem(f"{tmp_path}/a/*.jsonl") is None
    assert "no file matches this pattern" in (source_problem(f"{tmp_path}/a/*.parquet") or "")
    with pytest.raises(DataError, match=r"a/\*.parquet: no data file matches"):
        matching_files(f"{tmp_path}/a/*.parquet")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    touched(tmp_path, "rows[1].jsonl")
    assert not is_pattern(f"{tmp_path}/rows[1].jsonl")
    assert is_pattern(f"{tmp_path}/rows*.jsonl")
    assert source_problem(f"{tmp_path}/rows[1].jsonl") is None


HUB = (
    *("README.md", "dataset_infos.json", ".gitattributes", ".cache/huggingface/train.parquet", "_SUCCESS"),
    *("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"),
)


def test_a_folder_of_the_hub_has_splits_and_files_that_hold_no_data(tmp_path: Path) -> None:
    touched(tmp_path, *HUB)
    assert found(tmp_path) == ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
    assert found(tmp_path, "test") == ["data/test-00000-of-00001.parquet"]
    with pytest.raises(DataError, match=r"set: no split 'tset'; did you mean test.*it has: test, train"):
        found(tmp_path, "tset")


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (("one.jsonl", "two.jsonl"), "train", ["one.jsonl", "two.jsonl"]),
        (("train.jsonl", "dev.jsonl"), "validation", ["dev.jsonl"]),
        (("train.jsonl", "dev.jsonl"), "dev", ["dev.jsonl"]),
        (("train/a.jsonl", "test/a.jsonl"), "train", ["train/a.jsonl"]),
        (("my_set-train.csv", "my_set-eval.csv"), "test", ["my_set-eval.csv"]),
        (
            ("train_sft-00000-of-00001.parquet", "test_sft-00000-of-00001.parquet"),
            "train_sft",
            ["train_sft-00000-of-00001.parquet"],
        ),
        (("trainer.jsonl", "tests.jsonl"), "train", ["tests.jsonl", "trainer.jsonl"]),
        (("a.jsonl", "b.ndjson", "c.jsonl.gz"), "train", ["a.jsonl", "b.ndjson", "c.jsonl.gz"]),
        (("part-00000-of-00001.parquet",), "part", ["part-00000-of-00001.parquet"]),
    ],
)
def test_splits_are_read_from_names(tmp_path: Path, names: tuple[str, ...], split: str, expected: list[str]) -> None:
    assert found(touched(tmp_path, *names), split) == expected


def test_a_subset_is_a_folder_in_the_folder(tmp_path: Path) -> None:
    touched(tmp_path, "main/train-00000-of-00001.parquet", "socratic/train-00000-of-00001.parquet")
    assert found(tmp_path, subset="socratic") == ["socratic/train-00000-of-00001.parquet"]
    with pytest.raises(DataError, match="no folder other there; correct subset"):
        found(tmp_path, subset="other")


@pytest.mark.parametrize(
    ("names", "split", "message"),
    [
        (("README.md",), "train", r"set: holds no \.jsonl, .* file and no saved Arrow folder"),
        (("a.jsonl", "a.parquet"), "train", r"files of several kinds \(\.jsonl, \.parquet\), which may hold the same rows twice"),
        (
            ("train-00000-of-00003.parquet", "train-00002-of-00003.parquet"),
            "train",
            r"1 of 3 shards are missing \(train-00001-of-00003\)",
        ),
        (("train.jsonl", "more.jsonl"), "train", r"names of some files say a split and others do not \(more.jsonl\)"),
        (("one.jsonl",), "test", "no split 'test'; set split to one of those it has: train alone"),
    ],
)
def test_folders_that_could_mean_something_else_are_refused(
    tmp_path: Path, names: tuple[str, ...], split: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        found(touched(tmp_path, *names), split)
