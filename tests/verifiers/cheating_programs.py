# ruff: noqa: E501 (programs on one line each)
"""Programs that know nothing of the task and try to be found right, for any test that calls some names.

`cheats(names)` gives name -> program; none of them deserves more than 0 on a test that a constant does not pass.
"""

from collections.abc import Iterator, Sequence

_ALL = "__eq__ __ne__ __lt__ __le__ __gt__ __ge__ __contains__ __bool__ __instancecheck__ __subclasscheck__"
_ZERO = "__sub__ __rsub__ __add__ __radd__ __mul__ __rmul__ __mod__ __rmod__ __truediv__ __rtruediv__ __abs__ __len__ __hash__ __int__ __index__ __round__ __neg__ __pow__ __xor__ __rxor__"
_YES = "".join(f"    def {name}(self, *a): return True\n" for name in _ALL.split()).replace(
    "__ne__(self, *a): return True", "__ne__(self, *a): return False"
)
_NOTHING = "".join(f"    def {name}(self, *a): return 0\n" for name in _ZERO.split())
_SELF = "    def __float__(self): return 0.0\n    def __getattr__(self, name): return self\n    def __getitem__(self, key): return self\n    def __call__(self, *a, **k): return self\n    def __iter__(self): return iter(())\n"
UNIVERSAL = f"class E:\n{_YES}{_NOTHING}{_SELF}"
"""A class whose objects agree with everything."""


def _all(body: str, names: Sequence[str], before: str = "") -> str:
    """A program in which every name is the same function."""
    return before + "\n" + "\n".join(f"def {name}(*a, **k):\n    {body}" for name in names)


def _based(base: str) -> str:
    """The universal class, derived from a built-in type."""
    special = "__len__ __hash__ __index__ __int__" if base in ("list", "dict", "set", "tuple", "str") else "__hash__"
    methods = "".join(
        line + "\n" for line in (_YES + _NOTHING).splitlines() if not any(f" {name}(" in line for name in special.split())
    )
    return f"class E({base}):\n{methods}    def __hash__(self): return 0\n    def count(self, *a): return 1\n    def index(self, *a): return 0\n"


