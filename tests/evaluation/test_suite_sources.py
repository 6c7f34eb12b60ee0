"""Every line of the package's suites that sets something says where it is from, as the head of each file has it."""

import re
from collections.abc import Iterator

import pytest
import yaml

from tulu.config.suites import built_in_suites

Place = tuple[str, ...]


def pairs(node: yaml.Node, place: Place = ()) -> Iterator[tuple[Place, yaml.Node, yaml.Node]]:
    """Each key of a file that stands on a line of its own, with its value."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        for key, value in node.value:
            yield (*place, key.value), key, value
            yield from pairs(value, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode) and not node.flow_style:
        for item in node.value:
            yield from pairs(item, (*place, "-"))


def comment_of(lines: list[str], key: yaml.Node, value: yaml.Node) -> str:
    """The comment at the end of a key's line, else those in the lines directly above it."""
    at = key.start_mark.line
    line = lines[at]
    # A text may hold a hash; behind a value that ends on this line, or before one that begins below it, only a comment can.
    flows = value.end_mark.line == at and value.start_mark.line == at
    rest = line[value.end_mark.column :] if flows else line[key.end_mark.column :]
    if found := re.search(r"(?:^|\s)#\s(.*)$", rest):
        return found[1]
    # What is indented by more belongs to the text of another key, and what begins the file is its head.
    margin = " " * key.start_mark.column + "#"
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    above: list[str] = []
    while at > first and lines[at - 1].startswith(margin):
        above.insert(0, lines[at - 1].lstrip(" #"))
        at -= 1
    return " ".join(above)


def without_source(text: str) -> list[str]:
    """The lines of a suite that say nothing of where they are from, by the names that its head gives to sources."""
    lines = text.splitlines()
    head = text[: text.index("\nname:")]
    names = "|".join(re.findall(r"\b([A-Z]{2,})\b(?=: | is a choice)", head))
    source = re.compile(rf"\b(?:{names}): \S|\barXiv \d{{4}}\.\d{{5}}|\b[\w-]+/[\w.-]+ @ [0-9a-f]{{7,}}")
    covered: set[Place] = set()
    found = []
    tree = yaml.compose(text)
    assert tree is not None
    for place, key, value in pairs(tree):
        is_task = place[0] == "tasks" and len(place) <= 2 and not getattr(value, "flow_style", False)
        if is_task or place == ("groups",):
            # What a task is said to be is not where each of its lines is from.
            continue
        if source.search(comment_of(lines, key, value)) or any(place[:end] in covered for end in range(1, len(place))):
            covered.add(place)
        else:
            found.append(f"{key.start_mark.line + 1}: {'.'.join(place)}")
    return found


@pytest.mark.parametrize("name", built_in_suites())
def test_every_line_of_a_suite_says_where_it_is_from(name: str) -> None:
    text = built_in_suites()[name].read_text(encoding="utf-8")
    assert without_source(text) == []
    assert "Every line that sets something says where it is from" in text


def test_a_line_without_a_source_is_found() -> None:
    text = """# A suite.
# Sources. CARD: a card. OURS is a choice of this project.
name: x
about: "y # CARD: within a text"
tasks:
  a: # CARD: three shots
    title: A # CARD: the row
    data: {name: b} # the data
    # CARD: its form
    ask: |-
      # CARD: no comment
      {{ question }}
    gold: answer # BIGCODE: no source of this file
    shots: # CARD: of which
      count: 3
      rows:
        - question: "1"
          answer: "2"
    stop: ["#"] # OURS: chats end
    differs: >- # OURS: why
      # CARD: a text
    metric: >-
      # CARD: a text
"""
    assert without_source(text) == ["3: name", "4: about", "8: tasks.a.data", "13: tasks.a.gold", "22: tasks.a.metric"]
