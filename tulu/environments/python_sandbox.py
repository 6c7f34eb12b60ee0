"""The built-in environment `python`: one tool, which runs a program in the sandbox that the verifiers of code use."""

from typing import Any

from tulu.verifiers.code.sandbox import Limits, require
from tulu.verifiers.code.script import run_script


class PythonSandbox:
    """A Python interpreter without network or files; nothing is kept from one call to the next. Verifiers score the answer."""

    def __init__(self, seconds: float = 2.0, characters: int = 2000) -> None:
        """`seconds` of CPU time for each program, of whose output the first `characters` are shown."""
        self._seconds, self._characters = seconds, characters

    @classmethod
    def _prepare(cls, **_options: Any) -> None:
        """Refuse to begin where programs cannot be run here: a sandbox is tried once, not in every episode."""
        require()

    def reset(self, **row: Any) -> None:
        """Nothing is kept, so that nothing begins."""

    def python(self, code: str) -> str:
        """Run a Python program and return what it prints.

        Args:
            code: The program.
        """
        output = run_script(code, b"", self._seconds, Limits(cpu=max(1, round(self._seconds))))
        text = output.text.decode("utf-8", "replace").strip()
        if output.code != 0:
            text = "\n".join(part for part in (text, f"error: {output.detail.strip() or f'exit code {output.code}'}") if part)
        return text if len(text) <= self._characters else text[: self._characters] + "..."
