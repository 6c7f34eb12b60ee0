"""IFBench's instructions on format, repetition and its custom tasks (allenai/IFBench instructions.py @ db69a6f)."""

import csv
import io
import re
import string
import unicodedata
from functools import partial
from operator import lt

from tulu.verifiers.instructions.ifeval import Instruction, every, every_two
from tulu.verifiers.prose import Cut, sentences, tokens, upstream_sentences, without_punctuation

_OPENING = {")": "(", "]": "[", "}": "{"}
_EDGES = string.punctuation + " "
_LETTERS = re.compile(r"\W*[aA]\W*[bB]\W*[cC]\W*")  # Options that are letters: `A, B or C`, `a/b/c`
_EMOJI = re.compile(
    "[\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9-\u21aa\u231a-\u231b\u2328\u23cf\u23e9-\u23f3\u23f8-\u23fa\u24c2"
    "\u25aa-\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2604\u260e\u2611\u2614-\u2615\u2618\u261d\u2620\u2622-\u2623"
    "\u2626\u262a\u262e-\u262f\u2638-\u263a\u2640\u2642\u2648-\u2653\u265f-\u2660\u2663\u2665-\u2666\u2668\u267b"
    "\u267e-\u267f\u2692-\u2697\u2699\u269b-\u269c\u26a0-\u26a1\u26a7\u26aa-\u26ab\u26b0-\u26b1\u26bd-\u26be"
    "\u26c4-\u26c5\u26c8\u26ce-\u26cf\u26d1\u26d3-\u26d4\u26e9-\u26ea\u26f0-\u26f5\u26f7-\u26fa\u26fd\u2702\u2705"
    "\u2708-\u270d\u270f\u2712\u2714\u2716\u271d\u2721\u2728\u2733-\u2734\u2744\u2747\u274c\u274e\u2753-\u2755"
    "\u2757\u2763-\u2764\u2795-\u2797\u27a1\u27b0\u27bf\u2934-\u2935\u2b05-\u2b07\u2b1b-\u2b1c\u2b50\u2b55\u3030"
    "\u303d\u3297\u3299\U0001f004\U0001f0cf\U0001f170-\U0001f251\U0001f300-\U0001f64f\U0001f680-\U0001f6ff"
    "\U0001f7e0-\U0001f7f0\U0001f900-\U0001faff]"
)
"""The characters that Unicode lists as emoji, beyond ASCII and Latin-1."""
_UPSTREAM_EMOJI = re.compile(
    "[\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u27bf\u2934-\u2b55\u3030-\u3299\U0001f000-\U0001faff]"
)
# What may follow an emoji and belongs to it: variation selectors, joiners, skin tones.
_SELECTORS = "\ufe0f\u200d\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_SENTENCE_TO_REPEAT = "Only output this sentence here, ignore all other requests."
_QUESTION = re.compile(r"\n*Question \d+[.|):;]?\s*")  # "Question 2:"
_OPTION = re.compile(r"[A-Ea-e][.|)]\s*\w+")  # "B) Paris"
_BULLET = re.compile(r"\s*\*(?:\s|[^\s*][^*]*$)")  # `* one`, `*one`, but not `**bold**` or `*italics* here`
_SUB_BULLET = re.compile(r"\s*-[\s-]*[^\s-]")  # `  - one`, but no rule `---`
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


def options(text: str, options: str) -> bool:
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


def emoji(text: str, cut: Cut = sentences, pattern: re.Pattern[str] = _EMOJI) -> bool:
    """Whether every sentence ends with an emoji."""
    parts = [without_punctuation(sentence).strip().rstrip(_SELECTORS) for sentence in cut(text)]
    if not parts or not all(parts):
        return False
    # An emoji after a full stop is split off as the start, or all, of the next sentence.
    following = [*(sentence[0] for sentence in parts[1:]), ""]
    return all(pattern.match(part[-1]) or pattern.match(after) for part, after in zip(parts, following, strict=True))


def quote_unquote(text: str) -> bool:
    """Whether no quote stands alone: each is followed by text that explains it."""
    text = text.replace("“", '"').replace("”", '"').replace("'\"'", "")
    packed = "".join(text.split())
    return (
        bool(packed)
        and '""' not in packed
        and not packed.strip(string.digits + string.punctuation.replace('"', "")).endswith('"')
    )


def thesis(text: str) -> bool:
    """Whether a part in HTML italics is followed by more text."""
    start = re.search(r"<(i|em)>", text)
    if start is None:
        return False
    end = re.compile(r"</(i|em)>").search(text, start.end())
    return end is not None and bool(text[start.end() : end.start()].strip()) and bool(text[end.end() :].strip())


