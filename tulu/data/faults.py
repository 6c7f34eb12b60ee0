"""Rows that cannot be used: why, for a count by reason, and what is wrong with this very row, for a person."""

from tulu.errors import DataError


class Unusable(DataError):
    """A row that cannot be used. Rows are counted under its reason; where every row is needed, it is an error."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """What such rows have in common: one of few texts, without anything of the row."""
        self.detail = detail or reason
        """What is wrong with this very row, and the cure, where the reason does not say it."""


class Misfit(Unusable):
    """A row in which a value has no known form; its text, unlike that of other unusable rows, names row, column and cure."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason, text)
        self.args = (text,)


class NoForm(Misfit):
    """A row whose columns are those of no form at all. If it is the first of a file, the file is of another kind."""


def valid_text(text: str) -> str:
    """The text itself; Unusable where it holds half a surrogate pair, which JSON can spell and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unusable("its text is not valid Unicode") from None
    return text
