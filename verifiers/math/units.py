"""Units that a number may carry: what they measure and how large they are, nouns of things counted, and words for numbers."""

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple


class Unit(NamedTuple):
    """A unit as powers of base units and a factor: km/h is m·s⁻¹ times 5/18."""

    dimension: tuple[tuple[str, int], ...]
    factor: Fraction = Fraction(1)

    def times(self, other: "Unit", power: int = 1) -> "Unit":
        """The product of this unit and a power of another."""
        exponents = dict(self.dimension)
        for base, exponent in other.dimension:
            exponents[base] = exponents.get(base, 0) + exponent * power
        kept = tuple(sorted((base, exponent) for base, exponent in exponents.items() if exponent))
        return Unit(kept, self.factor * other.factor**power)


ONE = Unit(())
PERCENT = Unit((("percent", 1),))
DEGREE = Unit((("degree", 1),))
ANY = Unit((("unit", 1),))
"""`units`, `square units`, `points`: measures something, but says not what."""

_BASES = {
    # metres
    "m": "m meter metre meters metres mètre mètres metro metros метр метра метров 米",
    "kg": "kg kilogram kilograms kilo kilos кг 千克 公斤",
    "s": "s sec secs second seconds сек секунд 秒",
    "K": "K kelvin kelvins",
    "A": "A amp amps ampere amperes",
    "mol": "mol mole moles",
    "cd": "cd candela",
    "rad": "rad radian radians",
    "bit": "bit bits",
    "°C": "celsius",
    "°F": "fahrenheit",
    "dollar": "dollar dollars USD usd buck bucks",
    "euro": "euro euros EUR",
    "pound sterling": "GBP pence",
    "yen": "yen JPY",
    "yuan": "yuan RMB 元",
    "rupee": "Rs rs INR rupee rupees",
    "rouble": "rouble roubles ruble rubles руб рублей рубля рубль",
    "unit": "unit units point points",
}
"""Base units, and the words for each."""
_DERIVED: dict[str, tuple[str, str]] = {
    # words: (base units with exponents, factor)
    "km kilometer kilometers kilometre kilometres км километров 千米 公里": ("m", "1000"),
    "cm centimeter centimeters centimetre centimetres см сантиметров 厘米": ("m", "1/100"),
    "mm millimeter millimeters millimetre millimetres мм 毫米": ("m", "1/1000"),
    "dm decimeter decimeters": ("m", "1/10"),
    "nm nanometer nanometers": ("m", "1/1000000000"),
    "µm μm micrometer micrometers micron microns": ("m", "1/1000000"),
    "Å AA angstrom angstroms": ("m", "1/10000000000"),
    "in inch inches": ("m", "127/5000"),
    "ft foot feet": ("m", "381/1250"),
    "yd yard yards": ("m", "1143/1250"),
    "mi mile miles": ("m", "201168/125"),
    "g gram grams gm gms gramme grammes г грамм 克": ("kg", "1/1000"),
    "mg milligram milligrams": ("kg", "1/1000000"),
    "ton tons tonne tonnes": ("kg", "1000"),
    "lb lbs pound pounds": ("kg", "45359237/100000000"),
    "oz ounce ounces": ("kg", "45359237/1600000000"),
    "min mins minute minutes мин минут 分钟": ("s", "60"),
    "h hr hrs hour hours ч час часа часов 小时": ("s", "3600"),
    "day days день дней дня 天": ("s", "86400"),
    "week weeks": ("s", "604800"),
    "ms millisecond milliseconds": ("s", "1/1000"),
    "ns nanosecond nanoseconds": ("s", "1/1000000000"),
    "Hz hertz": ("s-1", "1"),
    "kHz": ("s-1", "1000"),
    "MHz": ("s-1", "1000000"),
    "mph": ("m s-1", "1397/3125"),
    "kph kmh kmph": ("m s-1", "5/18"),
    "N newton newtons": ("kg m s-2", "1"),
    "kN": ("kg m s-2", "1000"),
    "J joule joules": ("kg m2 s-2", "1"),
    "kJ": ("kg m2 s-2", "1000"),
    "W watt watts": ("kg m2 s-3", "1"),
    "kW": ("kg m2 s-3", "1000"),
    "Pa pascal pascals": ("kg m-1 s-2", "1"),
    "kPa": ("kg m-1 s-2", "1000"),
    "V volt volts": ("kg m2 s-3 A-1", "1"),
    "mA milliamp milliamps": ("A", "1/1000"),
    "C coulomb coulombs": ("A s", "1"),
    "Ohm ohm ohms": ("kg m2 s-3 A-2", "1"),
    "T tesla": ("kg s-2 A-1", "1"),
    "L l liter liters litre litres л литров 升": ("m3", "1/1000"),
    "mL ml milliliter milliliters millilitre millilitres cc": ("m3", "1/1000000"),
    "gal gallon gallons": ("m3", "473176473/125000000000"),
    "mmol": ("mol", "1/1000"),
    "eV": ("eV", "1"),
    "acre acres": ("m2", "316160658/78125"),
    "hectare hectares ha": ("m2", "10000"),
    "cent cents ¢": ("dollar", "1/100"),
    "byte bytes": ("bit", "8"),
    "degree degrees": ("degree", "1"),
    "percent pct": ("percent", "1"),
    "year years yr yrs": ("year", "1"),
    "month months": ("month", "1"),
}
SYMBOLS = {
    "\\$": "dollar",
    "€": "euro",
    "¢": "cent",
    "¥": "yen",
    "₽": "rouble",
    "₹": "rupee",
    "%": "percent",
    "Å": "Å",
    "°": "degree",
}
"""Marks that are units, and the word for each."""
PREFIXED = {
    "\\$": "dollar", "pounds": "GBP", "euro": "euro", "yen": "yen", "€": "euro", "¥": "yen", "₹": "rupee", "₽": "rouble",
    "Rs": "rupee", "US": "dollar", "USD": "dollar", "EUR": "euro", "GBP": "GBP", "INR": "rupee", "RMB": "yuan",
}  # fmt: skip
"""Currencies that stand before a number."""
UNSPACED = frozenset("m s g N J W V h L".split())
"""One-letter units that may stand right behind a number, as in `5\\mathrm{m}`; any other letter there is a letter."""


