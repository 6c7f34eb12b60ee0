"""multiple_choice: the one option that a completion settles on.

The ground truth is a letter (A to J), or {"answer": letter, "choices": [...]}, in which case the text of an option counts as its
letter. The last marked answer decides: a box, an `<answer>` tag, `{"answer": "B"}`, "answer is B", "Answer: B", "答案：B"; else a
last line or sentence that gives one letter. Where a marked answer names another option too, it is no answer (`options.py`).
"""

import re
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.boxed import last_box
from tulu.verifiers.contract import Case, GoldError, Verifier, pass_or_fail
from tulu.verifiers.json_text import values_in
from tulu.verifiers.options import LEAD, LONGEST, entry_letter, settled
from tulu.verifiers.spelling import undressed
from tulu.verifiers.text import after_thinking, last_tag, normalise_characters, normalise_words, visible_text

_LONGEST = 20_000
"""Characters from the end of a completion in which the answer is looked for."""
_LETTER = re.compile(r"[A-J]")
_KEYS = ("answer", "final_answer", "choice", "option", "letter")
"""Keys of a JSON object that give the answer."""
_SURE = r"(?:clearly|definitely|probably|certainly|obviously|therefore|thus|indeed|simply|most likely|likely|then)"
_NOT = r"(?:no|not|pas|nicht|non|não|не|niet|nie|bukan|không)\b"
_MARKED = re.compile(
    # "answer is", "Answer:", "the answer to this question must be clearly", "the best choice is"
    r"\b(?:answers?|(?:correct|right|best) (?:option|choice|one))(?:\s+(?:to|for)\s[^\n.:]{1,60}?(?=\s+is\b))?"
    rf"(?:\s+(?:is|must be|should be|would be|has to be)(?:\s+{_SURE})?)?[*_]*\s*[:=]?\s*|"
    # "La respuesta correcta es", "Die richtige Antwort lautet:", "Правильный ответ —"
    r"\b(?:respuesta|réponse|antwort|antwoord|resposta|risposta|ответ|cevap|jawaban|odpowiedź|đáp án)"
    rf"(?:\s+(?!{_NOT})(?:(?-i:[^\W\d_A-Z]){{2,12}}|[éèeao])(?!\w)){{0,4}}[*_]*\s*[:=—–-]?\s*|"
    # "答案是", "答案：", "正解は", "정답은", "الإجابة:", "उत्तर:"
    r"(?:答案|答え|正解|选项|選項|정답|답|الإجابة|الجواب|उत्तर)\s*(?:应该是|應該是|是|为|為|选|選|は|은|는|हॆ|है|هي)?[*_]*\s*[:=]?\s*",
    re.IGNORECASE,
)
"""Words before an answer."""
_DOUBTED = re.compile(r"(?:n['’]t|\bnot|\bdoubt|\bnever)\s+(?:\w+\s+){0,3}(?:that\s+)?(?:the\s+)?$", re.IGNORECASE)
"""What stands before an answer that is not given: "I don't think the"."""
_NAMED = re.compile(
    # "B is the correct answer", "option B is correct", "(B) is right"
    r"(?<![\w'’])\(?([A-J])\)?[*_]*\s+is\s+(?:the\s+|therefore\s+|thus\s+)*(?:correct|right|best|answer)\b"
)
_ENDS_IN_LETTER = re.compile(
    # "It's definitely B", "I choose option B", "so it must be (B)", "la respuesta es B"
    r"(?:\bis|['’]s|\bbe|\bes|\best|\bist|\bé|\bè|\bchoose|\bpick|\bselect|\bgo with|[:=→]|是|为|选)"
    rf"\s*(?:{_SURE}\s+)?(?:(?:option|choice|letter)\s+)?[*_$(`\"]*([A-J])[)*_$`\"]*",
    re.IGNORECASE,
)
_DENIED = re.compile(rf"\b{_NOT}|n['’]t\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?。])\s+|(?<=。)")
_LISTED = re.compile(r"(?:[Oo]ption\s+)?\(?[A-J][*_]*[):.][*_]*\s+\S")
"""An option with its text: "B) Paris", "B.** Paris"."""


