"""What runs inside the sandbox, as bytecode: it imports built-in modules only, since nothing of the package is there.

Every import costs every program time, so that json, signal and collections are not used.

Roles: `program` holds the untrusted program and answers calls; `tester` runs trusted test code in which every name of the
program is a proxy, so that the program and the expected values are never in one process; `script` runs a program on its stdin.
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

    # Inside, both files run as one module, and there is nothing to import this from.
    from tulu.verifiers.code.sandbox_values import Unsendable, as_json, decode, encode

LONGEST_LINE = 1 << 20


class TimeLimit(BaseException):
    """The time for one test is over."""


class Channel:
    """Messages from the parent by marshal; messages to the parent as lines of JSON, which can be nothing but data."""

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
        if len(data) > LONGEST_LINE:
            data = b'{"error": ["ValueError", "too large a value"]}\n'
        while data:
            data = data[os.write(self.target, data) :]


def limit(limits: dict[str, int]) -> None:
    """Sets hard limits, which only a privileged process could raise again."""
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
    """Starts the clocks of one test, or stops them at 0; they strike again and again, should a program catch the exception."""
    signal.setitimer(signal.ITIMER_REAL, wall, 0.2 if wall else 0)
    signal.setitimer(signal.ITIMER_PROF, cpu, 0.2 if cpu else 0)


def run_timed(command: dict[str, Any], function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function, or the error that ended it."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGPROF, on_alarm)
    try:
        arm(command["cpu"], command["wall"])
        try:
            return function(*arguments)
        finally:
            arm(0, 0)
    # A program may raise anything, also SystemExit and exceptions that cannot be printed.
    except BaseException as fault:  # noqa: BLE001
        arm(0, 0)
        return {"error": [type(fault).__name__, message_of(fault)]}


def message_of(fault: BaseException) -> str:
    """The message of an exception; its __str__ may be the program's code, and fail."""
    try:
        return str(fault)[:300]
    except BaseException:  # noqa: BLE001
        return ""


class Program:
    """The untrusted program, loaded into one namespace, and the objects that it has given references to."""

    def __init__(self) -> None:
        self.space: dict[str, Any] = {"__name__": "solution", "__builtins__": builtins}
        self.objects: list[Any] = []

    def refer(self, value: Any) -> Any:
        self.objects.append(value)
        return ["r", len(self.objects) - 1, type(value).__name__]

    def value(self, result: Any) -> dict[str, Any]:
        return {"value": encode(result, self.refer)}

    def resolve(self, reference: list[Any]) -> Any:
        return self.objects[reference[0]]

    def load(self, command: dict[str, Any]) -> dict[str, Any]:
        exec(compile(command["source"], "solution.py", "exec"), self.space)
        return {"value": None}

    def evaluate(self, command: dict[str, Any]) -> dict[str, Any]:
        for name in command["modules"]:
            if name not in self.space:
                self.space[name] = __import__(name)
        return self.value(eval(compile(command["source"], "test", "eval"), self.space))

    def invoke(self, command: dict[str, Any]) -> dict[str, Any]:
        """Calls a name or a referenced object, or reads an attribute of it; also returns which arguments a call changed."""
        target = self.objects[command["ref"]] if "ref" in command else self.space[command["name"]]
        if "attribute" in command:
            return self.value(getattr(target, command["attribute"]))
        arguments = decode(command["arguments"], self.resolve)
        before = [encode(entry, self.refer) for entry in arguments]
        result = target(*arguments, **decode(command["keywords"], self.resolve))
        after = [encode(entry, self.refer) for entry in arguments]
        changed = [
            [index, new] for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new and new[0] != "r"
        ]
        return {**self.value(result), "changed": changed}

    def test(self, command: dict[str, Any]) -> dict[str, Any]:
        """Runs a test that cannot be taken apart inside the program's own process, the weakest way to run one."""
        exec(compile(command["source"], "test", "exec"), dict(self.space))
        return {"value": command["nonce"]}