def _parse_bases(text: str) -> tuple[tuple[str, int], ...]:
    parts = list[tuple[str, int]]()
    for part in text.split():
        letters = part.rstrip("-0123456789")
        parts.append((letters, int(part[len(letters) :] or 1)))
    return tuple(sorted(parts))


UNITS: dict[str, Unit] = {word: Unit(((base, 1),)) for base, words in _BASES.items() for word in words.split()}
UNITS |= {
    word: Unit(_parse_bases(bases), Fraction(factor)) for words, (bases, factor) in _DERIVED.items() for word in words.split()
}
_FRACTIONS = {
    "half": 2, "halves": 2, "third": 3, "thirds": 3, "fourth": 4, "fourths": 4,
    "quarter": 4, "quarters": 4, "fifth": 5, "fifths": 5, "sixth": 6,
    "sixths": 6, "seventh": 7, "sevenths": 7, "eighth": 8, "eighths": 8,
    "ninth": 9, "ninths": 9, "tenth": 10, "tenths": 10, "hundredth": 100,
    "hundredths": 100, "thousandth": 1000, "thousandths": 1000, "millionth": 10**6, "millionths": 10**6,
}  # fmt: skip
_MULTIPLES = {
    "ten": 10, "tens": 10,
    "dozen": 12, "dozens": 12, "score": 20, "hundred": 100, "hundreds": 100, "thousand": 1000, "thousands": 1000, "mil": 1000,
    "million": 10**6, "millions": 10**6, "millones": 10**6, "billion": 10**9,
    "billions": 10**9, "trillion": 10**12, "lakh": 10**5, "crore": 10**7,
    "тысяч": 1000, "тысячи": 1000, "тысяча": 1000, "миллион": 10**6,
    "миллиона": 10**6, "миллионов": 10**6, "百": 100, "千": 1000, "万": 10**4,
    "亿": 10**8, "tausend": 1000, "mille": 1000, "Million": 10**6, "Millionen": 10**6,
}  # fmt: skip
SCALES: dict[str, Fraction] = {word: Fraction(1, part) for word, part in _FRACTIONS.items()}
SCALES |= {word: Fraction(times) for word, times in _MULTIPLES.items()}
"""Words after a number that multiply it: 5 dozen is 60, 5 tenths are 1/2."""
COUNTED = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen "
        "nineteen twenty".split()
    )
}
"""Numbers in words."""
NO_NOUNS = frozenset(
    "and or but not nor neither either no none never plus minus times over under mod modulo divided by "
    "to from until less fewer more than at "
    "least most about around approximately approx roughly nearly almost between if when where for with "
    "squared cubed square cube root power "
    "factorial negative positive minus is are was be equals equal greater smaller above below exactly "
    "only maybe perhaps possibly probably "
    "half zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen "
    "twenty thirty forty fifty sixty seventy eighty ninety pi alpha beta gamma delta epsilon theta "
    "lambda sigma omega phi psi rho tau mu nu "
    "sin cos tan cot sec csc log ln lg exp sqrt max min gcd lcm inf infinity infinite something else "
    "other so since because which that this "
    "i e x y z n k t base choose remainder double triple twice thrice nd th rd st oder und et ou y o "
    "или и 或 和 и не kein nicht pas "
    "undefined unknown true false yes".split()
)
"""Words that count nothing: after a number they change its value, hedge it or go on with the sentence."""
FILLERS = frozenset("of the a an per each in total altogether".split())
"""Words between and after nouns, as in `5 pieces of cake in total`."""


@lru_cache(maxsize=4096)
def noun(words: tuple[str, ...]) -> Unit | None:
    """Words after a number as the unit of things counted; None where some word counts nothing."""
    kept = [word for word in words if word.lower() not in FILLERS]
    if not kept or len(words) > 6 or any(word.lower() in NO_NOUNS or word in SCALES for word in words):
        return None
    return Unit(((f"noun {' '.join(_singular(word.lower()) for word in kept)}", 1),))


def _singular(word: str) -> str:
    return word[:-2] if word.endswith(("ses", "xes", "ches", "shes")) else word[:-1] if word.endswith("s") else word


def is_noun(unit: Unit) -> bool:
    """Whether a unit is a noun of things counted."""
    return any(base.startswith("noun ") for base, _ in unit.dimension)


def conversion(unit: Unit, other: Unit) -> Fraction | None:
    """The number of `other` that one `unit` is; None where they measure different things."""
    if ANY.dimension[0][0] in dict(unit.dimension) or ANY.dimension[0][0] in dict(other.dimension):
        return Fraction(1)
    if unit.dimension == other.dimension:
        return unit.factor / other.factor
    if is_noun(unit) and is_noun(other):
        bases, other_bases = (set(base.split()) for unit in (unit, other) for base, _ in unit.dimension[:1])
        # 3 apples are 3 red apples, but never 3 pears.
        return Fraction(1) if bases <= other_bases or other_bases <= bases else None
    return None