def parse(gold: Any) -> tuple[str, list[str]]:
    """The letter of the right option, and the texts of all options where they are given; GoldError for anything else."""
    letter, choices = (gold.get("answer"), gold.get("choices") or []) if isinstance(gold, dict) else (gold, [])
    if not isinstance(letter, str) or not _LETTER.fullmatch(letter.strip("() .").upper()):
        raise GoldError(f"ground_truth must be a letter A to J, or an object with answer and choices; got {gold!r}")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise GoldError("choices must be a list of strings")
    letter = letter.strip("() .").upper()
    if choices and ord(letter) - ord("A") >= len(choices):
        raise GoldError(f"answer {letter} is none of {len(choices)} choices")
    return letter, choices


def _letter(text: str, choices: list[str]) -> str | None:
    """The option that a marked answer names, by its letter or by its whole text; None where it names none, or two."""
    letter = settled(text)
    if letter:
        return letter
    lines = text.strip().splitlines()
    words = normalise_words(undressed(lines[0])) if lines else ""
    matches = [index for index, choice in enumerate(choices) if normalise_words(undressed(choice)) == words]
    return chr(ord("A") + matches[0]) if len(matches) == 1 else None


def _in_json(text: str) -> str | None:
    """What the last JSON object of a text gives as the answer; None where there is none."""
    if '"' not in text:
        return None
    for value in reversed(values_in(text)):
        given = [value[key] for key in _KEYS if isinstance(value.get(key), str)] if isinstance(value, dict) else []
        if given:
            return str(given[0])
    return None


def extract(completion: str, choices: list[str]) -> str | None:
    """The letter that a completion settles on, or None."""
    text = visible_text(normalise_characters(after_thinking(completion)))[-_LONGEST:]
    box = last_box(text)
    if box is not None:
        return None if box.content is None else _letter(box.content, choices)
    for marked in (last_tag(text, "answer"), _in_json(text)):
        if marked is not None:
            return _letter(marked, choices)
    text = undressed(text)
    marks = sorted([*_MARKED.finditer(text), *_NAMED.finditer(text)], key=lambda match: match.start())
    for match in reversed(marks):
        if match.re is _NAMED:
            return match[1]
        doubted = _DOUBTED.search(text, max(0, match.start() - 60), match.start())
        letter = None if doubted else _letter(text[match.end() : match.end() + LONGEST], choices)
        # "The answer is a tricky one" marks nothing; "the answer is A or B" marks no single option.
        if letter or LEAD.match(text, match.end()):
            return letter
    return _last_line(text, choices)


def _last_line(text: str, choices: list[str]) -> str | None:
    """The option that the last line of a text is, or ends in, where nothing marks an answer."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    last, entries = lines[-1], {letter for line in lines[:-1] if (letter := entry_letter(line))}
    sentence = _SENTENCE.split(last)[-1]
    bare = undressed(sentence).removeprefix("Option ").strip("()*_.$: ")
    if len(bare) == 1 and bare.isalpha():
        # A list of bare letters is no choice between them.
        listed = any(len(undressed(line).strip("()*_.$: ")) == 1 for line in lines[:-1])
        return None if listed and entries - {bare.upper()} else settled(sentence)
    if _LISTED.match(undressed(last).lstrip("*_ ")):
        return None if entries else settled(last)
    if match := _ENDS_IN_LETTER.search(sentence.rstrip(".!。 ")):
        ends = match.end() == len(sentence.rstrip(".!。 ")) and not _DENIED.search(sentence)
        return settled(f"{match[1]} {sentence[: match.start(1)]}") if ends else None
    return _letter(last, choices) if choices else None


def strict(case: Case) -> Verdict:
    """1 where the last marked answer is the right option."""
    letter, choices = parse(case.gold)
    answer = extract(case.completion, choices)
    return pass_or_fail(answer == letter, f"answer {answer or 'none'}")


MULTIPLE_CHOICE = Verifier(check=parse, strict=strict, place="here")
