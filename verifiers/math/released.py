"""How open-instruct checked MATH when Tülu 3 and OLMo 2 were trained (math_utils.py, ground_truth_utils.py @ 5bcd3b25), for mode
tulu3-2024.

Rewards were computed in the main thread then, so that its symbolic comparison worked: two answers were also equal where sympy
reads both and their difference simplifies to 0. The candidates are those of today without the raw text.
"""

from functools import lru_cache
from typing import Any

from tulu.verifiers.math.upstream import candidates, same_string

NEEDS = ("antlr4", "sympy")
"""Modules that the symbolic comparison imports."""


def released_candidates(completion: str) -> list[str]:
    """The answers that were compared: those of today, without the raw text where no other was found."""
    answers = candidates(completion)
    return answers[:1] if answers[1:] == [completion] else answers


def same_answer(answer: str, gold: str) -> bool:
    """Equal as strings in Hendrycks' normalisation, or in sympy's eyes."""
    return same_string(answer, gold) or same_for_sympy(answer, gold)


def same_for_sympy(answer: str, gold: str) -> bool:
    """Whether the difference of two answers simplifies to 0; False where one cannot be read or subtracted."""
    import sympy

    try:
        return bool(sympy.simplify(_parse(answer) - _parse(gold)) == 0)
    except ImportError:
        raise
    # As upstream, every failure means that they differ. The time limit of the grader is no Exception and passes.
    except Exception:  # noqa: BLE001
        return False


def _parse(text: str) -> Any:
    """What sympy's grammar of LaTeX reads.

    sympy.parsing.latex.parse_latex refuses every version of the antlr runtime but the one that its grammar was generated with,
    4.11. Later runtimes read the same tables, so the grammar is used directly.
    """
    import antlr4
    from sympy.parsing.latex._parse_latex_antlr import MathErrorListener, convert_relation

    lexer_class, parser_class = _grammar()
    listener = MathErrorListener(text.strip())
    lexer = lexer_class(antlr4.InputStream(text.strip()))
    parser = parser_class(antlr4.CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(listener)
    return convert_relation(parser.math().relation())


@lru_cache(maxsize=1)
def _grammar() -> tuple[Any, Any]:
    """sympy's lexer and parser, which do not print that the runtime is newer than they are."""
    from sympy.parsing.latex._antlr.latexlexer import LaTeXLexer
    from sympy.parsing.latex._antlr.latexparser import LaTeXParser

    silent = {"checkVersion": lambda self, version: None}
    return type("Lexer", (LaTeXLexer,), silent), type("Parser", (LaTeXParser,), silent)
