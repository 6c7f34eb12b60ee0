"""What shows nothing, and what is in another language, is paid by no verifier of form."""

import random
import sys
import time
import unicodedata
from collections import defaultdict
from typing import Any

import pytest

from tests.verifiers.ifbench_cases import CUSTOM, FORMAT, WORDS
from tests.verifiers.ifeval_cases import CORE, TRAIN
from tests.verifiers.instructions.test_ifeval_old import CASES as OLD
from tulu.verifiers.contract import Case, grade_safely
from tulu.verifiers.languages import detect
from tulu.verifiers.registry import VERIFIERS

CASES = {**CORE, **TRAIN, **WORDS, **FORMAT, **CUSTOM}
FILLERS = "\u115f\u1160\u3164\uffa0\u2800\ufffc\ufffd"
THINKING = ["<think>so, it is</think>", "<think>so", "<THINK>so</THINK>", "<thinking>so", "◁think▷so◁/think▷", "◁think▷so"]
ENGLISH = "This is the English answer to the question that you have asked. "
OTHERS = {
    "fr": "Bonjour, je suis très content de vous voir ici avec toute la famille. ",
    "de": "Der schnelle braune Fuchs springt über den faulen Hund und geht nach Hause. ",
    "es": "Hoy hace muy buen tiempo y vamos a pasear por la ciudad con los niños. ",
    "ru": "Сегодня очень хорошая погода, и мы идём гулять по городу с детьми. ",
    "ja": "今日はとても天気がいいので、家族と一緒に公園へ散歩に行きました。",
    "zh": "今天的天气非常好，所以我们决定和家人一起去公园散步。",
    "ko": "오늘은 날씨가 매우 좋아서 가족과 함께 공원에 산책하러 갔습니다. ",
    "el": "Σήμερα ο καιρός είναι πολύ καλός και πηγαίνουμε βόλτα στην πόλη. ",
    "ar": "الطقس جميل جدا اليوم ونحن ذاهبون في نزهة إلى المدينة مع الأطفال. ",
    "hi": "आज मौसम बहुत अच्छा है और हम बच्चों के साथ शहर में घूमने जा रहे हैं। ",
}


