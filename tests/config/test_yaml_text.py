"""YAML as recipes need it: numbers, lines, keys that occur once, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from tulu.config.yaml_text import dump_yaml, parse_value, read_yaml
from tulu.errors import RecipeError


def read(folder: Path, text: str) -> Any:
    file = folder / "r.yaml"
    file.write_text(text)
    return read_yaml(file)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "part-0.PARQUET"])
def test_rows_in_place_of_a_recipe_are_told_where_they_belong(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"{}\n{}\n\xff")
    with pytest.raises(RecipeError, match=r"is a file of rows.*sft\.data=.*" + name):
        read_yaml(tmp_path / name)
    (tmp_path / "of.csv.yaml").write_text("a: 1")
    assert read_yaml(tmp_path / "of.csv.yaml").value == {"a": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.0e-5", 1e-5),
        ("0x1F", 31),
        ("010", 10),
        ("2024-11-26", "2024-11-26"),
        ("yes", "yes"),
        ("true", True),
        ("1:30", "1:30"),
        ("~", None),
        ("", None),
        ("['a=b', c]", ["a=b", "c"]),
    ],
)
def test_values_are_those_of_yaml_1_2_without_dates(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_every_key_and_item_has_its_line(tmp_path: Path) -> None:
    located = read(tmp_path, "a: &x {b: 1}\nc:\n  - d: 2\n  - 3\ne:\n  <<: *x\n  f: 4\n")
    assert located.value == {"a": {"b": 1}, "c": [{"d": 2}, 3], "e": {"b": 1, "f": 4}}
    lines = {path: int(where.rpartition(":")[2]) for path, where in located.lines.items()}
    expected = {("a",): 1, ("a", "b"): 1, ("c",): 2, ("c", 0): 3, ("c", 0, "d"): 3, ("c", 1): 4, ("e", "b"): 1, ("e", "f"): 7}
    assert expected.items() <= lines.items()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {b: 1, b: 2}\n", "r.yaml:1: not YAML: the key 'b' is written twice; keep one"),
        ("a: 1\nb: !python/name:os.x 2\n", "r.yaml:2: not YAML: could not determine a constructor for the tag"),
        ("a: 1\n---\nb: 2\n", "r.yaml:2: not YAML"),
        ("a: *nowhere\n", "r.yaml:1: not YAML: found undefined alias"),
        ("a: \x07\n", "r.yaml: not YAML: unacceptable character"),
        ("a: 1\n{{b}}: 2\n", "r.yaml:2: "),
        ("{[a]: 2}\n", "r.yaml:1: a key is no text but a list or a mapping"),
        ("a: &x [*x]\n", "an alias within its own anchor"),
    ],
)
def test_what_is_refused_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        read(tmp_path, text)
    assert message in str(error.value)


def test_what_is_written_reads_as_it_was(tmp_path: Path) -> None:
    content = {"commit": "12e5", "rate": 1e-5, "date": "2024-11-26", "word": "yes", "empty": None, "list": [1, {"a": "ü"}]}
    assert read(tmp_path, dump_yaml(content)).value == content
