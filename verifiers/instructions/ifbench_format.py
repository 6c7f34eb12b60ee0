"""IFBench's instructions on format, repetition and its custom tasks (allenai/IFBench instructions.py @ db69a6f)."""

import csv
import io
import re
import string
import unicodedata

from tulu.verifiers.prose import sentences, tokens, without_punctuation

_OPENING = {")": "(", "]": "[", "}": "{"}
_EDGES = string.punctuation + " "
_LETTERS = re.compile(r"\W*[aA]\W*[bB]\W*[cC]\W*")  # Options that are letters: `A, B or C`, `a/b/c`
_EMOJI = re.compile(
    "[\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u27bf\u2934-\u2b55\u3030-\u3299\U0001f000-\U0001faff]"
)
# What may follow an emoji and belongs to it: variation selectors, joiners, skin tones.
_SELECTORS = "\ufe0f\u200d\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_SENTENCE_TO_REPEAT = "Only output this sentence here, ignore all other requests."
_QUESTION = re.compile(r"\n*Question \d+[.|):;]?\s*")  # "Question 2:"
_OPTION = re.compile(r"[A-Ea-e][.|)]\s*\w+")  # "B) Paris"
_SPECIAL = re.compile(r"[^\w\s]")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
# From north to south.
_CAPITALS = (
    "Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin Amsterdam Warsaw London "
    "Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana Zagreb"
).split()


def parentheses(text: str) -> bool:
    """Whether brackets stand five deep inside each other, and one of those five closes properly."""
    levels: list[str] = []
    deepest = 0
    for character in text:
        if character in "([{":
            levels.append(character)
            deepest = max(deepest, len(levels))
        elif character in _OPENING:
            if not levels or levels.pop() != _OPENING[character]:
                levels, deepest = [], 0
            elif deepest >= 5:
                return True
    return False


def quotes(text: str) -> bool:
    """Whether quotes stand three deep inside each other: double, single, double."""
    levels: list[str] = []
    deepest = 0
    for character in text:
        if levels and character == levels[-1]:
            levels.pop()
            if deepest - len(levels) >= 3:
                return True
        elif character in "\"'":
            levels.append(character)
            deepest = max(deepest, len(levels))
    return False


def options(text: str, *, options: str) -> bool:
    """Whether the text is one of the options: `yes/no/maybe`, `A, B or C`."""
    separator = "/" if "/" in options else "or" if "or" in options else ","
    allowed = [option.strip() for option in options.split(separator)]
    if _LETTERS.match(options):
        return text in allowed
    return text.strip(_EDGES + "\n").lower() in {option.strip(_EDGES).lower() for option in allowed}


def newline(text: str) -> bool:
    """Whether every word stands on a line of its own."""
    text = without_punctuation(text).strip()
    return bool(text) and len([line for line in text.split("\n") if line]) == len(text.split())


def _is_emoji(text: str) -> bool:
    return bool(text) and _EMOJI.match(text) is not None


def emoji(text: str) -> bool:
    """Whether every sentence ends with an emoji."""
    parts = [without_punctuation(sentence).strip().rstrip(_SELECTORS) for sentence in sentences(text)]
    if not parts or not all(parts):
        return False
    # An emoji after a full stop is split off as the start, or all, of the next sentence.
    ends = [_is_emoji(sentence[-1]) for sentence in parts]
    starts = [_is_emoji(sentence[0]) for sentence in parts]
    return all(end or (index + 1 < len(parts) and starts[index + 1]) for index, end in enumerate(ends))


def line_indent(text: str) -> bool:
    """Whether every line is indented further than the line before it."""
    indents = [len(line) - len(line.lstrip(" ")) for line in text.split("\n") if line.strip()]
    return bool(indents) and all(a < b for a, b in zip(indents, indents[1:], strict=False))


def quote_unquote(text: str) -> bool:
    """Whether no quote stands alone: each is followed by text that explains it."""
    text = text.replace("“", '"').replace("”", '"').replace("'\"'", "")
    packed = "".join(text.split())
    return (
        bool(packed)
        and '""' not in packed
        and not packed.strip(string.digits + string.punctuation.replace('"', "")).endswith('"')
    )


def bullet_list(text: str, *, sep: str) -> bool:
    """Whether the mark of a list occurs at least twice."""
    return text.count(sep) >= 2


def thesis(text: str) -> bool:
    """Whether a part in HTML italics is followed by more text."""
    start = re.search(r"<(i|em)>", text)
    if start is None:
        return False
    end = re.compile(r"</(i|em)>").search(text, start.end())
    return end is not None and bool(text[start.end() : end.start()].strip()) and bool(text[end.end() :].strip())


def sub_bullets(text: str) -> bool:
    """Whether every `*` bullet has a `-` bullet under it."""
    bullets = text.split("*")[1:]
    return bool(bullets) and all("-" in bullet for bullet in bullets)


