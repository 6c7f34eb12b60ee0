"""The columns of a row, which remember what was read of them, so that nothing a row says is left out without notice."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tulu.config.stages import RowKind

_OF_PROMPTS = (
    *("messages", "conversations", "conversation", "prompt", "question", "query", "problem", "instruction", "input", "context"),
    *("system", "system_prompt", "system_message", "history", "documents", "tools", "functions", "available_tools"),
    *("image", "images", "audio", "audios", "video", "videos"),
)
_OF_ANSWERS = (
    *("completion", "response", "answer", "output", "output_1", "output_2", "label", "chosen", "rejected", "margin"),
    *("text", "instances", "ground_truth", "instruction_id_list", "kwargs", "thinking", "reasoning", "reasoning_content"),
)


class Columns(Mapping[str, Any]):
    """The columns of a row that hold something, which note by themselves which of them were read.

    None counts as absent, because tables give every row the columns of all rows. To ask whether a column is there is not to
    read it.
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._values = {name: value for name, value in columns.items() if value is not None}
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        self._read.add(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def first_of(self, names: Iterable[str]) -> str | None:
        """The first of these names that is a column here."""
        return next((name for name in names if name in self._values), None)

    def holds(self, name: str) -> bool:
        """Whether a column is there and is neither empty text nor an empty list."""
        return name in self._values and self._values[name] not in ("", [], {}, ())

    def forget(self, *names: str) -> None:
        """Count columns as unread, because what was read of them was of no use."""
        self._read.difference_update(names)

    def unread(self, kind: RowKind, contents: Iterable[str]) -> list[str]:
        """Columns that rows of some form have and that were not read, though they say what `contents` does not.

        A problem keeps its whole row for its verifiers, so that only the columns of its prompt count.
        """
        known = _OF_PROMPTS if kind == "rlvr" else (*_OF_PROMPTS, *_OF_ANSWERS)
        names = [name for name in known if name not in self._read and self.holds(name)]
        if not names:
            return []
        said = "\n".join(contents)
        return [name for name in names if not all(text in said for text in _texts(self._values[name]))]


def _texts(value: Any) -> Iterator[str]:
    """What a value says: the contents of its messages, or all text in it; numbers as Python writes them."""
    if isinstance(value, Mapping):
        content = value.get("content", value.get("value"))
        for inner in value.values() if content is None else [content]:
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif value is not None:
        yield str(value).strip()
