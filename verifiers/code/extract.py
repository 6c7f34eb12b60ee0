"""Which part of a completion is the program."""

import ast
import re
import textwrap
import warnings

from tulu.verifiers.text import after_thinking

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)([^\n]*)$", re.MULTILINE)
"""The line that opens or closes a block: "```python", "~~~"; the groups are the fence, the language and what follows it."""
_CLOSES_LATE = re.compile(r"(```+|~~~+)[ \t]*$", re.MULTILINE)
"""A fence at the end of a line of code, as in "    return a + b```"."""
_PYTHON = ("python", "py", "python3", "py3")
_UPSTREAM_BLOCK = re.compile(r"```(?:python)?(.*?)```", re.DOTALL)
_MOST_ENDS = 6
"""Fences that are tried as the end of a block, should it be no Python up to the first one."""
_LONGEST_TRIED = 100_000
_QUOTES = ('"""', "'''")
"""Where one of these stands an odd number of times, a text of the program is still open."""
_BYTE_ORDER_MARK = "\ufeff"


def _is_python(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _tidy(block: str, indented: int) -> str:
    """A block without the indentation of its fence, as in a list, and without a byte order mark."""
    block = block.removeprefix(_BYTE_ORDER_MARK)
    return textwrap.dedent(block) if indented and block.startswith((" ", "\t")) else block


def _end(text: str, opening: re.Match[str], fences: list[re.Match[str]], at: int) -> int | None:
    """The index of the fence that closes a block: the first that may, but one within a text of the program does not."""
    first: int | None = None
    tried = 0
    for index in range(at, len(fences)):
        if not fences[index][1].startswith(opening[1]) or fences[index][2]:
            continue
        first = index if first is None else first
        bare = not fences[index][3].strip()
        if opening[2].lower() not in _PYTHON or not bare or tried >= _MOST_ENDS:
            return first
        block = _block(text, opening, fences[index].start())
        if not tried and (len(block) > _LONGEST_TRIED or not any(block.count(quotes) % 2 for quotes in _QUOTES)):
            return first
        tried += 1
        if _is_python(block):
            return index
    return first


def _block(text: str, opening: re.Match[str], end: int) -> str:
    indented = len(opening[0]) - len(opening[0].lstrip())
    return _tidy(text[opening.end() + 1 : end], indented)


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language, text) of each block."""
    fences, blocks, at = list(_FENCE.finditer(text)), list[tuple[str, str]](), 0
    while at < len(fences):
        opening = fences[at]
        end = _end(text, opening, fences, at + 1)
        if end is None:
            # A block that never closes was cut off, or closes at the end of a line; it is still the program.
            late = _CLOSES_LATE.search(text, opening.end() + 1)
            blocks.append((opening[2].lower(), _block(text, opening, late.start() if late else len(text))))
            return blocks
        blocks.append((opening[2].lower(), _block(text, opening, fences[end].start())))
        at = end + 1
    return blocks


def program_in(completion: str) -> str:
    """The last Python block after the thinking, else the last block without a language, else the last block, else all text."""
    text = after_thinking(completion).replace("\r\n", "\n")
    blocks = _blocks(text)
    for languages in (_PYTHON, ("",)):
        programs = [block for language, block in blocks if language in languages]
        if programs:
            return programs[-1]
    return blocks[-1][1] if blocks else text.removeprefix(_BYTE_ORDER_MARK)


def upstream_program_in(completion: str) -> str:
    """The program as open-instruct finds it: "```py" leaves `py` as its first line, and a later shell block comes first."""
    blocks = _UPSTREAM_BLOCK.findall(completion)
    return blocks[-1].strip() if blocks else completion
