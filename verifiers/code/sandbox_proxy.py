"""Proxies: how one process of a test sees an object of the other; runs inside the sandbox.

In the tester a proxy lets the program decide nothing that the test compares. What an object of the program says about a plain
value of the test is not asked: where its class is derived from a built-in type, the value that it has as one of that type is
used, else it equals no plain value and has no order with one. Only an object that the test made itself by calling a class of
the program, as the text of the test shows, is asked to calculate with plain values and whether it contains one.
"""

from __future__ import annotations

import _operator
import builtins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from tulu.verifiers.code.sandbox_values import OWN_TYPES, decode

OPERATORS = {
    name: getattr(_operator, name if hasattr(_operator, name) else name + "_")
    for name in (
        "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor", "matmul",
        "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "ilshift", "irshift", "iand", "ior", "ixor", "imatmul",
        "lt", "le", "gt", "ge", "eq", "ne", "neg", "pos", "invert", "getitem", "setitem", "delitem", "contains", "index",
    )
}  # fmt: skip
CALCULATIONS = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor", "matmul",
    "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "ilshift", "irshift", "iand", "ior", "ixor", "imatmul",
)  # fmt: skip
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
SINGLE = ("neg", "pos", "invert", "index", "abs", "int", "float", "complex", "round", "dir")
OPINIONS = frozenset(
    "count index rindex find rfind startswith endswith issubset issuperset isdisjoint is_relative_to match".split()
)
"""Methods by which an object would say itself whether it is what a test expects."""
CHANGES = frozenset(
    "append extend insert pop remove clear sort reverse update add discard setdefault popitem appendleft popleft rotate "
    "difference_update intersection_update symmetric_difference_update".split()
)
"""Methods that change an instance of a built-in type."""
NUMBERS_HAVE = frozenset(dir(float) + dir(int) + dir(complex))
BASES: dict[str, type] = {kind.__name__: kind for kind in OWN_TYPES}


