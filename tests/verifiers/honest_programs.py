# ruff: noqa: E501 (programs on one line each)
"""Honest programs with tests as people write them: name -> (program, tests). Each deserves 1."""

from typing import Any

VECTOR = """
class Vector:
    def __init__(self, x, y): self.x, self.y = x, y
    def __add__(self, o): return Vector(self.x + o.x, self.y + o.y)
    def __mul__(self, k): return Vector(self.x * k, self.y * k)
    __rmul__ = __mul__
    def __neg__(self): return Vector(-self.x, -self.y)
    def __iadd__(self, o):
        self.x += o.x
        return self
    def __eq__(self, o): return isinstance(o, Vector) and (self.x, self.y) == (o.x, o.y)
    def __hash__(self): return hash((self.x, self.y))
    def __lt__(self, o): return abs(self) < abs(o)
    def __abs__(self): return (self.x ** 2 + self.y ** 2) ** 0.5
    def __repr__(self): return f'Vector({self.x}, {self.y})'
    def __bool__(self): return bool(self.x or self.y)
    def __getitem__(self, i): return (self.x, self.y)[i]
    def __call__(self, k): return self * k
    @classmethod
    def zero(cls): return cls(0, 0)
    @staticmethod
    def unit(): return Vector(1, 0)
    @property
    def length(self): return abs(self)
"""
STACK = """
class Empty(Exception):
    def __init__(self, message='empty', code=7):
        super().__init__(message)
        self.code = code
class Full(Empty): pass
class Stack:
    limit = 3
    def __init__(self): self.items = []
    def push(self, x):
        if len(self.items) >= self.limit: raise Full('full', code=8)
        self.items.append(x)
        return self
    def pop(self):
        if not self.items: raise Empty()
        return self.items.pop()
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __contains__(self, x): return x in self.items
    def __setitem__(self, i, v): self.items[i] = v
    def __delitem__(self, i): del self.items[i]
    def __getitem__(self, i): return self.items[i]
    def __enter__(self): return self
    def __exit__(self, kind, fault, trace):
        self.closed = True
        return kind is ValueError
"""
SHAPES = """
from abc import ABC, abstractmethod
class Shape(ABC):
    def __init__(self, name): self.name = name
    @abstractmethod
    def area(self): ...
    def describe(self): return f'{self.name} of {self.area()}'
class Square(Shape):
    def __init__(self, side):
        super().__init__('square')
        self.side = side
    def area(self): return self.side ** 2
"""
HONEST: dict[str, tuple[str, Any]] = {
    "operators": (VECTOR, ["assert Vector(1, 2) + Vector(3, 4) == Vector(4, 6)", "assert Vector(1, 2) * 3 == Vector(3, 6)", "assert 3 * Vector(1, 2) == Vector(3, 6)", "assert -Vector(1, 2) == Vector(-1, -2)", "assert Vector(1, 2) != Vector(2, 1)"]),
    "more operators": (VECTOR, ["v = Vector(1, 2)\nw = v\nv += Vector(1, 1)\nassert w is v and v.x == 2", "assert abs(Vector(3, 4)) == 5.0", "assert str(Vector(1, 2)) == 'Vector(1, 2)'", "assert f'{Vector(1, 2)}' == 'Vector(1, 2)'", "assert not Vector(0, 0)", "x, y = Vector(5, 6)\nassert (x, y) == (5, 6)"]),
    "order and sets": (VECTOR, ["assert Vector(1, 0) < Vector(3, 4)", "assert sorted([Vector(3, 4), Vector(1, 0)])[0].x == 1", "assert max(Vector(3, 4), Vector(1, 0)).y == 4", "assert len({Vector(1, 2), Vector(1, 2)}) == 1", "assert {Vector(1, 2): 5}[Vector(1, 2)] == 5"]),
    "class and static methods": (VECTOR, ["assert Vector.zero() == Vector(0, 0)", "assert Vector.unit().length == 1.0", "assert Vector.unit() * 2 == Vector(2, 0)", "assert Vector(1, 1)(2) == Vector(2, 2)", "assert hasattr(Vector, 'zero') and not hasattr(Vector(0, 0), 'z')"]),
    "isinstance": (VECTOR, ["assert isinstance(Vector(1, 2), Vector)", "assert not isinstance(3, Vector)", "assert type(Vector(1, 2)) is Vector", "assert type(Vector(1, 2)).__name__ == 'Vector'", "assert Vector.__name__ == 'Vector'", "assert callable(Vector) and not callable(3)"]),
    "exceptions of the program": (STACK, ["try:\n    Stack().pop()\n    assert False\nexcept Empty as fault:\n    assert fault.code == 7 and str(fault) == 'empty'", "import pytest\nwith pytest.raises(Empty):\n    Stack().pop()", "s = Stack()\ntry:\n    for n in range(9): s.push(n)\n    assert False\nexcept Empty as e:\n    assert isinstance(e, Full) and e.code == 8", "assert issubclass(Full, Empty) and issubclass(Full, Exception)", "import pytest\nwith pytest.raises(Full, match='ful'):\n    Stack().push(1).push(2).push(3).push(4)"]),
    "items and attributes": (STACK, ["s = Stack()\ns.push(1).push(2)\ns[0] = 5\nassert s[0] == 5 and s[-1] == 2\ndel s[0]\nassert len(s) == 1 and 2 in s and 9 not in s", "s = Stack()\ns.limit = 1\ns.push(1)\nassert s.limit == 1\ndel s.limit\nassert s.limit == 3", "s = Stack()\ns.push(4)\nassert [x for x in s] == [4] and s[0:1] == [4]", "s = Stack()\nassert not s\ns.push(0)\nassert s"]),
    "with": (STACK, ["with Stack() as s:\n    s.push(1)\nassert s.closed", "with Stack() as s:\n    raise ValueError('kept')\nassert s.closed"]),
    "subclass of the program's": (SHAPES, ["class Circle(Shape):\n    def __init__(self, r):\n        super().__init__('circle')\n        self.r = r\n    def area(self): return 3 * self.r\nc = Circle(2)\nassert c.describe() == 'circle of 6'\nassert isinstance(c, Shape)", "class Twice(Square):\n    def area(self): return 2 * super().area()\nassert Twice(3).describe() == 'square of 18'", "import pytest\nwith pytest.raises(TypeError):\n    Shape('x')"]),
    "dataclass": ("from dataclasses import dataclass, field\n@dataclass(order=True)\nclass P:\n    x: int\n    y: list = field(default_factory=list)\ndef f(): return P(1)", ["assert f() == P(1)", "assert f().y == []", "assert P(1) < P(2)", "assert repr(f()) == 'P(x=1, y=[])'", "p = f()\np.y.append(3)\nassert f() == P(1)"]),
    "dataclass with future annotations": ("from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import Optional\n@dataclass\nclass Node:\n    v: int\n    next: Optional[Node] = None\ndef f(): return Node(1, Node(2))", ["assert f().next.v == 2", "assert f().next.next is None"]),
    "linked list": ("class Node:\n    def __init__(self, v, next=None): self.v, self.next = v, next\ndef build(xs):\n    head = None\n    for x in reversed(xs): head = Node(x, head)\n    return head\ndef reverse(node):\n    last = None\n    while node: node.next, last, node = last, node, node.next\n    return last", ["node, out = reverse(build([1, 2, 3])), []\nwhile node:\n    out.append(node.v)\n    node = node.next\nassert out == [3, 2, 1]", "node = build([1])\nassert node is not None and node.next is None"]),
    "nodes of the test": ("def total(node): return 0 if node is None else node.v + total(node.next)\ndef insert(node, v):\n    node.next = type(node)(v)\n    return node", ["class Node:\n    def __init__(self, v, next=None):\n        self.v, self.next = v, next\nassert total(Node(1, Node(2))) == 3"]),
    "enum": ("from enum import Enum, IntEnum, auto\nclass C(Enum):\n    RED = 1\n    BLUE = auto()\nclass N(IntEnum):\n    ONE = 1\ndef f(): return C.RED\ndef g(): return N.ONE", ["assert f() is C.RED", "assert f() == C.RED", "assert f().value == 1 and f().name == 'RED'", "assert g() == 1", "assert C(1) is C.RED", "assert [c.name for c in C] == ['RED', 'BLUE']", "assert C['BLUE'] != f()", "assert g() + 1 == 2", "assert len(C) == 2"]),
    "namedtuple": ("from collections import namedtuple\nfrom typing import NamedTuple\nP = namedtuple('P', 'x y')\nclass Q(NamedTuple):\n    a: int\n    b: str = 'b'\ndef f(): return P(1, 2)\ndef g(): return Q(1)", ["assert f() == (1, 2)", "assert f() == P(1, 2)", "assert f().x == 1 and f()[1] == 2", "x, y = f()\nassert x + y == 3", "assert g() == (1, 'b') and g().b == 'b'", "assert isinstance(f(), tuple)", "assert f()._replace(x=5) == (5, 2)", "assert [f()] == [(1, 2)]"]),
    "numbers by value": ("from fractions import Fraction\nfrom decimal import Decimal\ndef f(): return Fraction(1, 2)\ndef g(): return Decimal('1.50')\ndef h(n): return Fraction(n)", ["from fractions import Fraction\nassert f() == Fraction(1, 2)", "assert f() == 0.5", "assert f() + 1 == 1.5", "from decimal import Decimal\nassert g() == Decimal('1.5') and str(g()) == '1.50'", "assert h(3) == 3", "assert g() * 2 == 3"]),
    "dates by value": ("import datetime as d\ndef f(): return d.date(2024, 1, 2)\ndef g(x): return x + d.timedelta(days=1)\ndef h(): return d.datetime(2024, 1, 2, 3, 4, tzinfo=d.timezone.utc)", ["from datetime import date\nassert f() == date(2024, 1, 2)", "import datetime\nassert g(datetime.date(2024, 1, 31)) == datetime.date(2024, 2, 1)", "import datetime\nassert h() == datetime.datetime(2024, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)", "assert f().year == 2024 and f().isoformat() == '2024-01-02'"]),
    "range and views by value": ("def f(): return range(3)\ndef k(): return {'a': 1, 'b': 2}.keys()\ndef v(): return {'a': 1}.values()\ndef i(): return {'a': 1}.items()\ndef z(): return zip([1], [2])\ndef m(): return map(str, [1, 2])", ["assert f() == range(3)", "assert list(f()) == [0, 1, 2] and len(f()) == 3 and 2 in f()", "assert list(k()) == ['a', 'b'] and 'a' in k()", "assert k() == {'a', 'b'}", "assert list(v()) == [1]", "assert sorted(i()) == [('a', 1)]", "assert dict(i()) == {'a': 1}", "assert list(z()) == [(1, 2)]", "assert list(m()) == ['1', '2']"]),
    "collections": ("from collections import *\ndef f(): return Counter('aab')\ndef g(): return OrderedDict(a=1)\ndef h():\n    d = defaultdict(list)\n    d['x'].append(1)\n    return d\ndef q(): return deque([1, 2], maxlen=3)", ["assert f() == {'a': 2, 'b': 1}", "assert f().most_common(1) == [('a', 2)]", "assert g() == {'a': 1}", "assert h() == {'x': [1]}", "from collections import deque\nassert q() == deque([1, 2])", "assert list(q()) == [1, 2]"]),
    "subclasses of built-in types": ("class L(list):\n    def second(self): return self[1]\nclass S(str): pass\nclass D(dict):\n    def __missing__(self, k): return 7\ndef f(): return L([1, 2])\ndef g(): return S('ab')\ndef h(): return D(a=1)", ["assert f() == [1, 2]", "assert f().second() == 2", "x = f()\nx.append(3)\nassert x == [1, 2, 3] and len(x) == 3", "assert g() == 'ab' and g().upper() == 'AB' and g() in ('ab', 'cd')", "assert h() == {'a': 1} and h()['a'] == 1"]),
    "generators": ("def gen(n):\n    for i in range(n): yield i\ndef fib():\n    a, b = 0, 1\n    while True:\n        yield a\n        a, b = b, a + b\nclass Count:\n    def __init__(self, n): self.n = n\n    def __iter__(self): return self\n    def __next__(self):\n        if self.n == 0: raise StopIteration\n        self.n -= 1\n        return self.n", ["assert list(gen(3)) == [0, 1, 2]", "g = gen(2)\nassert next(g) == 0 and next(g) == 1\ntry:\n    next(g)\n    assert False\nexcept StopIteration:\n    pass", "assert next(gen(0), 'end') == 'end'", "import itertools\nassert list(itertools.islice(fib(), 5)) == [0, 1, 1, 2, 3]", "assert list(Count(3)) == [2, 1, 0]", "import types\nassert isinstance(gen(1), types.GeneratorType)", "assert sum(x for x in gen(4)) == 6", "for got, want in zip(gen(2), [0, 1], strict=True):\n    assert got == want"]),
    "closures and callbacks": ("def apply(f, x): return f(x)\ndef adder(n): return lambda x: x + n\ndef compose(*fs):\n    def run(x):\n        for f in reversed(fs): x = f(x)\n        return x\n    return run\ndef memo(f):\n    cache = {}\n    def call(x):\n        if x not in cache: cache[x] = f(x)\n        return cache[x]\n    return call", ["assert apply(lambda v: v + 1, 2) == 3", "assert adder(2)(3) == 5", "assert compose(str, abs)(-3) == '3'", "calls = []\ndef slow(x):\n    calls.append(x)\n    return x * 2\nfast = memo(slow)\nassert fast(2) == 4 and fast(2) == 4 and calls == [2]", "assert apply(len, [1, 2]) == 2", "assert apply(sorted, [2, 1]) == [1, 2]", "import math\nassert apply(math.sqrt, 4) == 2.0", "@memo\ndef square(x): return x * x\nassert square(3) == 9"]),
    "key functions": ("def best(xs, key): return max(xs, key=key)\ndef each(f, xs): return [f(x) for x in xs]", ["assert best([[1], [1, 2]], len) == [1, 2]", "assert best(['a', 'bb'], key=lambda s: len(s)) == 'bb'", "assert each(lambda x: (x, [x]), [1, 2]) == [(1, [1]), (2, [2])]", "seen = []\neach(seen.append, [1, 2])\nassert seen == [1, 2]"]),
    "asyncio": ("import asyncio\nasync def f(n):\n    await asyncio.sleep(0)\n    return n\nasync def bad(): raise ValueError('x')\nasync def gen(n):\n    for i in range(n): yield i\nclass A:\n    async def __aenter__(self): return 3\n    async def __aexit__(self, *a): return False", ["import asyncio\nassert asyncio.run(f(3)) == 3", "import asyncio\nasync def main():\n    return await f(1) + await f(2)\nassert asyncio.run(main()) == 3", "import asyncio\nasync def main():\n    return await asyncio.gather(f(1), f(2))\nassert asyncio.run(main()) == [1, 2]", "import asyncio\ntry:\n    asyncio.run(bad())\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'x'", "import asyncio\nasync def main(): return [x async for x in gen(3)]\nassert asyncio.run(main()) == [0, 1, 2]", "import asyncio\nasync def main():\n    async with A() as a: return a\nassert asyncio.run(main()) == 3", "import asyncio\nasync def test_it(): assert await f(2) == 2"]),
    "captured output": ("def hello(n):\n    print('hello', n)\n    return n", ["import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    hello(3)\nassert out.getvalue() == 'hello 3\\n'", "import io, sys\nold, sys.stdout = sys.stdout, io.StringIO()\nhello(1)\ntext = sys.stdout.getvalue()\nsys.stdout = old\nassert text.strip() == 'hello 1'", "def test_it(capsys):\n    hello(2)\n    assert capsys.readouterr().out == 'hello 2\\n'"]),
    "truth of objects": ("import re\ndef ok(s): return re.match(r'a+$', s)\nclass D: pass\ndef f(): return D()", ["assert ok('aa')", "assert not ok('b')", "assert ok('aa') is not None", "assert ok('aa').group(0) == 'aa'", "assert f()", "assert bool(ok('a')) is True"]),
    "exit and quit": ("def f(n):\n    if n < 0: exit()\n    return n\ndef g(): quit(3)", ["assert f(1) == 1", "try:\n    g()\n    assert False\nexcept SystemExit as e:\n    assert e.code == 3", "import pytest\nwith pytest.raises(SystemExit):\n    f(-1)"]),
    "names of modules": ("def copy(x): return list(x)\ndef calendar(n): return n\ndef queue(x): return x\ndef statistics(): return 3", ["l = [1]\nassert copy(l) == l", "def check(c):\n    assert c(2) == 2\ncheck(calendar)", "queue = queue([3])\nassert queue.pop() == 3", "assert statistics() == 3"]),
    "names of built-in functions": ("def sum(a, b): return a * b\ndef max(xs): return -1", ["assert sum(3, 5) == 15", "assert max([1]) == -1"]),
    "solution imported": ("def add(a, b): return a + b\nclass Bad(Exception): pass\ndef f(): raise Bad", ["from solution import add\nassert add(1, 2) == 3", "import solution\nassert solution.add(1, 2) == 3", "import solution as s\nimport pytest\ndef test_f():\n    with pytest.raises(s.Bad):\n        s.f()", "from solution import add as plus\nassert plus(1, 1) == 2", "from solution import *\nassert [add(1, 1)] == [2]", "from solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n\ndef test_more():\n    assert add(0, 0) == 0"]),
    "pytest": ("def add(a, b): return a + b\ndef bad(): raise KeyError('k')", ["import pytest\n@pytest.mark.parametrize('a, b, c', [(1, 2, 3), (0, 0, 0)])\ndef test_add(a, b, c):\n    assert add(a, b) == c", "import pytest\n@pytest.fixture\ndef one(): return 1\ndef test_add(one):\n    assert add(one, one) == 2", "import pytest\ndef test_bad():\n    with pytest.raises(KeyError) as info:\n        bad()\n    assert 'k' in str(info.value)", "import pytest\nassert add(0.1, 0.2) == pytest.approx(0.3)", "class TestAdd:\n    def test_one(self):\n        assert add(1, 1) == 2", "import pytest\n@pytest.mark.parametrize('n', [1, 2])\ndef test_n(n):\n    assert add(n, 0) == n\nif __name__ == '__main__':\n    pytest.main()"]),
    "unittest": ("def add(a, b): return a + b\ndef bad(): raise KeyError('k')", ["import unittest\nclass T(unittest.TestCase):\n    def setUp(self): self.n = 1\n    def test_add(self): self.assertEqual(add(self.n, 2), 3)\n    def test_bad(self):\n        with self.assertRaises(KeyError): bad()\n    def test_near(self): self.assertAlmostEqual(add(0.1, 0.2), 0.3)\nif __name__ == '__main__':\n    unittest.main()", "from unittest import TestCase\nclass Tests(TestCase):\n    def test(self):\n        self.assertTrue(add(1, 0))\n        self.assertIn(add(1, 1), [2])\n        self.assertListEqual([add(1, 1)], [2])\n        self.assertIsInstance(add(1, 1), int)"]),
    "bare comparisons": ("def add(a, b): return a + b", ["add(1, 2) == 3", "add(1, 2) == 3\nadd(2, 2) == 4", "add(1, 1) == 2 and add(0, 0) == 0"]),
    "check with entry point": ("def add(a, b): return a + b", {"tests": ["def check(candidate):\n    assert candidate(1, 2) == 3"], "entry_point": "add"}),
    "imports of the row": ("def half(n): return math.floor(n / 2)", {"tests": ["assert half(3) == math.floor(1.5)", "assert isclose(half(4), 2)"], "imports": ["import math", "from math import isclose"]}),
    "imports of the row and from __future__": ("from __future__ import annotations\ndef f(x: Foo) -> int: return math.floor(x)", {"tests": ["assert f(1.5) == 1"], "imports": ["import math"]}),
    "annotations": ("def f(x: int) -> str: return str(x)\ndef g(): return f.__annotations__['x'] is int", ["assert g() == True", "assert f.__name__ == 'f'", "assert f.__annotations__['return'] is str"]),
    "large values": ("def f(n): return list(range(n))\ndef g(n): return 'x' * n\ndef h(xs): return sum(xs)", ["assert f(300000)[-1] == 299999", "assert len(g(3000000)) == 3000000", "assert g(2) == 'xx'", "assert h(list(range(200000))) == 19999900000"]),
    "arguments that change": ("def sort(x): x.sort()\ndef clear(grid):\n    for row in grid: row[0] = 0\ndef same(x): return x\ndef put(d, k): d[k] = 1", ["l = [3, 1]\nsort(l)\nassert l == [1, 3]", "grid = [[1, 2], [3, 4]]\nrow = grid[0]\nclear(grid)\nassert grid == [[0, 2], [0, 4]] and row == [0, 2]", "l = [1]\nassert same(l) is l", "d = {}\nput(d, 'a')\nassert d == {'a': 1}"]),
    "helper defined by the test": ("def sieve(n): return [p for p in range(2, n) if all(p % q for q in range(2, p))]", ["def is_prime(n):\n    return n > 1 and all(n % q for q in range(2, n))\nassert all(is_prime(p) for p in sieve(30)) and len(sieve(30)) == 10"]),
    "classes that use each other": ("class Account:\n    def __init__(self, n=0): self.n = n\n    def send(self, other, n):\n        if n > self.n: raise ValueError('too much')\n        self.n -= n\n        other.n += n", ["a, b = Account(5), Account()\na.send(b, 3)\nassert (a.n, b.n) == (2, 3)", "try:\n    Account().send(Account(), 1)\n    assert False\nexcept ValueError as e:\n    assert 'much' in str(e)"]),
    "real exceptions along the order": ("class E(KeyError): pass\ndef f(): raise E('x')\ndef g(): return {}['a']\ndef h(): import json; return json.loads('{')", ["try:\n    f()\n    assert False\nexcept LookupError:\n    pass", "try:\n    g()\n    assert False\nexcept KeyError as e:\n    assert e.args == ('a',)", "import json\ntry:\n    h()\n    assert False\nexcept json.JSONDecodeError:\n    pass", "try:\n    h()\n    assert False\nexcept ValueError:\n    pass"]),
    "numpy": ("import numpy as np\ndef f(x): return int(np.sum(x))\ndef g(x): return np.array(x) * 2\ndef h(): return np.float64(1.5)\ndef i(): return np.int64(3)", ["assert f([1, 2]) == 3", "import numpy as np\nassert np.array_equal(g([1, 2]), np.array([2, 4]))", "assert h() == 1.5", "assert i() == 3", "import numpy as np\nassert np.allclose(g(np.array([0.5])), [1.0])", "assert g([1, 2]).tolist() == [2, 4]", "assert list(g([1])) == [2]"]),
    "module level state": ("count = 0\nITEMS = []\nLIMIT = 10**9 + 7\ndef add(x):\n    global count\n    count += 1\n    ITEMS.append(x)\n    return count", ["add(1)\nadd(2)\nassert add(3) == 3", "assert LIMIT == 10**9 + 7"]),
    "program that runs itself": ("def f(n): return n\nif __name__ == '__main__':\n    print(f(int(input())))", ["assert f(3) == 3"]),
    "deep recursion": ("import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)", ["assert f(4000) == 4000"]),
    "typing and pickling": ("import pickle, copy\nfrom typing import TypeVar, Generic\nT = TypeVar('T')\nclass Box(Generic[T]):\n    def __init__(self, x: T): self.x = x\n    def __eq__(self, o): return self.x == o.x\ndef f(x): return pickle.loads(pickle.dumps(Box(x))).x\ndef g(b): return copy.deepcopy(b)", ["assert f([1]) == [1]", "b = Box(1)\nassert g(b) == b and g(b) is not b", "import copy\nb = Box([1])\nc = copy.deepcopy(b)\nc.x.append(2)\nassert b.x == [1]"]),
}  # fmt: skip
SCRIPTS: dict[str, tuple[str, Any]] = {
    "quit in a branch": ("n = int(input())\nif n == 3:\n    print(n)\n    quit()\nprint(0)", [{"input": "3", "output": "3"}, {"input": "4", "output": "0"}]),
    "exit in a function": ("def main():\n    print(input())\n    exit(0)\nmain()", [{"input": "3", "output": "3"}]),
    "os.read of its input": ("import os, io\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\nprint(int(input()) * 2)", [{"input": "4\n", "output": "8\n"}]),
    "recursion in a thread": ("import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 28)\ndef main():\n    def r(n): return 0 if n == 0 else 1 + r(n - 1)\n    print(r(50000))\nt = threading.Thread(target=main); t.start(); t.join()", [{"input": "", "output": "50000"}]),
    "decimals": ("print('4.0 1e3 .50')", [{"input": "", "output": "4 1000 0.5"}]),
    "large output": ("print('\\n'.join(map(str, range(400000))))", [{"input": "", "output": "\n".join(map(str, range(400000)))}]),
    "lines of Windows": ("n = int(input())\ns = input()\nprint(s + 'x')", [{"input": "4\r\nab\r\n", "output": "abx\r\n"}]),
    "dataclass": ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nprint(P(int(input())).x)", [{"input": "4", "output": "4"}]),
    "pickle in the main module": ("import pickle\nclass A:\n    x = 1\nprint(pickle.loads(pickle.dumps(A())).x)", [{"input": "", "output": "1"}]),
    "numpy": ("import numpy as np\nprint(int(np.array(list(map(int, input().split()))).sum()))", [{"input": "1 2", "output": "3"}]),
    "reads everything": ("import sys\nprint(sum(int(x) for x in sys.stdin.buffer.read().split()))", [{"input": "1 2\n3\n", "output": "6"}]),
    "file by number": ("print(open(0).read().strip())", [{"input": "a", "output": "a"}]),
    "exit by raising": ("print(1)\nraise SystemExit", [{"input": "", "output": "1"}]),
    "several threads": ("import threading\nout = []\nts = [threading.Thread(target=out.append, args=(n,)) for n in range(4)]\nfor t in ts: t.start()\nfor t in ts: t.join()\nprint(sorted(out))", [{"input": "", "output": "[0, 1, 2, 3]"}]),
    "multiprocessing pool": ("import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'print(7)'], capture_output=True, text=True).stdout.strip())", [{"input": "", "output": "7"}]),
}  # fmt: skip
