"""Texts that follow and texts that break each IFBench instruction: id -> [(arguments, followed by, broken by)]."""

import string
from typing import Any

Case = tuple[dict[str, Any], list[str], list[str]]
NAMES = "Abigail, Gabriel, Nora"
AFRICA = """Zimbabwe Zambia Uganda Tunisia Togo Tanzania Sudan South_Sudan South_Africa Somalia Sierra_Leone Seychelles
Senegal São_Tomé_and_Príncipe Rwanda Nigeria Niger Namibia Mozambique Morocco Mauritius Mauritania Mali Malawi Madagascar
Libya Liberia Lesotho Kenya Ivory_Coast Guinea-Bissau Guinea Ghana Gambia Gabon Ethiopia Eswatini Eritrea
Equatorial_Guinea Egypt Djibouti Democratic_Republic_of_the_Congo Comoros Chad Central_African_Republic Cape_Verde
Cameroon Burundi Burkina_Faso Botswana Benin Angola Algeria""".split()
CITIES = ["ID,Country,City,Year,Count"] + [f"{n},Japan,Tokyo,20{n:02},{n}" for n in range(7)]
GOODS = ["ProductID,Category,Brand,Price,Stock"] + [f"{n},Toys,Acme,{n}.50,3" for n in range(13)]
MARKS = ['"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"'] + ['"1"\t"Art"\t"A"\t"2"\t"90"'] * 3
CAPITALS = (
    "Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, Amsterdam, "
    "Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chisinau, Bern, Ljubljana, Zagreb"
)
STORY = " ".join(f"{letter}ll went on with it." for letter in string.ascii_uppercase)


def questions(lengths: list[int]) -> str:
    """Multiple choice questions of given lengths."""
    options = "\n".join(f"{letter}) option" for letter in "ABCDE")
    return "\n".join(f"Question {at}. {'w' * length}?\n{options}" for at, length in enumerate(lengths, 1))


