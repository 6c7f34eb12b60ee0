# ruff: noqa: E501 (many short forms on a line)
"""One answer in forty spellings that mean the same to every reader, so that each verifier gives all of them one verdict."""

from collections.abc import Iterator

_WHITE = (" {}", "{} ", "\n{}\n", "\t{}", "{}\u00a0", "\u3000{}", "{}\r\n")
_INVISIBLE = ("\ufeff{}", "{}\u200b", "\u200b{}", "{}\u2060", "\u200e{}", "{}\ufeff", "{}\u00ad")
_WRAPPED = (
    "${}$", "$ {} $", "$${}$$", "\\({}\\)", "\\[{}\\]", "\\[\n{}\n\\]", "\\text{{}}", "\\mathrm{{}}", "\\textbf{{}}", "\\mathbf{{}}", "$\\text{{}}$",
    "\\boxed{{}}", "$\\boxed{{}}$", "\\displaystyle {}", "**{}**", "** {} **", "**${}$**", "\\text{ {} }", "\\textit{{}}",
)  # fmt: skip
_EMPHASISED = ("*{}*", "__{}__", "`{}`")
"""Emphasis that belongs around words; in a formula its signs mean something."""
_STOPPED = ("{}.", "{}. ", "{}.\n", "**{}**.", "${}$.")
_AROUND = (
    "\ufeff{}", "{}\n", "\n\n{}", "{}\n\n\n", "{}\u200b", "{} ", "<think>It may be 3.</think>\n{}", "<think>\nhm\n</think>\n\n{}", "<thinking>hm</thinking>\n{}",
)  # fmt: skip
_FENCED = ("```\n{}\n```", "```text\n{}\n```")
FORMS: dict[str, tuple[str, ...]] = {
    "exact": ("<answer>{}</answer>", "{}"),
    "flan": ("The answer is: {}",),
    "gsm8k": ("#### {}", "The answer is {}", "\\boxed{{}}", "{}"),
    "math": ("\\boxed{{}}", "{}", "The final answer is {}"),
    "multiple_choice": ("Answer: {}", "\\boxed{{}}", "{}", "<answer>{}</answer>"),
    "puzzle": ("{}",),
    "re_search": ("<finish>{}</finish>",),
    "re_search_f1": ("<finish>{}</finish>",),
    "strict_math": ("\\boxed{{}}", "{}"),
    "string_f1": ("{}",),
    "string_match": ("<answer>{}</answer>",),
}
"""How each verifier of a short answer is given one."""
_TO_THE_LETTER = frozenset({"exact"})
"""Verifiers for which a full stop is part of the answer."""
_READ_AS_WRITTEN = frozenset({"code", "code_stdio", "ifeval", "ifeval_loose", "ifeval_old"})
"""Verifiers for which the white space and the fences of a completion are part of it."""


def respellings(name: str, answer: str) -> Iterator[str]:
    """Completions that give a short answer in every spelling and in each form that the verifier reads."""
    spellings = [*_WHITE, *_INVISIBLE, *_WRAPPED, *(() if name in _TO_THE_LETTER else _STOPPED)]
    spellings += _EMPHASISED if answer.isalpha() else ()
    for form in FORMS[name]:
        for spelling in ("{}", *spellings):
            yield form.replace("{}", spelling.replace("{}", answer))
        plain = form.replace("{}", answer)
        yield from (around.replace("{}", plain) for around in (*_AROUND, *_FENCED))


def respelled_completions(name: str, completion: str) -> Iterator[str]:
    """A whole completion with what no reader sees around it, for verifiers of data, programs and style."""
    around = ("\ufeff{}", "{}\n", "{}\u200b", "{}\n\n") if name in _READ_AS_WRITTEN else _AROUND
    yield from (one.replace("{}", completion) for one in ("{}", *around))
