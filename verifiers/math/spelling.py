"""One spelling in plain TeX for the characters that people write formulas with."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from tulu.verifiers.text import normalise_characters

_TEX = {
    "π": "\\pi ", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ",
    "∙": "\\cdot ", "÷": "\\div ", "∞": "\\infty ", "⁄": "/", "∕": "/",
    "≤": "\\le ", "⩽": "\\le ", "≦": "\\le ", "≥": "\\ge ", "⩾": "\\ge ", "≧": "\\ge ", "≠": "\\ne ", "≈": "\\approx ",
    "≡": "\\equiv ", "±": "\\pm ", "∓": "\\mp ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∉": "\\notin ", "∅": "\\emptyset ",
    "∖": "\\setminus ", "√": "\\surd ", "∛": "\\sqrt[3]", "→": "\\to ",
    "⇒": "\\Rightarrow ", "∴": "", "°": "\\degree ", "º": "\\degree ",
    "′": "'", "″": "''", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}",
    "⟨": "\\langle ", "⟩": "\\rangle ", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "…": "\\ldots ",
    "∑": "\\sum ", "∏": "\\prod ", "∫": "\\int ", "∧": "\\land ", "∨": "\\lor ", "∣": "|", "∶": ":", "‰": "\\permil ",
    "✓": "", "✔": "", "✅": "", "、": ",", "。": ".", "“": '"', "”": '"', "’": "'", "‘": "'",
    "£": "\\pounds ", "−": "-", "‐": "-", "‑": "-", "‒": "-", "–": "-",
    "—": "-", "∠": "\\angle ", "△": "\\triangle ", "∘": "\\circ ",
    "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "δ": "\\delta ", "ε": "\\epsilon ", "ζ": "\\zeta ", "η": "\\eta ",
    "θ": "\\theta ", "κ": "\\kappa ", "λ": "\\lambda ", "μ": "\\mu ", "ν": "\\nu ", "ξ": "\\xi ", "ρ": "\\rho ", "σ": "\\sigma ",
    "τ": "\\tau ", "φ": "\\phi ", "ϕ": "\\phi ", "χ": "\\chi ", "ψ": "\\psi ", "ω": "\\omega ", "Γ": "\\Gamma ", "Δ": "\\Delta ",
    "Θ": "\\Theta ", "Λ": "\\Lambda ", "Σ": "\\Sigma ", "Φ": "\\Phi ", "Ψ": "\\Psi ", "Ω": "\\Omega ",
}  # fmt: skip
"""Symbols beyond ASCII and the TeX that they stand for. `√12` is `\\surd 12`, whose argument is a whole number."""


@lru_cache(maxsize=4096)
def _in_tex(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    if unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f":
        # Zero-width marks and variants of a glyph mean nothing.
        return ""
    kind, _, content = unicodedata.decomposition(character).partition(" ")
    plain = "".join(chr(int(code, 16)) for code in content.split()) if kind.startswith("<") else ""
    if kind == "<fraction>":
        numerator, _, denominator = plain.partition("\u2044")
        return f"\\frac{{{numerator}}}{{{denominator}}}"
    return character


_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")  # x², 10⁻³
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎]+")  # x₁


def _at_level(mark: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{mark}{{{unicodedata.normalize('NFKC', match[0])}}}".replace("\u2212", "-")


def plain(text: str) -> str:
    """A text in which symbols beyond ASCII are TeX: `x²≥½` becomes `x^{2}\\ge \\frac{1}{2}`; letters of other scripts stay."""
    text = normalise_characters(text)
    if text.isascii():
        return text
    text = _LOWERED.sub(_at_level("_"), _RAISED.sub(_at_level("^"), text))
    return text.translate({ord(character): _in_tex(character) for character in set(text) if ord(character) > 127})