def serve(channel: Channel) -> None:
    """Answers load, evaluate, invoke and test until the parent closes the pipe."""
    program = Program()
    operations = {"load": program.load, "evaluate": program.evaluate, "invoke": program.invoke, "test": program.test}
    while True:
        command = channel.receive()
        channel.send(run_timed(command, operations[command["op"]], command))


class Proxy:
    """A name or an object of the program, as the tester sees it; it equals nothing but itself."""

    def __init__(self, channel: Channel, target: dict[str, Any]) -> None:
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_target", target)

    def _request(self, **command: Any) -> dict[str, Any]:
        self._channel.send({"rpc": {**self._target, **command}})
        answer: dict[str, Any] = self._channel.receive()
        if "error" in answer:
            name, text = answer["error"]
            kind = getattr(builtins, str(name), None)
            if name == "TimeLimit":
                raise TimeLimit
            raise (kind if isinstance(kind, type) and issubclass(kind, Exception) else RuntimeError)(text)
        return answer

    def _resolve(self, reference: list[Any]) -> Proxy:
        return Proxy(self._channel, {"ref": reference[0]})

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        answer = self._request(arguments=encode(list(arguments), refer_back), keywords=encode(keywords, refer_back))
        for index, new in answer.get("changed", ()):
            changed, argument = decode(new, self._resolve), arguments[index]
            if isinstance(argument, list):
                argument[:] = changed
            elif isinstance(argument, (dict, set)):
                argument.clear()
                argument.update(changed)
        return decode(answer["value"], self._resolve)

    def __getattr__(self, name: str) -> Any:
        return decode(self._request(attribute=name)["value"], self._resolve)

    def __iter__(self) -> Iterator[Any]:
        get_next = self.__getattr__("__iter__")().__getattr__("__next__")
        while True:
            try:
                yield get_next()
            except (StopIteration, RuntimeError):
                return

    def __len__(self) -> int:
        return int(self.__getattr__("__len__")())

    def __getitem__(self, key: Any) -> Any:
        return self.__getattr__("__getitem__")(key)

    def __str__(self) -> str:
        return str(self.__getattr__("__str__")())


def refer_back(value: Any) -> Any:
    """The reference of an object that came from the program; Unsendable for any other object."""
    if type(value) is Proxy and "ref" in value._target:
        return ["r", value._target["ref"], ""]
    raise Unsendable(type(value).__name__)


def serve_tests(channel: Channel) -> None:
    """Runs pieces of test code in which the given names of the program are proxies; answers whether each passed."""
    while True:
        command = channel.receive()
        space = {"__name__": "test", "__builtins__": builtins}
        for name in command["names"]:
            space[name] = Proxy(channel, {"name": name})
        for name in command["modules"]:
            space[name] = __import__(name)
        channel.send({"done": run_timed(command, run_test, command["source"], space)})


def run_test(source: str, space: dict[str, Any]) -> dict[str, Any]:
    """Runs test code to its end, which is what passing means."""
    exec(compile(source, "test", "exec"), space)
    return {"value": True}


def run_script(program: dict[str, Any]) -> None:
    """Runs a program as a user would: as the main module, with its standard input and output."""
    # There is no handler here, so the clocks end the process whatever it does.
    arm(program["cpu"], program["wall"])
    space = sys.modules["__main__"].__dict__
    exec(compile(program["source"], "solution.py", "exec"), space)


def main() -> None:
    role, source, target, *numbers = sys.argv[1], *(int(argument) for argument in sys.argv[2:])
    limits = dict(zip(("cpu", "memory", "processes", "file", "user"), numbers, strict=True))
    limit(limits)
    if limits["user"]:
        # Root made the namespaces; from here on this process is a user without rights.
        os.setgroups([])
        os.setresgid(limits["user"], limits["user"], limits["user"])
        os.setresuid(limits["user"], limits["user"], limits["user"])
    sys.setrecursionlimit(5000)
    channel = Channel(source, target)
    if role == "script":
        program = channel.receive()
        channel.source.close()
        os.close(target)
        run_script(program)
        return
    # Standard input is empty here, and what a program prints is dropped.
    if role == "tester":
        serve_tests(channel)
    else:
        serve(channel)


if __name__ == "__main__":
    main()