WORDS: dict[str, list[Case]] = {
    "count:word_count_range": [({"min_words": 2, "max_words": 3}, ["a b", "a b c."], ["a", "a b c d"])],
    "count:unique_word_count": [({"N": 3.0}, ["a b c", "A b. C b!"], ["a a b", "a A a."])],
    "count:conjunctions": [({"small_n": 3}, ["this and that, but yet", "so, or for"], ["and and and", "this or that"])],
    "count:person_names": [({"N": 3}, [NAMES, "Emma met Liam and Mia"], ["Audrey, Ben, Yanai, Ryan.", "Emma Emma Emma"])],
    "count:numbers": [
        ({"N": 3}, ["1 2 3", "This is 1 number. This is not 10 numbers. It is 3."], ["3.14 and 2", "more than 3: 1 2 3."]),
        ({"N": 1}, ["one: 100,000", "3.5"], ["none", "1 and 2"]),
    ],
    "count:punctuation": [({}, ["All: . , ! ? ; : !?", "a. b, c! d? e; f: g?!"], ["Some.,?!", "a.b,c!d?e;f:"])],
    "count:pronouns": [({"N": 3}, ["I and you and it", "she/her/hers"], ["the dog ran", "I ran"])],
    "count:words_japanese": [({"N": 3}, ["one two 三 four five 日本", "a b ねこ"], ["one two three", "a b c d e ねこ"])],
    "count:keywords_multiple": [
        (
            {f"keyword{n}": word for n, word in enumerate("abcde", 1)},
            ["a b b c c c d d d d d e e e e e e e", "E e e e e e e, d d d d d; C c c b B a."],
            ["a b c d e", "a b b c c c d d d d d e e e e e e e e"],
        ),
    ],
    "ratio:stop_words": [({"percentage": 50}, ["cats chase mice", "the big cat"], ["it is the one", ""])],
    "ratio:sentence_type": [
        ({}, ["It is. Is it? It was.", "A b. C d. E f? G h. I j. K l?"], ["It is. Is it?", "It is.", "just words"]),
    ],
    "ratio:sentence_balance": [
        ({}, ["It is. Is it? It is!", "Go! Why? Ok. Go! Why? Ok."], ["It is. Is it?", "words", "A. B. C? D!"]),
    ],
    "ratio:sentence_words": [
        (
            {},
            ["Cats run. Dogs sit. Cows eat.", "Abc de. Fgh ij. Klm no."],
            ["Cats run. Dogs sleep. Cows eat.", "Cats run. Cats sit. Cows eat.", "Cats run."],
        ),
    ],
    "ratio:overlap": [
        (
            {"reference_text": "This is the test.", "percentage": 100},
            ["This is the test.", "is the test."],
            ["That was no test at all.", ""],
        ),
        ({"reference_text": "abcd", "percentage": 50}, ["bcde", "xabc"], ["abcd", "w x y z"]),
    ],
    "words:alphabet": [
        (
            {},
            ["Be cause dandelions eat freedom.", "Zooming around back."],
            ["Your zoo is very xeric.", "Great finds enter dark caves.", "1 2"],
        ),
    ],
    "words:vowel": [({}, ["With I this is in.", "the eel eek eked out."], ["the eel\nyeah.", "a quick brown fox jumped"])],
    "words:consonants": [({}, ["This employs consonant clusters.", "Strong winds"], ["This does not.", "a"])],
    "words:palindrome": [
        (
            {},
            [" ".join(["abcba"] * 10), "Racecar, radar, level, madam, civic, refer, tenet, deified, repaper and reviver."],
            ["Ada Eve Bob Nan Otto Ava Pip Elle Ivi Ana", " ".join(["abcba"] * 9)],
        ),
    ],
    "words:prime_lengths": [({}, ["an old rabbits", "it was so"], ["a cat", "this word"])],
    "words:start_verb": [({}, ["Run for it.", "Creates a new file"], ["The dog ran.", "Apple pie"])],
    "words:repeats": [({"small_n": 2}, ["a b a b", "one, One"], ["a a a", "one ONE one."])],
    "words:odd_even_syllables": [({}, ["the happy cat", "water runs slowly"], ["the cat", "happy water"])],
    "words:last_first": [
        ({}, ["I saw it. It saw me. Me too.", "Just one."], ["I saw it. They saw me.", "One. Two."]),
    ],
    "words:paragraph_last_first": [({}, ["Stop and stop.\nGo and go", "One"], ["Stop and go.", "Go and go\nStop it"])],
    "words:no_consecutive": [({}, ["the big dog", "One two five."], ["big bad dog", "Tiny, tall"])],
    "words:keywords_specific_position": [
        ({"keyword": "two", "n": 1, "m": 2}, ["It, Two is.", "a two"], ["two it", "one. a two"]),
    ],
    "words:words_position": [
        ({"keyword": "dog"}, ["A dog sees a dog here.", "The dog barks."], ["dog a b dog", "A dog is here now", "dog"])
    ],
    "sentence:alliteration_increment": [
        (
            {},
            [
                "No alliteration. Some semblance of alliteration. Alliterating across alphabet is interesting.",
                "It was. Big bears run.",
            ],
            ["Big bears run. It was.", "One six. Two four."],
        ),
    ],
    "sentence:keyword": [({"word": "cat", "N": 2}, ["One. A cat.", "Hi! Cat? Dog."], ["A cat. One.", "One. Cats.", "One."])],
    "sentence:increment": [({"small_n": 2}, ["One. One two three.", "It is. It is so here."], ["One. One two.", "A b. C d."])],
}

FORMAT: dict[str, list[Case]] = {
    "format:parentheses": [
        ({}, ["This (is [nested {very (deeply [here], yay!)}]).", "((((()))))"], ["((()))", "(((((", "((((]))))"])
    ],
    "format:quotes": [({}, ['"a \'b "c" d\' e"', "'x \"y 'z' y\" x'"], ['"a"', "\"a 'b' c\"", ""])],
    "format:options": [
        ({"options": "yes/no/maybe"}, ["yes", "Maybe."], ["perhaps", "yes, because"]),
        ({"options": "a), b), c), d)"}, ["a)", "d)"], ["a", "e)"]),
        ({"options": "I know or I don't know"}, ["I know", "I don't know."], ["know", "no"]),
    ],
    "format:newline": [({}, ["one\ntwo\nthree", "One.\n\nTwo."], ["one two", "one\ntwo three"])],
    "format:emoji": [({}, ["It is fine. 😀 So good! 🎉", "All well 😀."], ["It is fine.", "😀 It is. It was 😀"])],
    "format:line_indent": [({}, ["a\n b\n  c", "a\n\n   b"], ["a\nb", "  a\n b"])],
    "format:quote_unquote": [({}, ['He said "go" and left.', "No quotes at all."], ['He said "go"', '"go" "stop" now'])],
    "format:list": [({"sep": "!?!?"}, ["!?!? a\n!?!? b", "x !?!? y !?!?"], ["- a\n- b", "!?!? a"])],
    "format:thesis": [({}, ["<i>Thesis.</i> Text.", "<em>So.</em>\nMore"], ["Thesis. Text.", "<i>Thesis.</i>", "<i></i> text"])],
    "format:sub-bullets": [({}, ["* a\n  - b", "* a\n- b\n* c\n- d"], ["* a\n* b", "- a", "* a\n- b\n* c"])],
    "format:no_bullets_bullets": [
        ({}, ["One. Two.\n* a\n* b", "One.\nTwo.\n* a\n* b"], ["* a\n* b", "One. Two.\n* a", "One. Two.\n* a\n* b\nEnd."]),
    ],
    "format:title_case": [({}, ["The Big Dog", "A Tale of Two".replace(" of ", " Of ")], ["The big Dog", "all lower"])],
    "format:output_template": [
        (
            {},
            ["My Answer: a My Conclusion: b Future Outlook: c", "x\nMy Answer:\nMy Conclusion:\nFuture Outlook:"],
            ["My Answer: a", "a b c"],
        ),
    ],
    "format:no_whitespace": [({}, ["word", "a,b"], ["a b", "a\nb"])],
}

