"""Asking the other process of a test for an operation on one of its objects, and answering; runs inside the sandbox.

The tester and the program each hold proxies for the other's objects. Every operation on a proxy is a message, and only one side
runs at a time. The parent carries the messages from one sandbox to the other.
"""

from __future__ import annotations

import builtins
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tulu.verifiers.code.sandbox_channel import Channel, message_of
    from tulu.verifiers.code.sandbox_derive import Derived, derive
    from tulu.verifiers.code.sandbox_mirror import mirror_class, raise_error
    from tulu.verifiers.code.sandbox_proxy import OPERATORS, Proxy, is_mirror
    from tulu.verifiers.code.sandbox_values import OWN_TYPES, base_of, base_value, decode, encode

BUILTINS = dict(vars(builtins))
"""The built-in names before a program could replace any."""
ACTIONS: dict[str, Callable[..., Any]] = {
    **OPERATORS,
    "get": getattr, "set": setattr, "del": delattr, "isinstance": isinstance, "issubclass": issubclass, "type": type,
    "iter": iter, "next": next, "reversed": reversed, "len": len, "bool": bool, "str": str, "repr": repr, "format": format,
    "hash": hash, "int": int, "float": float, "complex": complex, "abs": abs, "round": round, "divmod": divmod, "dir": dir,
    "callable": callable, "super": super, "call": lambda target, *arguments, **keywords: target(*arguments, **keywords),
    "base": lambda value: base_value(value, base_of(value) or object),
    "enter": lambda value: type(value).__enter__(value),
    "exit": lambda value, fault: type(value).__exit__(value, *((type(fault), fault, None) if fault is not None else (None,) * 3)),
    "copy": lambda value: __import__("copy").copy(value),
    "deepcopy": lambda value: __import__("copy").deepcopy(value),
    "run": lambda value: run_awaitable(type(value).__await__ and value),
    "aiter": lambda value: value.__aiter__(),
    "subclass": lambda name, bases, members: derive(name, tuple(bases), members),
    "run_method": lambda value, name, *arguments: run_awaitable(getattr(value, name)(*arguments)),
}  # fmt: skip


LOOPS: list[Any] = []
"""The event loop of this process, once one was needed."""


def run_awaitable(value: Any) -> Any:
    """Runs something that can be awaited to its end, in an event loop that lives as long as the process."""
    if not LOOPS:
        LOOPS.append(__import__("asyncio").new_event_loop())

    async def wait() -> Any:
        return await value

    return LOOPS[0].run_until_complete(wait())