def unseen() -> list[str]:
    """Texts without a visible character: of every category that shows nothing, alone and mixed, with and without thinking."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for character in map(chr, range(sys.maxunicode + 1)):
        kind = unicodedata.category(character)
        if kind[0] in "ZCM" and not "\U0001f300" <= character <= "\U0001faff":
            by_kind[kind].append(character)
    draw = random.Random(0)
    by_kind["fillers"] = list(FILLERS)
    texts = ["", " ", "\n\n"]
    for characters in by_kind.values():
        texts += [draw.choice(characters), "".join(draw.choices(characters, k=40)), "\n\n".join(draw.choices(characters, k=3))]
    every = [character for characters in by_kind.values() for character in characters[:50]]
    texts += ["".join(draw.choices(every, k=draw.randrange(1, 60))) for _ in range(40)]
    return texts + [thinking + draw.choice(texts) for thinking in THINKING for _ in range(5)]


UNSEEN = unseen()


@pytest.mark.parametrize("name", sorted(CASES))
def test_no_instruction_is_followed_by_what_shows_nothing(name: str) -> None:
    gold = {"instruction_id": [name], "kwargs": [CASES[name][0][0]]}
    for text in UNSEEN:
        for verifier in ("ifeval", "ifeval_loose"):
            assert VERIFIERS[verifier](text, gold).score == 0, (verifier, text)


@pytest.mark.parametrize("name", sorted(name for name, *_ in OLD))
def test_no_first_instruction_is_followed_by_what_shows_nothing(name: str) -> None:
    values = next(values for function, values, *_ in OLD if function == name)
    for text in UNSEEN:
        assert VERIFIERS["ifeval_old"](text, {"func_name": name, **values}).score == 0, text


@pytest.mark.parametrize(
    ("name", "gold"),
    [
        ("length", 50),
        ("length", {"min": 1}),
        ("length", {"min": 200, "unit": "characters"}),
        ("length", {"max": 3, "unit": "sentences"}),
        ("length", {"max": 300, "unit": "tokens"}),
        ("max_length", 100),
        ("up_to_max_length", 200),
        ("repetition", None),
        ("format", None),
        ("format", r"[\s\S]*"),
        ("format", r".+"),
        ("calmscore", "en"),
        ("language", "ar"),
        ("language", "ko"),
    ],
)
def test_no_form_is_kept_by_what_shows_nothing(name: str, gold: Any) -> None:
    for text in UNSEEN:
        verdict = grade_safely(VERIFIERS[name].strict, Case(text, gold, row={"completion_tokens": 100}))
        assert verdict.score == 0, (text, verdict)


@pytest.mark.parametrize(
    "nothing", ["\u200b", "\u3164", "\u2060\u200d", "\ufeff", "\u2800", "\u00ad", "\U000e0041", "\x00", "\x1b\x7f"]
)
def test_a_part_that_shows_nothing_is_no_part(nothing: str) -> None:
    for name, values, text in [
        ("combination:two_responses", {}, "one******{}"),
        ("paragraphs:paragraphs", {}, "one***{}"),
        ("paragraphs:paragraphs2", {}, "one\n\n{}"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one***{}"),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "one *{}*"),
        ("detectable_format:title", {}, "<<{}>> one"),
        ("format:thesis", {}, "<i>{}</i> one"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one {} {} {}"),
        ("format:emoji", {}, "one {}."),
        ("keywords:forbidden_words", {"forbidden_words": ["bad"]}, "so b{}ad"),
    ]:
        gold = {"instruction_id": [name], "kwargs": [values]}
        if name == "keywords:forbidden_words" and nothing in "\u3164\u2800":
            continue
        assert VERIFIERS["ifeval"](text.replace("{}", nothing), gold).score == 0, (name, text)
    assert VERIFIERS["format"](f"<think>{nothing}</think><answer>7</answer>", None).score == 0
    assert VERIFIERS["format"](f"<think>so</think><answer>{nothing}</answer>", None).score == 0
    assert VERIFIERS["format"](f"{nothing}<think>so</think><answer>7</answer>{nothing}", None).score == 1
    # A blank letter is a space, and whether that is enough is the pattern's to say.
    assert VERIFIERS["format"](f"<a>{nothing}</a>", r"<a>.*\S.*</a>").score == 0


def test_sentences_of_marks_alone_are_none() -> None:
    gold = {"instruction_id": ["length_constraints:number_sentences"], "kwargs": [{"num_sentences": 3, "relation": "at least"}]}
    for text in ("x " + ". " * 9, "a ! ! ! !", "so. . . .", "1. a\n2. b\n3. c", "x " + "\u200b. " * 5):
        assert VERIFIERS["ifeval"](text, gold).score == 0, text
    assert VERIFIERS["ifeval"]("1. It is.\n2. It was.\n3. Will it be?", gold).score == 1


@pytest.mark.parametrize("language", sorted(OTHERS))
def test_a_language_has_most_of_the_whole_text(language: str) -> None:
    own = OTHERS[language]
    verifier = VERIFIERS["language"]
    assert verifier(own, language).score == 1
    assert verifier(own * 60, language).score == 1
    assert verifier(own * 3 + ENGLISH, language).score == 1
    for start in (1, 10, 50, 100):
        mixed = own * start + ENGLISH * round(start * 3 * len(own) / len(ENGLISH) + 1)
        assert verifier(mixed, language).score == 0, (start, detect(mixed))
        assert verifier(mixed, "en").score == 1, (start, detect(mixed))
        mixed = ENGLISH * start + own * round(start * 3 * len(ENGLISH) / len(own) + 1)
        assert verifier(mixed, "en").score == 0, (start, detect(mixed))


def test_few_words_and_foreign_words_are_in_no_language() -> None:
    draw = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyzäéßøアあ中한ж"
    texts = [
        "a",
        "A",
        "s",
        "ア the",
        "あ",
        "the",
        "the the the the",
        "I am",
        "a******b",
        "a-b-c",
        "7 8 9 a",
        "あ" * 300,
        "ア" * 9 + " the",
        "",
    ]
    texts += ["".join(draw.choices(letters, k=draw.randrange(1, 4))) for _ in range(50)]
    texts += [" ".join([draw.choice(letters)] * draw.randrange(2, 30)) for _ in range(50)]
    for text in texts:
        for language in ("en", "ja", "de", "ko", "fr"):
            assert VERIFIERS["language"](text, language).score == 0, (text, language)
        for name in ("change_case:english_capital", "change_case:english_lowercase"):
            gold = {"instruction_id": [name], "kwargs": [{}]}
            assert VERIFIERS["ifeval"](text.upper() if "capital" in name else text.lower(), gold).score == 0, text
    for text in ("ich will das so", "was ist so in", "das will er so", "er hat es so am", "on me do", "die man so an"):
        assert VERIFIERS["language"](text, "en").score == 0, text
    for text in ("This is the end.", "HOW DO I GET THERE?", "the answer is 42", "It was born on a Sunday in July."):
        assert VERIFIERS["language"](text, "en").score == 1, text


def test_loops_without_words_are_repetition() -> None:
    draw = random.Random(2)
    loops = [
        "!",
        "😀",
        "x",
        "ab",
        "-_",
        "🙂🙃",
        "?!",
        "abc123",
        "ʘ",
        "哈",
        "=",
        "é",
        ".\u200b",
        "! ",
        "- ",
        "{}",
        "\u0e01\u0e02",
        "ຂ",
        "x\u200b",
    ]
    loops += ["".join(draw.choices("abc!?😀哈é-", k=draw.randrange(1, 30))) for _ in range(200)]
    for loop in loops:
        text = loop * (500 // len(loop) + 1)
        assert VERIFIERS["repetition"](text, None).score == 0, loop
        assert VERIFIERS["calmscore"](ENGLISH + text, "en").score == 0, loop
    for text in (
        ENGLISH * 3,
        "=" * 60 + "\nA title\n" + "=" * 60,
        "| a | b |\n|---|---|\n" + "".join(f"| {n} | {n * n} |\n" for n in range(20)),
    ):
        assert VERIFIERS["repetition"](text, None).score == 1, text


def test_padding_is_no_length() -> None:
    for padding in ("\u200b", "\n", " ", "\t", "\u3164", "\u00a0", "\u2800", "\r\n", " \u200b", "\u2028", "\u3000"):
        for gold in ({"min": 200, "unit": "characters"}, {"min": 50}, {"min": 20, "unit": "sentences"}):
            assert VERIFIERS["length"]("a" + padding * 400 + "b", gold).score == 0, (padding, gold)
    assert VERIFIERS["length"]("word " * 40, {"min": 199, "unit": "characters"}).score == 1


def test_hostile_texts_are_graded_at_once() -> None:
    gold = {
        "instruction_id": [
            "length_constraints:number_sentences",
            "language:response_language",
            "format:sub-bullets",
            "ratio:overlap",
        ],
        "kwargs": [
            {"num_sentences": 3, "relation": "at least"},
            {"language": "de"},
            {},
            {"reference_text": "so it is", "percentage": 50},
        ],
    }
    for part in ("x\n1. a\n", "1. ", "\n1.\n", "e.g.) ", "* ", "* a", "- -", "\n \n", "<answer>", "é a ", ". ", "a.) b"):
        text = part * (300_000 // len(part))
        began = time.process_time()
        assert VERIFIERS["ifeval"](text, gold).status == "ok"
        assert VERIFIERS["repetition"](text, None).status == "ok"
        assert time.process_time() - began < 5, part
