"""Which one option a short statement settles on: "B", "(B) Paris", "B. A is wrong", but not "A or B", "A (possibly C)".

Every other option that a statement names makes it undecided, unless the statement rules that option out.
"""

import re

LONGEST = 600
"""Characters of a statement that are read."""
LEAD = re.compile(
    # Brackets, quotes, emphasis and LaTeX before the letter: "(", "**", "\text{", "\[", "$"
    r"(?:[\s*_$(\[{\"'“‘`~]|\\(?:[a-zA-Z]+|[(\[,;! ]))*+"
    # "B", "(B)", "Option B"; but not the first letter of "Berlin" or of "I'm"
    r"(?:(?:[Oo]ption|[Cc]hoice|[Ll]etter|(?:a )?letra|lettre|lettera|opción|opção|вариант)\s+[*_]*)?"
    # Letters of scripts without spaces may follow at once: "Bです"
    r"[(\"'`]?([A-J])(?!_?[A-Za-z0-9À-ɏ]|['’]\w)"
)
"""The letter that a statement begins with."""
_LOWER_CASE = re.compile(
    r"(?:[\s*_$(\[{\"'“‘`~]|\\(?:[a-zA-Z]+|[(\[,;! ]))*+\(?([b-j]|a(?!\s))(?:[\s})*_.$\]\"'`]|\\[)\]])*?(?:\n|$)"
)
"""A lower-case letter alone on its line: "b", "(c)", "$d$"; but not the article of "a dog"."""
_ENTRY = re.compile(r"[\s*_(\-•>]*(?:[Oo]ption\s+)?\(?([A-J])(?:[*_]*[).:\]]|[\s*_)]*$)")
"""A line that begins with the label of an option: "(B) no", "C.", "- **D**"."""
_MENTION = re.compile(r"(?<![A-Za-z0-9À-ɏ'’\\])[A-J](?!_?[A-Za-z0-9À-ɏ]|['’]\w)")
_LIST = r"(?:options?\s+|choices?\s+)?\(?[A-J]\)?(?:(?:,\s*(?:and|or|nor)?|\s+(?:and|or|nor)|\s*[/&])\s*\(?[A-J]\)?(?!\w))*"
_RULED_OUT = re.compile(
    # "not A", "rather than A or C", "unlike B", but not "if not B"
    rf"(?<!\bif )\b(?:not|rather than|instead of|unlike|than|neither|nor|eliminat\w+|rul\w+ out|exclud\w+|reject\w+)\s+{_LIST}|"
    # "A is wrong", "(C) is not possible", "D doesn't"
    r"[A-J][)*_]*\s+(?:(?:is|was|would be|seems|looks|must be)\s+(?:\w+ly\s+)?"
    r"(?:not|wrong|incorrect|false|ruled|eliminated|excluded|too|invalid|impossible|out)\b|"
    r"(?:isn['’]t|wasn['’]t|doesn['’]t|does not|cannot|can['’]t|won['’]t|fails|contradicts)\b)|"
    # "A and C are wrong"
    rf"{_LIST}[)*_]*\s+(?:are|were|seem|look)\s+(?:\w+ly\s+|all\s+|both\s+)?"
    r"(?:not|wrong|incorrect|false|ruled|eliminated|excluded|too|invalid|impossible|out)\b"
)
_OF_OTHERS = re.compile(rf"[)\]*_]*[).:]\s*[\"'(]?(?:[Bb]oth|[Aa]ll of|[Nn]either|[Ee]ither|[Oo]nly)\s+(?:of\s+)?{_LIST}")
"""The text of an option that is about other options: "D) Both A and B"."""
_NO_OPTION = re.compile(
    # "vitamin C", "type A", "point B"
    r"\b(?i:vitamin|hepatitis|group|type|plan|class|grade|point|angle|line|set|event|matrix|side|section|part|figure|table|phase|"
    r"team|vertex)s?\s+[A-J]\b|"
    # "25 °C", "F = ma", "f(A) = 3"
    r"°\s?[CF]\b|\b[A-J](?=\s*=\s*\w)|"
    # "I think", "A dog"
    r"\bI(?=\s+[a-z]{2,})|"
    r"\bA(?=\s+(?!(?:is|was|are|has|had|or|and|as|also|if|but|then|not|nor|does|would|could|can|cannot|may|might|seems|looks|"
    r"maybe|possibly|perhaps|versus|vs|correct|right|too)\b)[a-z]{2,})"
)
_TURN = re.compile(r"(?<=[.!?。])\s+|;\s|\n|\b(?:because|since|whereas|while|although|though)\b")
"""Where a statement ends and its reasons begin."""
_DESCRIBED = re.compile(r"\s+(?!(?:or|and|also|too|maybe|possibly|perhaps|if|as|could|might|may|can)\b)[a-z]")
"""What follows an option that a reason speaks about: "C describes a plant"; but not "C could be"."""
_AFFIRMED = re.compile(
    r"\s+(?:is|are|seems?)\s+(?:also|equally|just|possible|correct|right|fine|true|valid|acceptable|plausible|likely|another)"
)


def entry_letter(line: str) -> str | None:
    """The option whose label a line begins with; None where it begins otherwise."""
    match = _ENTRY.match(line)
    return match[1] if match else None


def settled(text: str) -> str | None:
    """The one option that a statement at the start of a text settles on; None where it names none, or leaves another open."""
    first = LEAD.match(text)
    if first is None:
        lower_case = _LOWER_CASE.match(text)
        return lower_case[1].upper() if lower_case else None
    statement = _statement(text, first.start(1))
    hidden = [match.span() for pattern in (_RULED_OUT, _NO_OPTION) for match in pattern.finditer(statement) if match.start() > 0]
    if match := _OF_OTHERS.match(statement, 1):
        hidden.append(match.span())
    ruled_out = _RULED_OUT.match(statement)
    if ruled_out:
        return None
    turn = _TURN.search(statement, 1)
    reasons = turn.start() if turn else len(statement)
    for mention in _MENTION.finditer(statement, 1):
        place = mention.start()
        if mention[0] == first[1] or any(start <= place < end for start, end in hidden):
            continue
        rest = statement[mention.end() : mention.end() + 40]
        if place < reasons or not _DESCRIBED.match(rest) or _AFFIRMED.match(rest):
            return None
    return first[1]


def _statement(text: str, start: int) -> str:
    """The line of a text from its first letter on, and the lines below it for as long as they are entries of a list."""
    lines = text[start : start + LONGEST].split("\n")
    end = 1
    while end < len(lines) and (not lines[end].strip() or entry_letter(lines[end])):
        end += 1
    return "\n".join(lines[:end])