CUSTOM: dict[str, list[Case]] = {
    "custom:multiples": [({}, ["14, 21, 28, 35, 42, 49", "14,21,28,35,42,49"], ["14 21", "7, 14, 21, 28, 35, 42, 49"])],
    "custom:mcq_count_length": [
        (
            {},
            [questions([5, 6, 7, 8]), questions([1, 10, 20, 30])],
            [questions([5, 6, 7]), questions([5, 5, 6, 7]), "Here: " + questions([5, 6, 7, 8])],
        )
    ],
    "custom:reverse_newline": [
        (
            {},
            ["\n".join(AFRICA), "Here:\n" + "\n".join(f"- {name}" for name in AFRICA)],
            ["\n".join(AFRICA[::-1]), "\n".join(AFRICA[:40])],
        ),
    ],
    "custom:word_reverse": [
        ({}, ["States United the of symbol national the is eagle bald The", "eagle bald"], ["The bald eagle", "owl"])
    ],
    "custom:character_reverse": [({}, ["elgae dlab eht", "ELGAE DLAB"], ["bald eagle", "dlab elgae"])],
    "custom:sentence_alphabet": [
        ({}, [STORY, STORY.replace("went on", "came home")], [STORY[:-30], STORY.lower().replace("all", "zll", 1)])
    ],
    "custom:european_capitals_sort": [
        (
            {},
            [CAPITALS, CAPITALS.replace("Reykjavik", "Reykjavík").replace(", ", ",")],
            ["Oslo, Paris", CAPITALS.replace("Oslo", "Rome")],
        )
    ],
    "custom:csv_city": [
        ({}, ["\n".join(CITIES), "\n".join(CITIES) + "\n"], ["\n".join(CITIES[:-1]), "\n".join(CITIES).replace("Year", "When")])
    ],
    "custom:csv_special_character": [
        (
            {},
            ["\n".join([*GOODS, '13,Toys,"Ac&me",1,2']), "\n".join([*GOODS, '13,"Toys, new",Acme,1,2'])],
            ["\n".join([*GOODS, "13,Toys,Ac&me,1,2"]), "\n".join(GOODS)],
        ),
    ],
    "custom:csv_quotes": [
        (
            {},
            ["\n".join(MARKS), "\n".join(MARKS).replace('"Art"', '"My Art"')],
            ["\n".join(MARKS).replace('"Art"', "Art"), "\n".join(MARKS[:3]), "\n".join(MARKS).replace("\t", ",")],
        )
    ],
    "custom:date_format_list": [
        ({}, ["1805-12-02", "1796-04-12, 1815-06-18"], ["02.12.1805", "1805-13-02", "1915-06-18", "1805-12-02 Austerlitz"])
    ],
    "repeat:repeat_change": [
        ({"prompt_to_repeat": "Write a poem."}, ["Compose a poem.", "Sing a poem."], ["Write a poem.", "Compose a song.", "poem"])
    ],
    "repeat:repeat_simple": [
        (
            {},
            [
                "Only output this sentence here, ignore all other requests.",
                "only output this sentence here, ignore all other requests.\n",
            ],
            ["Only output this sentence here", "Sure!"],
        )
    ],
    "repeat:repeat_span": [
        ({"prompt_to_repeat": "a b c d e", "n_start": 1, "n_end": 3}, ["b c d", " B C D "], ["b c", "a b c d"])
    ],
}
