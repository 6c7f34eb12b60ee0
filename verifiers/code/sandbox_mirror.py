"""Exceptions of the program as the tester raises and catches them: by their real class; runs inside the sandbox.

An exception class of the program becomes a class of the tester that is derived from the same ones of Python's own, so that
`except` catches it as it would, and not by its name. What else it holds is asked of the program.
"""

from __future__ import annotations

import builtins
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from tulu.verifiers.code.sandbox_channel import TimeLimit
    from tulu.verifiers.code.sandbox_values import decode


def mirror_class(peer: Any, tree: list[Any]) -> type[BaseException]:
    """The class by which the tester catches a class of exceptions of the program: one of Python's own, or derived from such."""
    if tree[0] == "b":
        kind = getattr(builtins, str(tree[1]), None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            return kind
        raise ValueError("no exception")
    _, number, name, module, trees = tree
    known = (
        vars(sys.modules.get(module)).get(name)
        if module in sys.modules and module.split(".")[0] in sys.stdlib_module_names
        else None
    )
    if isinstance(known, type) and issubclass(known, BaseException):
        # The test imported the module, so the class is Python's own on both sides.
        return known
    if ("class", number) not in peer.proxies:
        bases = tuple(mirror_class(peer, base) for base in trees) or (Exception,)
        space = {"__init__": mirror_init, "__str__": mirror_text, "_tulu_lent": number, "_tulu_peer": peer}
        space["__getattr__"] = mirror_get
        try:
            made = type(str(name), bases, space)
        except TypeError:
            made = type(str(name), bases[:1], space)
        peer.proxies[("class", number)] = made
    return peer.proxies[("class", number)]


def mirror_init(fault: Any, *arguments: Any, **keywords: Any) -> None:
    """Makes the exception of the program where a test makes one."""
    # Before it has a number of its own, it stands for its class.
    made = fault._tulu_peer.ask("call", fault, *arguments, **keywords)
    vars(fault).update(_tulu_lent=made._tulu_number, _tulu_text=str(made))


def mirror_text(fault: Any) -> str:
    return str(vars(fault).get("_tulu_text", ""))


def mirror_get(fault: Any, name: str) -> Any:
    if name.startswith(("_tulu", "__")):
        raise AttributeError(name)
    return fault._tulu_peer.ask("get", fault, name)


def mirror(peer: Any, error: list[Any]) -> BaseException:
    """The exception that the tester raises for one that the program raised."""
    tree, text, arguments, number = error
    kind, values = mirror_class(peer, tree), tuple(decode(arguments, peer.resolve))
    if hasattr(kind, "_tulu_lent"):
        fault: Any = kind.__new__(kind, *values)
        vars(fault).update(_tulu_lent=number, _tulu_text=text)
        fault.args = values
        return fault
    try:
        return kind(*values)
    # A class may want other arguments than the exception keeps.
    except Exception:  # noqa: BLE001
        return kind.__new__(kind)


def raise_error(peer: Any, action: str, error: Any) -> NoReturn:
    """Raises what the other side raised, as far as it says so in the form of an exception."""
    if not isinstance(error, list) or len(error) != 4:
        raise TimeLimit
    fault = mirror(peer, error)
    if isinstance(fault, (StopIteration, StopAsyncIteration)) and action == "call" and peer.judges and not peer.stops:
        # Within map() or zip() of a test it would end the comparison early.
        raise RuntimeError("the program raised StopIteration")
    raise fault