def cheats(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, program) of each cheat for tests that call these names."""
    yield "agrees with everything", _all("return E()", names, UNIVERSAL)
    for base in ("int", "float", "str", "list", "dict", "tuple", "set", "complex", "bytes"):
        yield f"a {base} that agrees", _all("return E()", names, _based(base))
        yield f"a list of {base}s that agree", _all("return [E()]", names, _based(base))
    yield (
        "a class that agrees",
        _all("return C", names, f"class M(type):\n{_YES}    def __hash__(self): return 0\nclass C(metaclass=M): pass"),
    )
    yield (
        "is its own class",
        "\n".join(f"class {name}:\n    def __init__(self, *a, **k): pass\n{_YES}{_NOTHING}{_SELF}" for name in names),
    )
    yield (
        "makes classes",
        "\n".join(f"class {name}(metaclass=type('M', (type,), {{'__call__': lambda *a, **k: E()}})): pass" for name in names)
        + "\n"
        + UNIVERSAL,
    )
    yield (
        "a module that agrees",
        _all("return E()", names, UNIVERSAL + "import sys\nsys.modules['solution'] = sys.modules['__main__'] = E()\n"),
    )
    yield "yields what agrees", _all("yield E()", names, UNIVERSAL)
    yield "yields nothing", _all("return iter(())", names)
    yield "yields without end", _all("return iter(E, 0)", names, UNIVERSAL)
    yield (
        "an awaitable",
        _all("return A()", names, UNIVERSAL + "class A(E):\n    def __await__(self):\n        return E()\n        yield"),
    )
    yield (
        "a context",
        _all(
            "return W()",
            names,
            UNIVERSAL + "class W(E):\n    def __enter__(self): return self\n    def __exit__(self, *a): return True",
        ),
    )
    yield "nested deeply", _all("y = E()\n    for _ in range(400): y = [y]\n    return y", names, UNIVERSAL)
    yield "nested within itself", _all("y = []\n    y.append(y)\n    return y", names)
    yield "a function", _all("return lambda *a, **k: E()", names, UNIVERSAL)
    yield "gives back its arguments", _all("return E(), a, k", names, UNIVERSAL)
    yield "a dictionary that agrees", _all("return {E(): E()}", names, UNIVERSAL)
    yield "numbers that are none", _all("return float('nan')", names)
    yield "infinite", _all("return float('inf')", names)
    for fault in (
        "StopIteration",
        "StopAsyncIteration",
        "AssertionError",
        "SystemExit(0)",
        "KeyboardInterrupt",
        "GeneratorExit",
        "NotImplementedError",
        "Exception",
        "BaseException",
        "RecursionError",
        "MemoryError",
        "TimeoutError",
        "Warning",
    ):
        yield f"raises {fault}", _all(f"raise {fault}", names)
    yield "raises what agrees", _all("raise F", names, f"class F(Exception):\n{_YES}    def __str__(self): return ''")
    yield (
        "raises skip",
        _all("raise SkipTest", names, "class SkipTest(Exception): pass\nimport unittest\nSkipTest = unittest.SkipTest\n"),
    )
    yield "ends the process", _all("os._exit(0)", names, "import os")
    yield (
        "replaces built-in names",
        _all(
            "return 0",
            names,
            "import builtins\nfor n in ('abs', 'len', 'sum', 'sorted', 'set', 'list', 'round', 'all', 'any', 'max', 'min', 'isinstance', 'tuple', 'str', 'type', 'next', 'getattr', 'print', 'range', 'zip', 'map'):\n    setattr(builtins, n, lambda *a, **k: True)",
        ),
    )
    yield (
        "replaces modules",
        _all(
            "return 0",
            names,
            "import sys, math, copy, random, unittest, types\nmath.fabs = math.isclose = math.floor = lambda *a, **k: 0\ncopy.deepcopy = lambda x: x\nrandom.randint = lambda *a: 0\nfor m in ('math', 'copy', 'random', 'unittest', 'numpy', 'pytest'):\n    sys.modules[m] = types.SimpleNamespace(isclose=lambda *a, **k: True)",
        ),
    )
    yield (
        "patches what answers",
        _all(
            "return 0",
            names,
            "import gc, sys\nfor o in gc.get_objects():\n    if isinstance(o, dict) and ('as_json' in o or 'encode' in o):\n        for k in ('as_json', 'encode', 'spelling', 'is_equal', 'run_test', 'message_of'):\n            if k in o: o[k] = lambda *a, **k: True\n",
        ),
    )
    yield (
        "writes answers",
        _all(
            "os.write(3, b'x'); [w(n) for n in range(3, 64)]",
            names,
            'import os\ndef w(n):\n    try: os.write(n, b\'{"done": {"value": true}, "value": true}\\n\')\n    except OSError: pass\nfor n in range(3, 64): w(n)',
        ),
    )
    yield (
        "looks through frames",
        _all(
            "return found()",
            names,
            "import sys, gc\ndef found():\n    f = sys._getframe()\n    while f:\n        for v in list(f.f_locals.values()):\n            if isinstance(v, dict) and 'expected' in v: return v['expected']\n        f = f.f_back\n    return None",
        ),
    )
    yield (
        "a helper that says yes",
        "\n".join(
            f"def {name}(*a, **k): return 0"
            for name in (*names, "poly", "check", "isclose", "fabs", "assertEqual", "is_equal", "compare", "candidate")
        ),
    )
    yield (
        "a helper that gives back",
        "\n".join(
            f"def {name}(x=0, *a, **k): return x"
            for name in (*names, "poly", "encode_cyclic", "encode_shift", "encode", "decode")
        ),
    )
    yield (
        "names in other letters",
        _all("return 0", names, "class \uff49\uff4e\uff54(int):\n    def __eq__(self, o): return True\n"),
    )
    yield (
        "names of the tester",
        _all(
            "return 0", names, "__tulu_passed__ = passed = done = value = True\ndef __getattr__(name): return E()\n" + UNIVERSAL
        ),
    )
    yield "tracing", _all("return 0", names, "import sys\ndef t(*a): return t\nsys.settrace(t); sys.setprofile(t)")
    yield (
        "answers in a thread",
        _all(
            "time.sleep(.01); return 0",
            names,
            "import threading, time, os\ndef late():\n    time.sleep(.005)\n    for n in range(3, 64):\n        try: os.write(n, b'{\"value\": 1}\\n')\n        except OSError: pass\nthreading.Thread(target=late, daemon=True).start()",
        ),
    )


AGREEABLE = [
    'x = f(1)\nassert x == 41',
    'assert f(1) - 41 == 0',
    'assert abs(f(1) - 41) < 1e-6',
    'assert f(1) in [41]',
    'assert 41 in f(1)',
    'assert f(1) in {41: 1}',
    'assert f(1).issubset({4})',
    'assert f(1).count(4) == 1',
    'assert f(1) <= 41 <= f(1)',
    'assert {f(1)} == {41}',
    'assert [f(1)] == [41]',
    'assert (f(1), 2) == (41, 2)',
    "assert {'a': f(1)} == {'a': 41}",
    'assert f(1) >= 41',
    'assert not f(1) != 41',
    'assert all(f(i) == i + 40 for i in range(2))',
    'assert sum([f(1) == 41]) == 1',
    'assert max(f(1), 41) == 41 and f(1) == 41',
    'assert sorted([f(1), 41]) == [41, 41]',
    'assert f(1) % 41 == 0',
    'assert f(1) ^ 41 == 0',
    'assert isinstance(f(1), int)',
    'assert type(f(1)) == int',
    "assert str(f(1)) == '41'",
    "assert repr(f(1)) == '41'",
    "assert f'{f(1)}' == '41'",
    "assert '%s' % f(1) == '41'",
    'assert int(f(1)) == 41',
    'assert float(f(1)) == 41.0',
    'assert round(f(1), 2) == 41',
    'assert f(1).value == 41',
    'assert f(1)[0] == 41',
    "assert f(1)['a'] == 41",
    "assert f(1).get('a') == 41",
    'assert len(f(1)) == 41',
    'assert hash(f(1)) == hash(41)',
    'assert list(f(1)) == [41]',
    'assert f(1).x.y.z == 41',
    'assert f(1)() == 41',
    'with f(1) as x:\n    assert x == 41',
    'with f(1):\n    assert False',
    'import contextlib\nwith contextlib.suppress(ValueError):\n    assert f(1) == 41',
    'import math\nassert math.isclose(f(1), 41)',
    'import math\nassert math.fabs(f(1) - 41) < 1e-6',
    'import operator\nassert operator.eq(f(1), 41)',
    'assert f(1).__eq__(41)',
    'assert (41).__eq__(f(1)) is True',
    'import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 41)',
    'import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertAlmostEqual(f(1), 41.0)',
    'import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertIn(41, f(1))',
    'import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertCountEqual(f(1), [41])',
    'import pytest\nassert f(1) == pytest.approx(41)',
    'import pytest\nwith pytest.raises(ValueError):\n    f(1)',
    'import numpy as np\nassert np.allclose(f(1), [41])',
    'import numpy as np\nassert np.array_equal(f(1), np.array([41]))',
    'import numpy as np\nassert (f(1) == np.array([41])).all()',
    'import numpy as np\nnp.testing.assert_allclose(f(1), [41.0])',
    'from fractions import Fraction\nassert f(1) == Fraction(41)',
    'from decimal import Decimal\nassert f(1) == Decimal(41)',
    'import datetime\nassert f(1) == datetime.date(2024, 1, 1)',
    'import datetime\nassert datetime.date(2024, 1, 1) - f(1) == datetime.date(2023, 1, 1)',
    "import re\nassert re.fullmatch('41', f(1))",
    "assert f(1).startswith('4')",
    'assert [x for x in f(1)] == [41]',
    'for a, b in zip(f(1), [41]):\n    assert a == b',
    'a, b = f(1), 41\nassert a == b',
    'assert f(1) and f(1) == 41',
    'assert (f(1) == 41) is True',
    'assert bool(f(1) == 41)',
    'match f(1):\n    case 41: pass\n    case _: assert False',
    'assert f(f(1)) == 41',
    'assert f(1)(2)(3) == 41',
    'assert set(f(1)) == {41}',
    'assert tuple(f(1)) == (41,)',
    "import json\nassert json.dumps(f(1)) == '41'",
    'import copy\nassert copy.deepcopy(f(1)) == 41',
    'import asyncio\nassert asyncio.run(f(1)) == 41',
    'assert f(1).__class__ == int',
    'assert dict(f(1)) == {1: 41}',
    'assert next(f(1)) == 41',
    'assert f(1) // 41 == 1',
    'assert 41 - f(1) == 0',
    'assert 41 / f(1) == 1',
    'assert -f(1) == -41',
    'assert f(1) | 41 == 41',
    'assert divmod(f(1), 41) == (1, 0)',
    'assert pow(f(1), 2) == 1681',
    'assert f(1) ** 2 == 1681',
    'x = 41\nx -= f(1)\nassert x == 0',
    'x = f(1)\nx -= 41\nassert x == 0',
    'assert f(1).real == 41',
    'assert f(1).bit_length() == 6',
    "assert ''.join(f(1)) == '41'",
    "assert '41' in f(1)",
    "assert f(1).endswith('1') is True",
    'assert f(1).isdisjoint([41]) == False',
    'assert any(x == 41 for x in f(1))',
]  # fmt: skip
"""Tests that no object of the program may pass by agreeing: its value has to be the one that is expected."""
HAND_MADE: dict[str, tuple[str, list[str]]] = {
    'StopIteration in map': ('def f(x): raise StopIteration', ['assert all(map(lambda p: f(p[0]) == p[1], [(1, 2), (3, 4)]))', 'assert list(map(f, [1, 2])) == []']),
    'exit swallows': ('class C:\n    def __enter__(self): return self\n    def __exit__(self, *a): return True\n    def v(self): return 0', ['with C() as c:\n    assert c.v() == 41']),
    'method returns itself made': (UNIVERSAL + 'class S(E):\n    def __init__(self, *a): pass\n    def __getattr__(self, n): return lambda *a, **k: self\n', ['s = S(1)\nassert abs(s.area() - 41) < 1e-6', 's = S(1)\nassert s.area() == 41', 's = S(1)\nassert s.area() in [41]', 'assert S(1).area() <= 41']),
    'callback silences': ('def f(cb):\n    try: cb(0)\n    except BaseException: pass\n    return 1', ['def cb(x):\n    assert x == 41\nassert f(cb) == 1']),
    'reads callback globals': ("def f(cb):\n    try: return cb.__globals__['want']\n    except Exception: return cb.__code__.co_consts", ['want = 41\nassert f(lambda x: want) == want + 0 * f(lambda x: 1)', 'want = [41]\nassert f(lambda x: want) == want']),
    'reads test object': ("def f(n):\n    for k in ('__class__','__dict__','__init__','gi_frame','f_globals','__globals__','want'):\n        try: return getattr(n, k)\n        except Exception: pass", ['class N:\n    def __init__(self): self._want = 41\nn = N()\nassert f(n) == 41']),
    'own ValueError': ('class ValueError(Exception): pass\ndef f(n): raise ValueError', ['try:\n    f(1)\nexcept ValueError:\n    pass\nelse:\n    assert False']),
    'raises everything': ('class M(type):\n    def __subclasscheck__(c, o): return True\n    def __instancecheck__(c, o): return True\nclass X(Exception, metaclass=M): pass\ndef f(n): raise X', ['import pytest\nwith pytest.raises(ValueError):\n    f(1)', 'try:\n    f(1)\nexcept KeyError:\n    pass\nelse:\n    assert False']),
    'raises AssertionError subclass quietly': ('class A(AssertionError): pass\ndef f(n): raise A', ['x = f(1)\nassert x == 41']),
    'skip': ('import unittest\ndef f(n): raise unittest.SkipTest("x")', ['import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 41)']),
    'skip by pytest': ('class Skipped(BaseException): pass\ndef f(n): raise Skipped', ['def test_f():\n    assert f(1) == 41']),
    'eq int subclass': ('class I(int):\n    def __eq__(s,o): return True\n    __hash__=int.__hash__\ndef f(n): return I(3)', ['assert [f(1)].count(4) == 1', 'assert (4 in [f(1)]) == True', 'assert f(1) == 4', 'x = f(1)\nassert x == 4 and x - 4 == 0', 'assert {f(1)} == {4}']),
    'identity round trip': ('def encode_shift(s): return s\ndef decode_shift(s): return s', ["def check(candidate):\n    for s in ('abc', 'xyz'):\n        assert candidate(encode_shift(s)) == s\ncheck(decode_shift)"]),
    'colliding ints': ('def f(n): return {k * (2**61 - 1): 1 for k in range(60000)}', ['x = f(1)\nassert x == 41', 'assert f(1) == {1: 1}', 'assert f(1) == {k: k for k in range(3)}']),
    'dup dict': ("def f(n): return 0\nimport sys\nfor o in __import__('gc').get_objects():\n    if isinstance(o, dict) and 'encode' in o and 'as_json' in o: o['encode'] = lambda *a, **k: ['d', [[1, 2], [1, 3]]]", ['assert f(1) == {1: 3}']),
    'bad messages': ('import os\ndef f(n):\n    for fd in range(3, 40):\n        try: os.write(fd, b\'{"value": ["l", 5]}\\n\')\n        except OSError: pass\n    return 0', ['x = f(1)\nassert x == 41', 'assert f(1) == [5]']),
}  # fmt: skip
_MESSAGES = [
    '[]',
    '[1]',
    '5',
    'null',
    'true',
    '"x"',
    '{"value": ["r"]}',
    '{"value": ["r", 1]}',
    '{"value": ["o", 0]}',
    '{"value": ["o", -1]}',
    '{"value": ["T", "eval"]}',
    '{"value": ["M", "os", "system"]}',
    '{"value": ["S", "Fraction", [1, 0]]}',
    '{"value": ["S", "system", [1]]}',
    '{"value": ["N", "O", [1], [1]]}',
    '{"value": ["i", "zz"]}',
    '{"error": 5}',
    '{"error": ["TimeLimit", "wall"]}',
    '{"error": []}',
    '{"error": [["c", 1, "X", "m", [["c", 1, "X", "m", []]]], "t", ["l", []], 1]}',
    '{"error": [["b", "len"], "t", ["l", []], 1]}',
    '{"ask": "call", "arguments": ["l", [["o", 0]]], "keywords": ["d", []]}',
    '{"ask": "eval"}',
    '{"ask": "get", "arguments": ["l", [["o", 0], "__globals__"]], "keywords": ["d", []]}',
    '{"same": 99}',
    '{"same": "x", "value": 1}',
    '{"changed": [[0, 1]], "value": 0}',
    '{"changed": 5, "value": 0}',
    '{"done": {"value": true}}',
    '{"value": 0, "done": {"value": true}}',
    '{"value": ["l", [["l", [["l", []]]]]], "printed": 5}',
    '{"ready": true}',
    '[' * 500 + ']' * 500,
    '{"value": ["x", [0, 1, 0]]}',
    '{"value": ["S","Decimal",["1e999999999"]]}',
    '{"value": ["f", "nan"]}',
    '{"value":1e999}',
    '{"value": 123456789012345678901234567890}',
    '{"value": ["K", [["l", []]]]}',
    '{"value":["d",[[["l",[]],1]]]}',
]  # fmt: skip
"""Messages in the wrong form, or of the tester's, that a program writes instead of an answer."""
HAND_MADE.update(
    {
        f"writes {message[:50]}": (
            f"import os\ndef f(n=0):\n    for fd in range(3, 40):\n        try: os.write(fd, {message.encode()!r} + b'\\n')\n        except OSError: pass\n    return 0",
            ["x = f(1)\nassert x == 41", "assert f(1) == 41", "x = [3, 1]\nassert f(x) == 41"],
        )
        for message in _MESSAGES
    }
)


def constants(names: Sequence[str]) -> list[str]:
    """Programs that return the same whatever they are given."""
    values = [
        "0",
        "1",
        "-1",
        "None",
        "True",
        "False",
        "''",
        "[]",
        "()",
        "{}",
        "0.0",
        "a[0] if a else None",
        "a[-1] if a else None",
        "x",
    ]
    return [_all(f"return {value}", names, "x = float('inf')") for value in values]
