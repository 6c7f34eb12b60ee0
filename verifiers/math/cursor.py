"""Walking along the tokens of an answer."""

from tulu.verifiers.math.tokens import Token, Unreadable
from tulu.verifiers.math.words import MeasureReader

_DEEPEST = 20
"""Groups, fractions and roots inside each other."""


class Cursor(MeasureReader):
    """The place in the tokens of an answer, and how they are read."""

    def __init__(self, tokens: list[Token], tight: bool = False, plain_units: bool = False) -> None:
        self.tokens, self.position, self.depth = tokens, 0, 0
        self.plain_units = plain_units
        self.tight = tight
        """Whether `1/2x` is 1/(2x); else it is x/2."""
        self.ambiguous = False
        """Whether `tight` made a difference."""
        self.bars = 0
        """How many bars of absolute values and conditions are open."""

    def peek(self, ahead: int = 0) -> Token:
        """The token ahead; one of kind end where there is none."""
        position = self.position + ahead
        return self.tokens[position] if position < len(self.tokens) else Token("end", "")

    def take(self) -> Token:
        """The next token, which is consumed."""
        token = self.peek()
        if token.kind == "end":
            raise Unreadable("the end came too early")
        self.position += 1
        return token

    def at(self, *texts: str) -> bool:
        """Whether the next token is one of these marks or commands."""
        token = self.peek()
        return token.kind in ("mark", "command") and token.text in texts

    def expect(self, text: str) -> None:
        """Consumes a mark or command; Unreadable where another token stands there."""
        if not self.at(text):
            raise Unreadable(f"no {text}")
        self.position += 1

    def enter(self) -> None:
        """One group deeper."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unreadable("nested too deep")