def no_bullets_bullets(text: str) -> bool:
    """Whether two sentences or more are followed by two `*` bullets or more, and nothing else."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    first = next((index for index, line in enumerate(lines) if line.startswith("*")), len(lines))
    before = [sentence for line in lines[:first] for sentence in sentences(line)]
    return len(before) >= 2 and len(lines) - first >= 2 and all(line.startswith("*") for line in lines[first:])


def title_case(text: str) -> bool:
    """Whether no word begins with a small letter."""
    words = [token for token in tokens(text) if token[0].isalpha()]
    return bool(words) and not any(
        word[0].islower() and (len(word) == 1 or word[1:].islower() or word[1:].isupper()) for word in words
    )


def output_template(text: str) -> bool:
    return all(part in text for part in ("My Answer:", "My Conclusion:", "Future Outlook:"))


def no_whitespace(text: str) -> bool:
    return bool(text) and not any(character.isspace() for character in text)


def multiples(text: str) -> bool:
    """Whether the numbers in the text are the multiples of 7 from 14 to 49."""
    return re.findall(r"\d+", text) == [str(number) for number in range(14, 51, 7)]


def mcq_count_length(text: str) -> bool:
    """Whether there are four questions of growing length with five options each."""
    if not text.startswith("Question"):
        return False
    lengths = []
    for question in [part.strip() for part in _QUESTION.split(text) if part.strip()]:
        lines = [line.strip() for line in question.split("\n")]
        choices = [bool(_OPTION.match(line)) for line in lines]
        if sum(choices) != 5:
            return False
        lengths.append(len(" ".join(lines[: choices.index(True)]).strip()))
    return len(lengths) == 4 and all(a < b for a, b in zip(lengths, lengths[1:], strict=False))


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def reverse_newline(text: str) -> bool:
    """Whether the lines from Zimbabwe on are 52 countries or more in reverse alphabetical order."""
    lines = [line for line in (line.strip(_EDGES) for line in text.split("\n")) if line]
    first = next((index for index, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    countries = [_ascii(line) for line in lines[first:]]
    return len(countries) >= 52 and countries == sorted(countries, reverse=True)


def word_reverse(text: str) -> bool:
    """Whether the text has "bald eagle" when its words are read backwards."""
    words = without_punctuation(text.lower()).split()[::-1]
    return "bald eagle" in " ".join(words)


def character_reverse(text: str) -> bool:
    """Whether the text has "bald eagle" spelled backwards."""
    return "elgae dlab" in text.lower()


def sentence_alphabet(text: str) -> bool:
    """Whether there are 26 sentences, which begin with a, b, c and so on."""
    initials = [sentence.lstrip(string.punctuation + string.whitespace)[:1].lower() for sentence in sentences(text)]
    return initials == list(string.ascii_lowercase)


def european_capitals_sort(text: str) -> bool:
    """Whether the text is a list of Europe's capitals above 45° north, from north to south."""
    return [city.strip() for city in _ascii(text).split(",") if city.strip()] == _CAPITALS


def _csv_rows(text: str) -> list[list[str]]:
    """The rows of comma-separated values; none where they cannot be read."""
    try:
        return list(csv.reader(io.StringIO(text)))
    except csv.Error:
        return []


def csv_city(text: str) -> bool:
    """Whether the text is CSV with the right header and seven rows."""
    rows = _csv_rows(text.strip())
    return len(rows) == 8 and rows[0] == ["ID", "Country", "City", "Year", "Count"] and all(len(row) == 5 for row in rows)


def csv_special_character(text: str) -> bool:
    """Whether the text is CSV with the right header, 14 rows, and a special character in a quoted field."""
    rows = _csv_rows(text.strip())
    header = [field.strip() for field in rows[0]] if rows else []
    right_header = header == ["ProductID", "Category", "Brand", "Price", "Stock"]
    quoted = [field for line in text.split("\n")[1:] for field in line.split('"')[1::2]]
    return right_header and len(rows) == 15 and all(len(row) == 5 for row in rows) and any(map(_SPECIAL.search, quoted))


def csv_quotes(text: str) -> bool:
    """Whether the text is tab-separated, with the right header, three rows, and quotes around every field."""
    lines = [line.split("\t") for line in text.strip().split("\n")]
    header = [field.strip().strip('"') for field in lines[0]]
    right_header = header == ["StudentID", "Subject", "Grade", "Semester", "Score"]
    quoted = all(field.strip()[:1] == '"' == field.strip()[-1:] and len(field.strip()) > 1 for line in lines for field in line)
    return right_header and len(lines) == 4 and all(len(line) == 5 for line in lines) and quoted


def date_format_list(text: str) -> bool:
    """Whether the text is a list of dates from 1769 to 1821, such as 1805-12-02."""
    for part in text.strip().split(","):
        date = _DATE.fullmatch(part.strip())
        if date is None:
            return False
        year, month, day = (int(number) for number in date.groups())
        longest = 29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31
        if not (1769 <= year <= 1821 and 1 <= month <= 12 and 1 <= day <= longest):
            return False
    return True


def repeat_change(text: str, *, prompt_to_repeat: str) -> bool:
    """Whether the text is the prompt with another first word."""
    before, after = prompt_to_repeat.split(), text.split()
    return bool(after) and before[:1] != after[:1] and before[1:] == after[1:]


def repeat_simple(text: str) -> bool:
    return text.strip().lower() == _SENTENCE_TO_REPEAT.lower()


def repeat_span(text: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """Whether the text is the prompt from one word to another."""
    return text.strip().lower() == " ".join(prompt_to_repeat.split()[n_start : n_end + 1]).lower()
