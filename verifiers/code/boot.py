"""The code that runs inside a sandbox, as bytecode: nothing of the package can be imported there."""

import marshal
from functools import lru_cache
from pathlib import Path

_CHILD_FILES = {
    "script": ("values", "channel", "child"),
    "program": ("values", "channel", "proxy", "derive", "mirror", "peer", "child"),
    "tester": ("values", "channel", "proxy", "derive", "mirror", "peer", "pytest", "tester", "child"),
}
"""The files that make up what runs inside, by role."""
BOOT = "import marshal\nfor part in marshal.loads(open({}, 'rb').read()): exec(part)"
"""The program of the interpreter inside; the number is that of the descriptor from which it reads its code."""


@lru_cache(maxsize=3)
def child_code(role: str) -> bytes:
    """The child as bytecode, because compiling it would cost every sandbox milliseconds; the interpreter inside is the same."""
    texts = [Path(__file__).with_name(f"sandbox_{name}.py").read_text(encoding="utf-8") for name in _CHILD_FILES[role]]
    return marshal.dumps([compile(text, "sandbox", "exec", optimize=2) for text in texts])