class Proxy:
    """An object of the other process."""

    __slots__ = (
        "__weakref__", "_tulu_base", "_tulu_made", "_tulu_name", "_tulu_nature", "_tulu_number", "_tulu_peer", "_tulu_snapshot",
        "_tulu_told",
    )  # fmt: skip

    def __init__(self, peer: Any, data: list[Any]) -> None:
        _, number, name, nature, snapshot, base, _truth = data
        for slot, value in (
            ("peer", peer), ("number", number), ("name", name), ("nature", nature), ("snapshot", snapshot), ("base", base),
            ("made", False), ("told", False),
        ):  # fmt: skip
            object.__setattr__(self, "_tulu_" + slot, value)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        answer = self._tulu_peer.ask("call", self, *arguments, **keywords)
        return mark_as_made(answer) if self._tulu_made else answer

    def __getattr__(self, name: str) -> Any:
        if self._tulu_told and name in NUMBERS_HAVE:
            says(self)
        if self._tulu_peer.judges and not self._tulu_made and name not in CHANGES:
            if self._tulu_base and hasattr(BASES.get(self._tulu_base), name):
                return getattr(plain(self), name)
            if name in OPINIONS:
                raise AttributeError(f"only the program's own class says what {name} is")
        answer = self._tulu_peer.ask("get", self, name)
        if type(answer) is not Proxy or self._tulu_nature not in ("class", "module"):
            return answer
        # What a class has is the same object wherever it is seen: "C(1) is C.RED".
        answer = self._tulu_peer.proxies[answer._tulu_number]
        methods = answer._tulu_name in ("method", "function") or answer._tulu_nature == "class"
        return mark_as_made(answer) if methods and self._tulu_made else answer

    def __setattr__(self, name: str, value: Any) -> None:
        self._tulu_peer.ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._tulu_peer.ask("del", self, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        if self._tulu_base in BASES:
            return BASES[self._tulu_base]
        if self._tulu_nature in ("generator", "coroutine", "function", "module"):
            return getattr(__import__("types"), self._tulu_nature.capitalize() + "Type")
        return type if self._tulu_nature == "class" else self._tulu_peer.ask("type", self)

    def __hash__(self) -> int:
        if self._tulu_peer.judges and self._tulu_base:
            return hash(plain(self))
        return int(says(self).ask("hash", self))

    def __bool__(self) -> bool:
        if self._tulu_peer.judges and self._tulu_base and not self._tulu_made:
            return bool(plain(self))
        return says(self).ask("bool", self) is True

    def __len__(self) -> int:
        return len(plain(self)) if has_plain(self) else int(says(self).ask("len", self))

    def __iter__(self) -> Iterator[Any]:
        return iter(plain(self)) if has_plain(self) else self._tulu_peer.ask("iter", self)

    def __next__(self) -> Any:
        if self._tulu_nature == "coroutine":
            # An event loop of the test drives it in one step; its own waiting is done on the other side.
            raise StopIteration(self._tulu_peer.ask("run", self))
        return self._tulu_peer.ask("next", self)

    def __reversed__(self) -> Any:
        return reversed(plain(self)) if has_plain(self) else self._tulu_peer.ask("reversed", self)

    def __getitem__(self, key: Any) -> Any:
        return plain(self)[key] if has_plain(self) else self._tulu_peer.ask("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._tulu_peer.ask("setitem", self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._tulu_peer.ask("delitem", self, key)

    def __contains__(self, entry: Any) -> bool:
        if has_plain(self):
            return entry in plain(self)
        trusted = self._tulu_made and not self._tulu_told and self._tulu_peer.holds
        if not self._tulu_peer.judges or trusted or type(entry) is Proxy:
            return self._tulu_peer.ask("contains", self, entry) is True
        return any(entry is other or entry == other for other in self)

    def __str__(self) -> str:
        return text_of(self, "str")

    def __repr__(self) -> str:
        return text_of(self, "repr")

    def __format__(self, form: str) -> str:
        return format(plain(self), form) if has_plain(self) else text_of(self, "format", form)

    def __enter__(self) -> Any:
        return self._tulu_peer.ask("enter", self)

    def __exit__(self, kind: Any, fault: BaseException | None, trace: Any) -> bool:
        # A failed assertion is none of the program's business: it could keep it to itself.
        told = fault if isinstance(fault, Exception) and not isinstance(fault, AssertionError) else None
        silent = self._tulu_peer.ask("exit", self, told) is True
        return silent and told is not None

    def __await__(self) -> Iterator[Any]:
        return finished(self._tulu_peer.ask("run", self))

    def __aiter__(self) -> Any:
        return self._tulu_peer.ask("aiter", self)

    async def __anext__(self) -> Any:
        return self._tulu_peer.ask("run_method", self, "__anext__")

    async def __aenter__(self) -> Any:
        return self._tulu_peer.ask("run_method", self, "__aenter__")

    async def __aexit__(self, kind: Any, fault: BaseException | None, trace: Any) -> bool:
        told = fault if isinstance(fault, Exception) and not isinstance(fault, AssertionError) else None
        return self._tulu_peer.ask("run_method", self, "__aexit__", None, told, None) is True and told is not None

    def __instancecheck__(self, value: Any) -> bool:
        if type(value) is not Proxy and not is_mirror(value):
            return False
        return self._tulu_peer.ask("isinstance", value, self) is True

    def __subclasscheck__(self, kind: Any) -> bool:
        return type(kind) is Proxy and self._tulu_peer.ask("issubclass", kind, self) is True

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._tulu_peer.derived,)

    def __copy__(self) -> Any:
        return self._tulu_peer.ask("copy", self)

    def __deepcopy__(self, _memory: Any) -> Any:
        return self._tulu_peer.ask("deepcopy", self)

    def __round__(self, digits: Any = None) -> Any:
        return round(plain(self), digits) if has_plain(self) else says(self).ask("round", self, digits)


def finished(value: Any) -> Iterator[Any]:
    """An awaitable's iterator that is at its end at once."""
    yield from ()
    return value


def is_mirror(value: Any) -> bool:
    """Whether a value is an exception of the program as the tester sees it, or its class."""
    if type(value) is Proxy:
        return False
    kind = value if type(value) is type else type(value)
    return issubclass(kind, BaseException) and hasattr(value, "_tulu_lent")


def text_of(proxy: Proxy, action: str, *arguments: Any) -> str:
    """A text that the program gives, as a text of exactly that type."""
    text = proxy._tulu_peer.ask(action, proxy, *arguments)
    if type(text) is not str:
        raise TypeError("no text")
    return text


def mark_as_made(value: Any) -> Any:
    """Notes that the test itself made an object, by calling a class of the program."""
    if type(value) is Proxy:
        value = value._tulu_peer.proxies[value._tulu_number]
        object.__setattr__(value, "_tulu_made", True)
    return value


def has_plain(proxy: Proxy) -> bool:
    """Whether the tester uses the plain value of an object instead of asking it."""
    return bool(proxy._tulu_peer.judges and proxy._tulu_base and not proxy._tulu_made)


def plain(proxy: Proxy) -> Any:
    """The value that an object has as one of the built-in type that its class is derived from."""
    if proxy._tulu_base in ("list", "dict", "set", "deque", "bytearray"):
        return proxy._tulu_peer.ask("base", proxy)
    return decode(proxy._tulu_snapshot, proxy._tulu_peer.resolve)


def as_told(answer: Any) -> Proxy:
    """The result of a calculation with a plain value, which may have been the expected one: the program says no value of it."""
    if type(answer) is not Proxy:
        raise TypeError("only the program's own class says what comes of a plain value")
    parts = (answer._tulu_number, answer._tulu_name, answer._tulu_nature, answer._tulu_snapshot, "")
    told = Proxy(answer._tulu_peer, ["r", *parts, None])
    object.__setattr__(told, "_tulu_made", True)
    object.__setattr__(told, "_tulu_told", True)
    return told


def says(proxy: Proxy) -> Any:
    """The peer of an object that may be asked for a plain value; TypeError for one that knows what is expected."""
    if proxy._tulu_told:
        raise TypeError("only the program's own class says what comes of a plain value")
    return proxy._tulu_peer


def calculate(proxy: Proxy, action: str, other: Any, reflected: bool) -> Any:
    """What an operator gives; asks the program only where that cannot decide a comparison with a plain value."""
    peer = proxy._tulu_peer
    both = type(other) is Proxy or is_mirror(other)
    compares = action in COMPARISONS
    if peer.judges and not both and (compares or not proxy._tulu_made):
        if proxy._tulu_base:
            mine = plain(proxy)
            return OPERATORS[action](other, mine) if reflected else OPERATORS[action](mine, other)
        if action in ("eq", "ne"):
            # A class of the test may have an opinion, such as one that equals everything near a number.
            return NotImplemented if type(other).__module__ in ("__main__", "unittest.mock") else action == "ne"
        raise TypeError("only the program's own class could tell")
    answer = peer.ask(action, other, proxy) if reflected else peer.ask(action, proxy, other)
    if compares:
        return answer if type(answer) is bool or type(answer) is Proxy else bool(answer)
    if peer.judges and (not both or proxy._tulu_told or getattr(other, "_tulu_told", False)):
        return as_told(answer)
    return mark_as_made(answer) if proxy._tulu_made and (not both or getattr(other, "_tulu_made", False)) else answer


def operator_method(action: str, reflected: bool = False) -> Callable[[Proxy, Any], Any]:
    """The method of Proxy for an operator on two objects."""
    return lambda self, other: calculate(self, action, other, reflected)


def single_method(action: str) -> Callable[[Proxy], Any]:
    """The method of Proxy for an operator on one object."""

    def method(self: Proxy) -> Any:
        if has_plain(self):
            value = plain(self)
            return OPERATORS[action](value) if action in OPERATORS else getattr(builtins, action)(value)
        if self._tulu_told:
            return as_told(self._tulu_peer.ask(action, self))
        answer = self._tulu_peer.ask(action, self)
        return mark_as_made(answer) if self._tulu_made else answer

    return method


for _action in (*CALCULATIONS, *COMPARISONS):
    setattr(Proxy, f"__{_action}__", operator_method(_action))
for _action in CALCULATIONS[:13]:
    setattr(Proxy, f"__r{_action}__", operator_method(_action, reflected=True))
for _action in SINGLE:
    if _action != "round":
        setattr(Proxy, f"__{_action}__", single_method(_action))
