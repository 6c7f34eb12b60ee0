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