class Peer:
    """One side of the conversation: the objects that it has lent, and the proxies of those that it has borrowed."""

    def __init__(self, channel: Channel, judges: bool) -> None:
        self.channel = channel
        self.judges = judges
        """Whether this is the tester, which lets the program decide nothing and lends it nothing but what a test hands over."""
        self.allowed: Callable[[str, Any, tuple[Any, ...]], bool] = lambda _action, _target, _arguments: True
        self.derived = Derived
        self.holds = True
        """Whether objects that a test made may say what they contain."""
        self.stops = True
        """Whether a call may raise StopIteration, which ends the loops of a test."""
        self.broken = False
        """Whether an assertion failed in code of the test that the program called, and may have silenced."""
        self.classes: tuple[str, ...] = ()
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.proxies: dict[Any, Any] = {}

    def refer(self, value: Any) -> Any:
        """The reference of an object: by name where the other side has the same, else by number."""
        if type(value) is Proxy:
            return ["o", value._tulu_number]
        lent = getattr(value, "_tulu_lent", None) if self.judges and is_mirror(value) else None
        if lent is not None:
            return ["o", lent]
        name = str(getattr(value, "__name__", ""))
        if isinstance(value, type) and (value in OWN_TYPES or (self.judges and BUILTINS.get(name) is value)):
            return ["T", name]
        module = getattr(value, "__self__", None)
        if self.judges and type(value) is type(len) and isinstance(module, type(sys)):
            return ["M", module.__name__, name]
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["e", self.tree(value)]
        if self.judges and isinstance(value, Exception) and BUILTINS.get(type(value).__name__) is type(value):
            return ["E", type(value).__name__, encode(list(value.args), self.refer)]
        base, kind = base_of(value), type(value)
        snapshot = None if base is None else encode(base_value(value, base), self.refer)
        # Where no class of the program says whether its objects are true, they are.
        truth = not any("__bool__" in vars(part) or "__len__" in vars(part) for part in kind.__mro__) or None
        return ["r", self.number(value), kind.__name__, nature(value), snapshot, base.__name__ if base else "", truth]

    def number(self, value: Any) -> int:
        """The number of an object, the same for the same object."""
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self.numbers[id(value)]

    def tree(self, kind: type) -> Any:
        """An exception class and what it is derived from, down to the classes that Python has itself."""
        if BUILTINS.get(kind.__name__) is kind:
            return ["b", kind.__name__]
        number = self.number(kind)
        return ["c", number, kind.__name__, kind.__module__, [self.tree(base) for base in kind.__bases__ if base is not object]]

    def resolve(self, data: list[Any]) -> Any:
        """The object of a reference."""
        tag = data[0]
        if tag == "r":
            number = data[1]
            if number not in self.proxies:
                self.proxies[number] = Proxy(self, data)
            elif self.proxies[number]._tulu_made and data[3] != "class":
                # Only where the test itself makes an object is it trusted more; as a result it is one like any other.
                return self.proxies.setdefault(("result", number), Proxy(self, data))
            return self.proxies[number]
        if tag == "o":
            return self.objects[data[1]]
        if tag == "e":
            return mirror_class(self, data[1])
        if tag == "T":
            kind = BUILTINS.get(data[1], type(None))
            if self.judges and kind not in OWN_TYPES:
                raise ValueError("no type to give back")
            return kind
        if tag == "E" and not self.judges:
            return BUILTINS[data[1]](*decode(data[2], self.resolve))
        if tag == "M" and not self.judges:
            return getattr(__import__(data[1], fromlist=["*"]), data[2])
        raise ValueError("no reference")

    def ask(self, action: str, *arguments: Any, **keywords: Any) -> Any:
        """What the other side answers to an action on its objects; raises what that raised."""
        request = {"ask": action, "arguments": encode(list(arguments), self.refer), "keywords": encode(keywords, self.refer)}
        self.channel.send(request)
        answer = self.channel.receive()
        while "ask" in answer:
            self.channel.send(self.answer(answer))
            answer = self.channel.receive()
        if answer.get("printed"):
            sys.stdout.write(str(answer["printed"]))
        for index, new in answer.get("changed", ()):
            merge(arguments[index], decode(new, self.resolve))
        if "error" in answer:
            raise_error(self, action, answer["error"])
        return arguments[answer["same"]] if "same" in answer else decode(answer["value"], self.resolve)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to the other side's request: the value, and which of the arguments the action changed."""
        changed: list[Any] = []
        try:
            action = request["ask"]
            arguments = decode(request["arguments"], self.resolve)
            if arguments and not self.allowed(action, arguments[0], tuple(arguments[1:])):
                raise TypeError("a test does not lend this")
            before = [encode(entry, self.refer) for entry in arguments]
            try:
                result = ACTIONS[action](*arguments, **decode(request["keywords"], self.resolve))
            finally:
                after = [encode(entry, self.refer) for entry in arguments]
                changed = [
                    [at, new] for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new and new[0] != "r"
                ]
            same = [at for at, entry in enumerate(arguments) if entry is result and type(entry) in (list, dict, set)]
            return {"same": same[0], "changed": changed} if same else {"value": encode(result, self.refer), "changed": changed}
        # A program may raise anything, also SystemExit and exceptions that cannot be printed.
        except Exception as fault:  # noqa: BLE001
            return {"error": self.error_of(fault), "changed": changed}
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as fault:
            return {"error": self.error_of(fault), "changed": changed}

    def error_of(self, fault: BaseException) -> list[Any]:
        """An exception as a message: its class, its text, its arguments where they are plain, and its number."""
        if self.judges and isinstance(fault, AssertionError):
            self.broken = True
        try:
            arguments = encode(list(fault.args), self.refer)
        except Exception:  # noqa: BLE001
            arguments = ["l", []]
        lent = getattr(fault, "_tulu_lent", None)
        return [self.tree(type(fault)), message_of(fault), arguments, self.number(fault) if lent is None else lent]


def nature(value: Any) -> str:
    """What kind of object a value is, where a test can tell: a class, a generator, or something to await."""
    if isinstance(value, type):
        return "class"
    name = type(value).__name__
    return name if name in ("generator", "coroutine", "function", "module") else ""


def merge(old: Any, new: Any) -> None:
    """Changes a container to what it is on the other side, and those inside it in place where they still are of one type."""
    if isinstance(old, list) and isinstance(new, list):
        for at, (kept, other) in enumerate(zip(old, new, strict=False)):
            if type(kept) is type(other) and isinstance(kept, (list, dict, set)):
                merge(kept, other)
            else:
                old[at] = other
        old[len(new) :] = new[len(old) :]
    elif isinstance(old, dict):
        for key in [key for key in old if key not in new]:
            del old[key]
        for key, other in new.items():
            if key in old and type(old[key]) is type(other) and isinstance(other, (list, dict, set)):
                merge(old[key], other)
            else:
                old[key] = other
    elif hasattr(old, "clear"):
        old.clear()
        old.extend(new) if hasattr(old, "extend") else old.update(new)
