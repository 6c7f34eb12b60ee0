"""Texts that follow and texts that break each instruction: id -> [(arguments, followed by, broken by)]."""

from typing import Any

Case = tuple[dict[str, Any], list[str], list[str]]
ENGLISH = "The quick brown fox jumps over the lazy dog and then it goes home to sleep."
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund und geht dann nach Hause."
FRENCH = "Le renard brun saute par-dessus le chien paresseux et puis il rentre à la maison."

CORE: dict[str, list[Case]] = {
    "keywords:existence": [
        ({"keywords": ["fox", "Dog"]}, [ENGLISH, "DOG fox", "a foxy dog"], ["fox only", "cat", ""]),
        ({"keywords": ["a.c"]}, ["x a.c y"], ["abc"]),
        ({"keywords": ["f("]}, ["call f(x)"], ["call g(x)"]),
    ],
    "keywords:frequency": [
        ({"keyword": "ab", "frequency": 2, "relation": "at least"}, ["ab ab", "AB cabs"], ["ab", "", "xyz"]),
        ({"keyword": "ab", "frequency": 2, "relation": "less than"}, ["ab", "xyz"], ["ab ab", "ab ab ab"]),
    ],
    "keywords:forbidden_words": [
        ({"forbidden_words": ["bad", "evil"]}, ["all good", "badly done", "devilish"], ["a bad day", "Evil.", "(bad)"]),
        ({"forbidden_words": ["c++"]}, ["c is fine", "python"], ["I like c++.", "C++"]),
    ],
    "keywords:letter_frequency": [
        ({"letter": "e", "let_frequency": 3, "let_relation": "at least"}, ["eee", "Eve eats"], ["ee", "abc"]),
        ({"letter": "!", "let_frequency": 2, "let_relation": "less than"}, ["wow!", "none"], ["wow!!", "a! b! c!"]),
    ],
    "language:response_language": [
        ({"language": "de"}, [GERMAN, GERMAN * 3], [ENGLISH, FRENCH, "12345 !!!", ""]),
        ({"language": "en"}, [ENGLISH, "This is a test of the language."], [GERMAN, FRENCH]),
        ({"language": "zh"}, ["今天天气很好，我们一起去公园散步吧。", "我喜欢学习新的语言和文化。", "你好"], [ENGLISH, GERMAN]),
    ],
    "length_constraints:number_sentences": [
        ({"num_sentences": 2, "relation": "at least"}, ["One. Two.", "One! Two? Three."], ["One.", "Mr. Smith left"]),
        ({"num_sentences": 2, "relation": "less than"}, ["Dr. Who is 3.5 m tall.", "just words"], ["A. Bee. Cee.", "Yes! No!"]),
    ],
    "length_constraints:number_paragraphs": [
        ({"num_paragraphs": 2}, ["a\n***\nb", "***a***b***"], ["a", "a *** *** b", "a***b***c"]),
    ],
    "length_constraints:number_words": [
        ({"num_words": 3, "relation": "at least"}, ["one two three", "a-b c"], ["one two", ""]),
        ({"num_words": 3, "relation": "less than"}, ["one two", "x"], ["one two three", "a b c d"]),
    ],
    "length_constraints:nth_paragraph_first_word": [
        (
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
            ["a\n\nThen b", 'a\n\n"Then, b'],
            ["Then\n\na", "a\n\nthen\n\nb", "then"],
        ),
    ],
    "detectable_content:number_placeholders": [
        ({"num_placeholders": 2}, ["[a] and [b]", "[x][y][z]"], ["[a]", "[a [b", "a]"]),
    ],
    "detectable_content:postscript": [
        ({"postscript_marker": "P.S."}, ["bye\nP.S. more", "p. s. more"], ["bye", "PS more"]),
        ({"postscript_marker": "P.P.S"}, ["bye\nP.P.S more", "p. p. s again"], ["P.S. more", "bye"]),
    ],
    "detectable_format:number_bullet_lists": [
        ({"num_bullets": 2}, ["* a\n* b", "- a\n  - b"], ["* a", "* a\n* b\n* c", "**bold**\n* a"]),
    ],
    "detectable_format:constrained_response": [
        ({}, ["My answer is yes.", "Well. My answer is maybe."], ["yes", "My answer is perhaps.", "my answer is no"]),
    ],
    "detectable_format:number_highlighted_sections": [
        ({"num_highlights": 2}, ["*a* and *b*", "**a** x *b*"], ["*a*", "** ** *b*", "a * b"]),
    ],
    "detectable_format:multiple_sections": [
        (
            {"section_spliter": "SECTION", "num_sections": 2},
            ["SECTION 1\na\nSECTION 2\nb", "SECTION1 a SECTION2 b"],
            ["SECTION 1\na", "SECTION a SECTION b"],
        ),
    ],
    "detectable_format:json_format": [
        ({}, ['{"a": 1}', "```json\n[1, 2]\n```"], ["{a: 1}", "NaN", '{"a": NaN}', "so: {}", "[" * 100_000]),
    ],
    "detectable_format:title": [({}, ["<<a title>>", "x\n<<T>> y"], ["<title>", "<<>>", "<< >>", "<<a\nb>>"])],
    "combination:two_responses": [({}, ["a******b", "a\n******\nb\n"], ["a", "a******a", "a******b******c", "a******"])],
    "combination:repeat_prompt": [
        ({"prompt_to_repeat": "Say hi."}, ["Say hi. Hi!", " say HI. ok"], ["Hi!", "First: Say hi."]),
    ],
    "startend:end_checker": [
        ({"end_phrase": "The end."}, ["So. The end.", '"x the END."'], ["The end", "The end. Or not."]),
    ],
    "change_case:capital_word_frequency": [
        ({"capital_frequency": 2, "capital_relation": "at least"}, ["I am NASA", "A B c"], ["NASA x", "none"]),
        ({"capital_frequency": 2, "capital_relation": "less than"}, ["NASA x", "none"], ["NASA and ESA", "A B C"]),
    ],
    "change_case:english_capital": [({}, [ENGLISH.upper(), "THIS IS THE END."], [ENGLISH, GERMAN.upper(), "12345 !!!"])],
    "change_case:english_lowercase": [({}, [ENGLISH.lower(), "this is the end."], [ENGLISH, GERMAN.lower(), "12345 !!!"])],
    "punctuation:no_comma": [({}, ["no commas here", "a; b"], ["a, b", "1,000"])],
    "startend:quotation": [({}, ['"x"', ' "say" and "so" '], ["x", '"', '"x'])],
}

