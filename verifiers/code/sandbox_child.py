"""What runs inside the sandbox, given to the interpreter as bytecode: built-in modules only, and nothing of ours is importable.

Every import here is paid for by every program, so json, signal and collections are done without.

Roles: `program` holds the untrusted program and answers calls; `tester` runs trusted test code in which every name of the
program is a proxy, so that program and expected values are never in one process; `script` runs a program on its stdin.
"""

from __future__ import annotations

import _signal as signal
import builtins
import marshal
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any, NoReturn

    # Both files run as one module inside, where nothing of ours can be imported.
    from tulu.verifiers.code.sandbox_values import Unsendable, as_json, decode, encode

LINE = 1 << 20


class TimeLimit(BaseException):
    """The time for one test is over."""


class Channel:
    """Marshalled messages in, which come from the parent; JSON lines out, which it can trust to be no more than data."""

    def __init__(self, source: int, target: int) -> None:
        self.source = os.fdopen(source, "rb", buffering=1 << 16)
        self.target = target

    def receive(self) -> Any:
        header = self.source.read(4)
        if len(header) < 4:
            os._exit(0)
        return marshal.loads(self.source.read(int.from_bytes(header, "little")))

    def send(self, message: Any) -> None:
        data = as_json(message).encode() + b"\n"
        if len(data) > LINE:
            data = b'{"error": ["ValueError", "too large a value"]}\n'
        while data:
            data = data[os.write(self.target, data) :]


def limit(limits: dict[str, int]) -> None:
    """Hard limits, which only a privileged process could raise again."""
    for name, value in (
        ("RLIMIT_AS", limits["memory"]),
        ("RLIMIT_FSIZE", limits["file"]),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", limits["processes"]),
        ("RLIMIT_CPU", limits["cpu"]),
    ):
        if value is not None:
            resource.setrlimit(getattr(resource, name), (value, value))


