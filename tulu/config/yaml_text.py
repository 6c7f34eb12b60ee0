"""YAML as recipes need it: with the line of every key, `1e-5` a number, and no key twice."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tulu.errors import RecipeError

_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")

DEPTH = 50
"""Deepest nesting of a recipe that is read."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without dates, with the floats of YAML 1.2, refusing a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is written twice; keep one", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


@dataclass
class Located:
    """Parsed YAML and where each of its keys was written."""

    value: Any
    lines: dict[tuple[str | int, ...], str]


def read_yaml(path: Path) -> Located:
    """A file that holds one mapping, with the line of every key. Raises RecipeError with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(f"{where}: not YAML: {error.problem}; correct that line") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {error}") from error
    finally:
        loader.dispose()
    if not isinstance(value, dict):
        found = "empty" if value is None else "not a mapping"
        raise RecipeError(f"{path}: {found}; a recipe is `key: value` lines, as in recipes/quickstart.yaml")
    lines: dict[tuple[str | int, ...], str] = {}
    _locate(node, (), str(path), lines)
    return Located(value, lines)


def parse_value(text: str) -> Any:
    """The value of an override, typed as YAML types it. Raises RecipeError."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise RecipeError(str(error).splitlines()[0]) from error
    finally:
        loader.dispose()


def dump_yaml(value: Any) -> str:
    """YAML in the order given, one key a line."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)


def _locate(node: yaml.Node | None, path: tuple[str | int, ...], name: str, lines: dict[tuple[str | int, ...], str]) -> None:
    if len(path) > DEPTH:
        raise RecipeError(f"{name}: nested more than {DEPTH} deep, or an alias within its own anchor; a recipe has neither")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*path, key.value)] = f"{name}:{key.start_mark.line + 1}"
            _locate(value, (*path, key.value), name, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = f"{name}:{value.start_mark.line + 1}"
            _locate(value, (*path, index), name, lines)
