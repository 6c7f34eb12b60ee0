"""YAML as recipes need it: YAML 1.2, in which `1e-5` is a number, with the line of every key and no key twice."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml as pyyaml
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.tokens import CommentToken

from tulu.config.recipe_stages import dotted
from tulu.errors import RecipeError

DEPTH = 50
"""Deepest nesting of a recipe that is read."""


class _Constructor(SafeConstructor):
    """Leaves dates as text: a run may be named after one, and no field is a date."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


class _Dumper(pyyaml.SafeDumper):
    """Also quotes text that YAML 1.2 reads as a number, such as the commit `12e5`."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("-+.0123456789")
)


_ROWS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
"""Suffixes of files that hold rows and never YAML, as JSON may."""


@dataclass
class Located:
    """Parsed YAML, and where each of its keys was written."""

    value: Any
    lines: dict[tuple[str | int, ...], str]
    """`FILE:LINE` of each key, by its path, such as ("sft", "data", 0, "name")."""


def read_yaml(path: Path) -> Located:
    """A file that holds one mapping, with the line of every key. Raises RecipeError with file and line."""
    if path.name.lower().removesuffix(".gz").endswith(_ROWS):
        raise RecipeError(
            f"{path}: is a file of rows, and what is asked for is YAML; a recipe names its rows, as sft.data={path}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    lines: dict[tuple[str | int, ...], str] = {}
    try:
        _locate(_yaml().compose(text), (), str(path), lines)
        value = _yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(f"{where}: not YAML: {_problem(error)}; correct that line") from error
    except YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {error}") from error
    if not isinstance(value, dict):
        content = "empty" if value is None else "not a mapping"
        raise RecipeError(f"{path}: {content}; a recipe is `key: value` lines, as in recipes/quickstart.yaml")
    return Located(value, lines)


def key_lines(path: Path) -> dict[tuple[str | int, ...], int]:
    """The line number of each key and list item of a file that `read_yaml` reads."""
    return {key: int(where.rpartition(":")[2]) for key, where in read_yaml(path).lines.items()}


def annotate(text: str, notes: Mapping[str, str]) -> str:
    """YAML with a comment behind each key that has a note; `notes` has them by dotted key."""
    lines: dict[tuple[str | int, ...], str] = {}
    _locate(_yaml().compose(text), (), "", lines)
    written, sections = text.splitlines(), _yaml().load(text)
    for key, where in lines.items():
        if note := notes.get(dotted(key, sections)):
            number = int(where.rpartition(":")[2]) - 1
            written[number] = f"{written[number]}  # {note}"
    return "\n".join(written) + "\n"


def comments_by_line(path: Path) -> dict[int, str]:
    """The comment of each line that has one, without its #."""
    found: dict[int, str] = {}
    _collect_comments(YAML(typ="rt").load(path.read_text(encoding="utf-8")), found)
    return found


def _collect_comments(node: Any, found: dict[int, str]) -> None:
    """Write the first line of every comment below a node into `found`; what follows it stands on lines without a key."""
    waiting = [node.ca.comment, *node.ca.items.values()] if hasattr(node, "ca") else []
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, CommentToken):
            found[entry.start_mark.line + 1] = entry.value.split("\n", 1)[0].lstrip("# ").rstrip()
        elif isinstance(entry, list | tuple):
            waiting += entry
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _collect_comments(child, found)


def parse_value(text: str) -> Any:
    """The value of an override, typed as YAML types it. Raises RecipeError."""
    try:
        return _yaml().load(text)
    except YAMLError as error:
        raise RecipeError(str(error).splitlines()[0]) from error


def dump_yaml(value: Any, ascii_only: bool = False) -> str:
    """YAML in the order given, one key a line; with `ascii_only` other characters are escaped, which reads as the same."""
    # PyYAML writes 0.00001 as 1.0e-05, which readers of YAML 1.1 take for a number too; ruamel.yaml writes 1e-05.
    return pyyaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=not ascii_only, width=110)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    return yaml


def _problem(error: MarkedYAMLError) -> str:
    if isinstance(error, DuplicateKeyError):
        # The library's text: found duplicate key "name" with value "b" (original value: "a")
        key = str(error.problem).split('"')[1]
        return f"the key {key!r} is written twice; keep one"
    return str(error.problem)


def _locate(node: Node | None, path: tuple[str | int, ...], name: str, lines: dict[tuple[str | int, ...], str]) -> None:
    """Write the line of every key and list item below a node into `lines`."""
    if len(path) > DEPTH:
        raise RecipeError(f"{name}: nested more than {DEPTH} deep, or an alias within its own anchor; a recipe has neither")
    if isinstance(node, MappingNode):
        for key, value in node.value:
            where = f"{name}:{key.start_mark.line + 1}"
            if not isinstance(key, ScalarNode):
                raise RecipeError(f"{where}: a key is no text but a list or a mapping; quote a value that begins with {{")
            # The keys of `<<: *anchor` belong to the mapping that it stands in.
            inner = path if key.value == "<<" else (*path, key.value)
            lines.setdefault(inner, where)
            _locate(value, inner, name, lines)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = f"{name}:{value.start_mark.line + 1}"
            _locate(value, (*path, index), name, lines)