TRAIN: dict[str, list[Case]] = {
    "copy:repeat_phrase": [
        (
            {"phrase": "the big dog ran home", "small_n": 2},
            ["the small dog ran home. the big cat ran home", "the big dog walked home, the old dog ran home"],
            [
                "the big dog ran home. the big dog ran home",
                "the small dog ran home",
                "the tiny cat ran home the big cat ran home",
            ],
        ),
    ],
    "copy:copy": [({"prompt_to_repeat": "Say hi"}, ["Say hi", " say HI\n"], ["Say hi!", "hi"])],
    "copy:copying_simple": [({"prompt_to_repeat": "Say hi"}, ["Say hi", "say hi "], ["Say hi twice", ""])],
    "copy:copying_multiple": [
        ({"prompt_to_repeat": "hi", "N": 2}, ["hi******hi", "hi\n******\nHI"], ["hi", "hi******hi******hi", "hi hi"]),
    ],
    "new:copy_span_idx": [({"prompt_to_repeat": "abcdefgh", "n_start": 2, "n_end": 5}, ["cde", " CDE "], ["cd", "cdef"])],
    "detectable_format:sentence_hyphens": [
        ({}, ["One is here.-Two is there.", "Only one well-known thing."], ["One is here. Two is there.", "One. -Two.", ""]),
    ],
    "detectable_format:square_brackets": [({}, ["[all] [words]", "[one]"], ["[all] words", "all", "[all words]"])],
    "detectable_format:bigram_wrapping": [
        ({}, ["<<I am>> <<at home>>", "<<I am>> <<home>>"], ["I am at home", "<<I>> <<am>>", "<<I am>> at"]),
    ],
    "keywords:no_adjacent_consecutive": [({}, ["apple cat", "zebra apple"], ["apple banana", "go home"])],
    "keywords:word_once": [({"keyword": "cat"}, ["a cat", "Cat! Concatenate."], ["cat cat", "dog", "concatenate"])],
    "keywords:word_count_different_numbers": [
        ({"keyword": "cat", "frequency": 2, "relation": "at least"}, ["cat cat", "Cat, cat, cat"], ["cat", "cats cat"]),
        ({"keyword": "cat", "frequency": 2, "relation": "less than"}, ["cat", "dog"], ["cat cat", "cat-cat"]),
    ],
    "keywords:exclude_word_harder": [({"keyword": "bad"}, ["badly", "good"], ["a bad day", "Bad.", "so bad!", "bad"])],
    "keywords:palindrome": [({}, ["a level field", "Hannah!"], ["no such word", "a I"])],
    "keywords:keyword_specific_position": [
        ({"keyword": "two", "n": 2, "m": 3}, ["One. It is two now.", "Yes! Here, they, two."], ["It is two.", "One. Two is it."]),
    ],
    "keywords:start_end": [({}, ["Stop and then stop", "Yes or yes"], ["Stop and stop.", "Stop", "a b"])],
    "paragraphs:paragraphs": [({}, ["a***b", "a\n***\nb\n***"], ["a", "a***b***c", "a\n\nb"])],
    "paragraphs:paragraphs2": [({}, ["a\n\nb", "a\n\nb\n\n"], ["a\nb", "a\n\nb\n\nc", "a"])],
    "first_word:first_word_sent": [
        ({"first_word": "So"}, ["So it is. So be it.", "so"], ["So it is. Be it so.", "It is so.", ""]),
    ],
    "first_word:first_word_answer": [({"first_word": "So"}, ["So it is.", "so, well"], ["It is so.", "Some"])],
    "last_word:last_word_sent": [({"last_word": "so"}, ["It is so. Be it so!", "So"], ["It is so. It is not.", "so it is"])],
    "last_word:last_word_answer": [({"last_word": "so"}, ["It is so.", "so"], ["so it is", ""])],
    "punctuation:punctuation_dot": [({}, ["no dots!", "a, b"], ["a.", "3.5"])],
    "punctuation:punctuation_exclamation": [({}, ["calm.", "a?"], ["loud!", "a! b"])],
    "count:lowercase_counting": [({"N": 2}, ["Two words here", "ALL CAPS"], ["one two three", "A b c d"])],
    "letters:letter_counting": [
        ({"N": 4, "relation": "at least"}, ["abcd", "a b c d e"], ["abc", "1234"]),
        ({"N": 4, "relation": "less than"}, ["abc", "1234"], ["abcd", "hello"]),
    ],
    "letters:letter_counting2": [
        ({"letter": "z", "let_frequency": 2, "let_relation": "at least"}, ["zz", "Zoo zone"], ["z", "abc"]),
    ],
    "count:counting_composition": [
        (
            {"n_sent": 2, "n_words": 3},
            [
                "I see you. You see me. *** I see you. You see me. *** I see you. You see me.",
                "A b c. D e f.***G h i! J k l.***M n o. P q r?",
            ],
            ["I see you. You see me.", "I see. You see. *** I see. You see. *** I see. You see."],
        ),
    ],
    "count:count_unique": [({}, ["all words differ", "One. Two. Three."], ["the cat the dog", "The the"])],
    "count:count_increment_word": [
        (
            {"keyword1": "one", "keyword2": "two"},
            ["one two two", "Two, one; TWO"],
            ["one two", "one one two two", "someone two two"],
        ),
    ],
}