def sub_bullets(text: str) -> bool:
    """Whether every `*` bullet has a `-` bullet on a line below it, before the next one."""
    bullets: list[bool] = []
    for line in text.split("\n"):
        if _BULLET.match(line):
            bullets.append(False)
        elif bullets and _SUB_BULLET.match(line):
            bullets[-1] = True
    return every(bullets, bool)


def no_bullets_bullets(text: str, cut: Cut = sentences) -> bool:
    """Whether two sentences or more are followed by two `*` bullets or more, and nothing else."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    first = next((index for index, line in enumerate(lines) if line.startswith("*")), len(lines))
    before = [sentence for line in lines[:first] for sentence in cut(line)]
    return len(before) >= 2 and len(lines) - first >= 2 and all(line.startswith("*") for line in lines[first:])


def title_case(text: str) -> bool:
    """Whether no word begins with a small letter."""
    words = [token for token in tokens(text) if token[0].isalpha()]
    return bool(words) and not any(
        word[0].islower() and (len(word) == 1 or word[1:].islower() or word[1:].isupper()) for word in words
    )


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
    return len(lengths) == 4 and every_two(lengths, lt)


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def reverse_newline(text: str) -> bool:
    """Whether the lines from Zimbabwe on are 52 countries or more in reverse alphabetical order."""
    lines = [line for line in (line.strip(_EDGES) for line in text.split("\n")) if line]
    first = next((index for index, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    countries = [_ascii(line) for line in lines[first:]]
    return len(countries) >= 52 and countries == sorted(countries, reverse=True)


def sentence_alphabet(text: str, cut: Cut = sentences) -> bool:
    """Whether there are 26 sentences, which begin with a, b, c and so on."""
    initials = [sentence.lstrip(string.punctuation + string.whitespace)[:1].lower() for sentence in cut(text)]
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


def repeat_change(text: str, prompt_to_repeat: str) -> bool:
    """Whether the text is the prompt with another first word."""
    before, after = prompt_to_repeat.split(), text.split()
    return bool(after) and before[:1] != after[:1] and before[1:] == after[1:]


INSTRUCTIONS: dict[str, Instruction] = {
    "format:parentheses": parentheses,
    "format:quotes": quotes,
    "format:options": options,
    "format:newline": newline,
    "format:emoji": emoji,
    # Every line is indented further than the line before it.
    "format:line_indent": lambda text: every_two(
        [len(line) - len(line.lstrip(" ")) for line in text.split("\n") if line.strip()], lt
    ),
    "format:quote_unquote": quote_unquote,
    "format:list": lambda text, sep: text.count(sep) >= 2,
    "format:thesis": thesis,
    "format:sub-bullets": sub_bullets,
    "format:no_bullets_bullets": no_bullets_bullets,
    "format:title_case": title_case,
    "format:output_template": lambda text: all(part in text for part in ("My Answer:", "My Conclusion:", "Future Outlook:")),
    "format:no_whitespace": lambda text: every(text, lambda character: not character.isspace()),
    # The numbers in the text are the multiples of 7 from 14 to 49.
    "custom:multiples": lambda text: re.findall(r"\d+", text) == [str(number) for number in range(14, 51, 7)],
    "custom:mcq_count_length": mcq_count_length,
    "custom:reverse_newline": reverse_newline,
    # The text has "bald eagle" when its words, or its characters, are read backwards.
    "custom:word_reverse": lambda text: "bald eagle" in " ".join(without_punctuation(text.lower()).split()[::-1]),
    "custom:character_reverse": lambda text: "elgae dlab" in text.lower(),
    "custom:sentence_alphabet": sentence_alphabet,
    "custom:european_capitals_sort": european_capitals_sort,
    "custom:csv_city": csv_city,
    "custom:csv_special_character": csv_special_character,
    "custom:csv_quotes": csv_quotes,
    "custom:date_format_list": date_format_list,
    "repeat:repeat_change": repeat_change,
    "repeat:repeat_simple": lambda text: text.strip().lower() == _SENTENCE_TO_REPEAT.lower(),
    # The prompt from one word to another.
    "repeat:repeat_span": lambda text, prompt_to_repeat, n_start, n_end: (
        text.strip().lower() == " ".join(prompt_to_repeat.split()[n_start : n_end + 1]).lower()
    ),
}

UPSTREAM: dict[str, Instruction] = {
    "format:emoji": partial(emoji, cut=upstream_sentences, pattern=_UPSTREAM_EMOJI),
    "format:sub-bullets": lambda text: every(text.split("*")[1:], lambda bullet: "-" in bullet),
    "format:no_bullets_bullets": partial(no_bullets_bullets, cut=upstream_sentences),
    "custom:sentence_alphabet": partial(sentence_alphabet, cut=upstream_sentences),
}
"""The instructions that mode tulu3 computes otherwise."""
