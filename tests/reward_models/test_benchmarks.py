"""What --data may name, which rules it follows, and what is refused."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tulu.errors import DataError
from tulu.reward_models.benchmarks import load
from tulu.reward_models.bias import baselines


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pair(subset: str | None = None, **more: Any) -> dict[str, Any]:
    return {"prompt": "Q", "chosen": "good", "rejected": "bad", **({} if subset is None else {"subset": subset}), **more}


def test_rules_follow_the_subsets(tmp_path: Path) -> None:
    four = {"prompt": "Q", "chosen": ["a"], "rejected": ["b", "c", "d"]}
    for name, rows, data in [
        ("v1", [pair("shp"), pair("math-prm")], "v1"),
        ("mixed", [pair("shp"), pair("mine")], "free"),
        ("pairs", [pair("Math")], "free"),
        ("v2", [{**four, "subset": "Math"}, {**four, "subset": "Safety"}], "v2"),
        ("lists", [{**four, "subset": "mine"}], "free"),
        ("plain", [pair()], "free"),
    ]:
        loaded = load(write(tmp_path / f"{name}.jsonl", rows))
        assert (loaded.name, loaded.data) == (f"{tmp_path.name}-{name}", data)
    assert load(str(tmp_path / "plain.jsonl")).items[0].subset == "plain"


def test_files_of_one_name_in_different_folders_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, name in (("a/test.jsonl", "a-test"), ("deep/b/test.jsonl", "b-test"), ("test.jsonl", "test"), ("deep/b", "deep-b")):
        if path.endswith("l"):
            write(Path(path), [pair("shp")])
        assert load(path).name == name
    assert load("v1=a/test.jsonl").name == "v1-a-test"


def test_named_rules_refuse_foreign_subsets(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [pair("shp"), pair("mine"), pair("other"), pair("mine")])
    with pytest.raises(DataError, match=r"x.jsonl:2: unknown subset 'mine' for v1\n.*:3: unknown subset 'other'.*\nknown"):
        load(f"v1={path}")
    with pytest.raises(DataError, match="evaluate it alone"):
        load("v1+v2")


def test_what_cannot_be_aggregated_is_found_before_scoring(tmp_path: Path) -> None:
    four = {"prompt": "Q", "chosen": ["a"], "rejected": ["b", "c"]}
    with pytest.raises(DataError, match=r"x.jsonl:2: v1 compares one chosen with one rejected"):
        load(f"v1={write(tmp_path / 'x.jsonl', [pair('shp'), {**four, 'subset': 'shp'}])}")
    with pytest.raises(DataError, match=r"y.jsonl:1: id '7': a Ties id is ref:K"):
        load(f"v2={write(tmp_path / 'y.jsonl', [{**four, 'subset': 'Ties', 'id': 7}])}")


def test_prior_set_by_its_file_name(tmp_path: Path) -> None:
    path = write(tmp_path / "anthropic_hhh-00000-of-00001.jsonl", [pair("harmless")])
    loaded = load(f"v1={path}")
    assert [item.subset for item in loaded.items] == ["anthropic_hhh"]


def test_folder_and_gz_and_limit(tmp_path: Path) -> None:
    write(tmp_path / "d" / "one.jsonl", [pair() for _ in range(3)])
    (tmp_path / "d" / "two.json.gz").write_bytes(gzip.compress(json.dumps([pair(), pair()]).encode()))
    assert Counter(item.subset for item in load(str(tmp_path / "d")).items) == {"one": 3, "two": 2}
    assert Counter(item.subset for item in load(str(tmp_path / "d"), limit=2).items) == {"one": 2, "two": 2}


def test_digest_is_of_the_content_not_the_place(tmp_path: Path) -> None:
    first = load(write(tmp_path / "a" / "x.jsonl", [pair()]))
    assert load(write(tmp_path / "b" / "x.jsonl", [pair()])).digest == first.digest
    assert load(write(tmp_path / "c" / "x.jsonl", [pair(rejected="worse")])).digest != first.digest


def test_all_broken_rows_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "Q", "chosen": "a"}\n{\n' + json.dumps(pair()) + "\n")
    with pytest.raises(DataError, match=r"x.jsonl:1: no chosen or no rejected(.|\n)*x.jsonl:2: broken JSON"):
        load(str(path))
    with pytest.raises(
        DataError, match=r"^2 of 3 rows cannot be used:\n(.|\n)*\nNothing was scored: correct or remove these rows"
    ):
        load(str(path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.jsonl, .* file in this folder"):
        load(str(tmp_path / "empty"))
    with pytest.raises(DataError, match="no such file"):
        load(str(tmp_path / "absent.jsonl"))


def test_llmbar_is_419_pairs_in_five_subsets(shared_data: Path) -> None:
    loaded = load(str(shared_data / "llmbar"))
    assert loaded.data == "v1"
    assert Counter(item.subset for item in loaded.items) == {
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    }
    longer = baselines(loaded.items, "v1")["longer wins"]
    assert set(longer.sections) == {"Chat Hard"}
    natural = json.loads((shared_data / "llmbar/LLMBar/Natural/dataset.json").read_text())
    by_hand = [len(row[f"output_{row['label']}"]) > len(row[f"output_{3 - row['label']}"]) for row in natural]
    assert longer.subsets["llmbar-natural"].accuracy == pytest.approx(sum(by_hand) / 100)


def test_hh_transcripts(shared_data: Path) -> None:
    loaded = load(str(shared_data / "hh_rlhf/harmless-base/test.jsonl.gz"), limit=200)
    assert (loaded.data, len(loaded.items)) == ("free", 200)
    assert {item.subset for item in loaded.items} == {"test"}
    assert all(item.prompt[0]["role"] == "user" for item in loaded.items)


def test_message_trees_with_ranked_replies_are_pairs(shared_data: Path) -> None:
    loaded = load(str(shared_data / "sft_oasst_trees/en_100_tree.jsonl"))
    assert (loaded.data, len(loaded.items)) == ("free", 754)
    assert {item.subset for item in loaded.items} == {"en_100_tree"}


def test_the_broken_rows_of_all_files_of_a_folder_are_counted(tmp_path: Path) -> None:
    for name, odd in (("a", 7), ("b", 5)):
        write(tmp_path / "d" / f"{name}.jsonl", [pair(), *[{"prompt": "Q", "chosen": "a"}] * odd])
    with pytest.raises(DataError) as told:
        load(str(tmp_path / "d"))
    lines = str(told.value).splitlines()
    assert lines[0] == "12 of 14 rows cannot be used:"
    assert [line.split(": ")[0].rsplit("/", 1)[1] for line in lines[1:11]] == [
        *[f"a.jsonl:{number}" for number in range(2, 9)],
        *[f"b.jsonl:{number}" for number in range(2, 5)],
    ]
    assert lines[11] == "… and 2 more"
