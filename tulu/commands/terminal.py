"""Terminals and pipes that have few characters, such as those of LANG=C: what they cannot show is spelled out."""

import codecs
import io
import os
import sys

_SPELLED = {
    **{"×": "x", "·": "*", "…": "...", "→": "->", "←": "<-", "▶": ">", "−": "-", "–": "-", "—": "-", "─": "-", "│": "|"},
    **{"±": "+-", "≤": "<=", "≥": ">=", "≈": "~", "½": "1/2", "²": "^2", "³": "^3", "β": "beta", "γ": "gamma", "λ": "lambda"},
    **{
        "σ": "sigma",
        "μ": "mu",
        "ρ": "rho",
        "π": "pi",
        "§": "section ",
        "“": '"',
        "”": '"',
        "⟦": "[[",
        "⟧": "]]",
        "’": "'",
        "‘": "'",
    },
}
"""Characters of our own tables and messages in ASCII; every other one becomes its number, as in \\u4e2d."""
_HANDLER = "tulu-spelled-out"


def _spell_out(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    spelled = (_SPELLED.get(character) or character.encode("ascii", "backslashreplace").decode() for character in characters)
    return "".join(spelled), error.end


codecs.register_error(_HANDLER, _spell_out)


def spell_out_what_cannot_be_shown() -> None:
    """From now on stdout and stderr take every text, whatever their encoding. Where they have all characters nothing changes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not shows_everything(stream):
            stream.reconfigure(errors=_HANDLER)


def open_what_is_closed() -> None:
    """Let stdin, stdout and stderr lead nowhere where they were closed (`2>&-`).

    The next file that is opened would get the number of one of them, and whatever libraries print would be written into it: into
    the journal of a run, or its weights.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is the one that is given, and those below it are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def shows_everything(stream: object) -> bool:
    """Whether a stream has all characters of Unicode."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-").startswith("utf")