def on_alarm(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TimeLimit


def arm(cpu: float, wall: float) -> None:
    """Starts the clocks of one test, or stops them; they strike again, should a program swallow the first."""
    signal.setitimer(signal.ITIMER_REAL, wall, 0.2 if wall else 0)
    signal.setitimer(signal.ITIMER_PROF, cpu, 0.2 if cpu else 0)


def timed(command: dict[str, Any], function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function, or the error that ended it."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGPROF, on_alarm)
    try:
        arm(command["cpu"], command["wall"])
        try:
            return function(*arguments)
        finally:
            arm(0, 0)
    # A program may raise anything, SystemExit and exceptions that cannot be printed included.
    except BaseException as fault:  # noqa: BLE001
        arm(0, 0)
        return {"error": [type(fault).__name__, text_of(fault)]}


def text_of(fault: BaseException) -> str:
    """What an exception says, which is the program's own code."""
    try:
        return str(fault)[:300]
    except BaseException:  # noqa: BLE001
        return ""


class Program:
    """The untrusted program, loaded into one namespace, and the objects it handed out."""

    def __init__(self) -> None:
        self.space: dict[str, Any] = {"__name__": "solution", "__builtins__": builtins}
        self.objects: list[Any] = []

    def refer(self, value: Any) -> Any:
        self.objects.append(value)
        return ["r", len(self.objects) - 1, type(value).__name__]

    def value(self, result: Any) -> dict[str, Any]:
        return {"value": encode(result, self.refer)}

    def resolve(self, rest: list[Any]) -> Any:
        return self.objects[rest[0]]

    def load(self, command: dict[str, Any]) -> dict[str, Any]:
        exec(compile(command["source"], "solution.py", "exec"), self.space)
        return {"value": None}

    def evaluate(self, command: dict[str, Any]) -> dict[str, Any]:
        for name in command["modules"]:
            if name not in self.space:
                self.space[name] = __import__(name)
        return self.value(eval(compile(command["source"], "test", "eval"), self.space))

    def invoke(self, command: dict[str, Any]) -> dict[str, Any]:
        """Calls or reads a name or an object handed out before; says which arguments the call changed."""
        target = self.objects[command["ref"]] if "ref" in command else self.space[command["name"]]
        if "attribute" in command:
            return self.value(getattr(target, command["attribute"]))
        arguments = decode(command["arguments"], self.resolve)
        before = [encode(entry, self.refer) for entry in arguments]
        result = target(*arguments, **decode(command["keywords"], self.resolve))
        after = [encode(entry, self.refer) for entry in arguments]
        changed = [[at, new] for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new and new[0] != "r"]
        return {**self.value(result), "changed": changed}

    def test(self, command: dict[str, Any]) -> dict[str, Any]:
        """A test that cannot be taken apart, in the program's own process: the weaker class."""
        exec(compile(command["source"], "test", "exec"), dict(self.space))
        return {"value": command["nonce"]}


def serve(channel: Channel) -> None:
    """Answers load, evaluate, invoke and test until the parent hangs up."""
    program = Program()
    operations = {"load": program.load, "evaluate": program.evaluate, "invoke": program.invoke, "test": program.test}
    while True:
        command = channel.receive()
        channel.send(timed(command, operations[command["op"]], command))


class Remote:
    """A name or an object of the program, seen from the tester; equal to nothing but itself."""

    def __init__(self, channel: Channel, target: dict[str, Any]) -> None:
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_target", target)

    def _ask(self, **command: Any) -> dict[str, Any]:
        self._channel.send({"rpc": {**self._target, **command}})
        answer: dict[str, Any] = self._channel.receive()
        if "error" in answer:
            name, text = answer["error"]
            kind = getattr(builtins, str(name), None)
            if name == "TimeLimit":
                raise TimeLimit
            raise (kind if isinstance(kind, type) and issubclass(kind, Exception) else RuntimeError)(text)
        return answer

    def _resolve(self, rest: list[Any]) -> Remote:
        return Remote(self._channel, {"ref": rest[0]})

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        answer = self._ask(arguments=encode(list(arguments), refuse), keywords=encode(keywords, refuse))
        for at, new in answer.get("changed", ()):
            changed, own = decode(new, self._resolve), arguments[at]
            if isinstance(own, list):
                own[:] = changed
            elif isinstance(own, (dict, set)):
                own.clear()
                own.update(changed)
        return decode(answer["value"], self._resolve)

    def __getattr__(self, name: str) -> Any:
        return decode(self._ask(attribute=name)["value"], self._resolve)

    def __iter__(self) -> Iterator[Any]:
        following = self.__getattr__("__iter__")().__getattr__("__next__")
        while True:
            try:
                yield following()
            except (StopIteration, RuntimeError):
                return

    def __len__(self) -> int:
        return int(self.__getattr__("__len__")())

    def __getitem__(self, key: Any) -> Any:
        return self.__getattr__("__getitem__")(key)

    def __str__(self) -> str:
        return str(self.__getattr__("__str__")())


def refuse(value: Any) -> Any:
    """References go back to where they came from; nothing else without a plain form can be sent."""
    if type(value) is Remote and "ref" in value._target:
        return ["r", value._target["ref"], ""]
    raise Unsendable(type(value).__name__)


def try_test(channel: Channel) -> None:
    """Runs one piece of test code in which the named program names are proxies; answers whether it passed."""
    while True:
        command = channel.receive()
        space = {"__name__": "test", "__builtins__": builtins}
        for name in command["names"]:
            space[name] = Remote(channel, {"name": name})
        for name in command["modules"]:
            space[name] = __import__(name)
        channel.send({"done": timed(command, passed, command["source"], space)})


def passed(source: str, space: dict[str, Any]) -> dict[str, Any]:
    """Runs test code to its end."""
    exec(compile(source, "test", "exec"), space)
    return {"value": True}


def script(program: dict[str, Any]) -> None:
    """Runs a program as a user would: its own main module, standard input and output."""
    # Without a handler the clocks end the process, whatever it does.
    arm(program["cpu"], program["wall"])
    space = sys.modules["__main__"].__dict__
    exec(compile(program["source"], "solution.py", "exec"), space)


def main() -> None:
    role, source, target, *numbers = sys.argv[1], *(int(argument) for argument in sys.argv[2:])
    limits = dict(zip(("cpu", "memory", "processes", "file", "user"), numbers, strict=True))
    limit(limits)
    if limits["user"]:
        # The namespaces were made by root; from here on this is a user with no rights at all.
        os.setgroups([])
        os.setresgid(limits["user"], limits["user"], limits["user"])
        os.setresuid(limits["user"], limits["user"], limits["user"])
    sys.setrecursionlimit(5000)
    channel = Channel(source, target)
    if role == "script":
        program = channel.receive()
        channel.source.close()
        os.close(target)
        script(program)
        return
    # Programs that read from standard input get none, what they print goes nowhere.
    if role == "tester":
        try_test(channel)
    else:
        serve(channel)


if __name__ == "__main__":
    main()
