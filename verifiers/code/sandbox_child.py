"""What runs inside the sandbox, as bytecode: it imports built-in modules only, since nothing of the package is there.

Every import costs every program time, so that json, signal and collections are not used.

Roles: `program` holds the untrusted program and answers what is asked of its objects; `tester` runs trusted test code in which
every name of the program is a proxy, so that the program and the expected values are never in one process; `script` runs a
program on its standard input.
"""

from __future__ import annotations

import builtins
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    # Inside, all files run as one module, and there is nothing to import this from.
    from tulu.verifiers.code.sandbox_channel import Channel, arm, message_of, run_timed
    from tulu.verifiers.code.sandbox_peer import ACTIONS, Peer
    from tulu.verifiers.code.sandbox_tester import serve_tests

MOST_PRINTED = 4 << 20
"""Characters of what the program prints that a test may read."""


def limit(limits: dict[str, int]) -> None:
    """Sets hard limits, which only a privileged process could raise again."""
    for name, value in (
        ("RLIMIT_AS", limits["memory"]),
        ("RLIMIT_FSIZE", limits["file"]),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", limits["processes"]),
        ("RLIMIT_CPU", limits["cpu"]),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_MEMLOCK", 0),
    ):
        resource.setrlimit(getattr(resource, name), (value, value))


def leave(code: Any = None) -> NoReturn:
    """`exit()` and `quit()`, which Python itself only has with its site module."""
    raise SystemExit(code)


def module(name: str) -> Any:
    """A new module under which a program runs, so that it sees nothing of this file."""
    vars(builtins).update(exit=leave, quit=leave)
    made = type(sys)(name)
    vars(made)["__builtins__"] = builtins
    sys.modules[name] = made
    return made


class Printed:
    """Keeps what a program prints, for tests that read it."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0

    def write(self, text: str) -> int:
        if self.size < MOST_PRINTED:
            self.parts.append(text)
            self.size += len(text)
        return len(text)

    def flush(self) -> None:
        """Nothing waits to be written."""

    def isatty(self) -> bool:
        return False

    def take(self) -> str:
        text = "".join(self.parts)[:MOST_PRINTED]
        self.parts, self.size = [], 0
        return text


def named(space: dict[str, Any], *names: str) -> dict[str, Any]:
    """The program's values of some names, those that it has; the empty name is the program as a module."""
    return {name: sys.modules["solution"] if not name else space[name] for name in names if not name or name in space}


def serve(channel: Channel) -> None:
    """Loads the program and answers what the parent and the tester ask, until the parent closes the pipe."""
    peer, printed, program = Peer(channel, judges=False), Printed(), module("solution")
    ACTIONS["names"] = lambda *names: named(vars(program), *names)

    def load(command: dict[str, Any]) -> dict[str, Any]:
        if command.get("prints"):
            sys.stdout = printed
        for piece in (command.get("imports", ""), command["source"]):
            exec(compile(piece, "solution.py", "exec", dont_inherit=True), vars(program))
        printed.take()
        return {"value": None}

    def call(command: dict[str, Any]) -> dict[str, Any]:
        """Calls one name of the program for the parent."""
        target = vars(program)[command["call"]] if command["call"] in vars(program) else getattr(builtins, command["call"])
        return peer.answer({"ask": "call", "arguments": ["l", [["o", peer.number(target)], *command["values"]]], **command})

    while True:
        command = channel.receive()
        answer = run_timed(command, load if "source" in command else call if "call" in command else peer.answer, command)
        if command.get("prints"):
            answer["printed"] = printed.take()
        channel.send(answer)


def run_script(program: dict[str, Any]) -> None:
    """Runs a program as a user would: as the main module, with its standard input and output."""
    # There is no handler here, so the clocks end the process whatever it does.
    arm(program["cpu"], program["wall"])
    try:
        exec(compile(program["source"], "solution.py", "exec", dont_inherit=True), vars(module("__main__")))
    except SystemExit:
        raise
    except BaseException as fault:  # noqa: BLE001
        # What a program leaves to be run at its end must not turn a crash into a success.
        flush(sys.stdout)
        os.write(2, f"{type(fault).__name__}: {message_of(fault)}\n".encode("utf-8", "replace"))
        os._exit(1)


def flush(stream: Any) -> None:
    """Writes what waits in a stream of the program, if it can be written."""
    try:
        stream.flush()
    except BaseException:  # noqa: BLE001
        return


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
    # Libraries of numbers would start a thread for each core of the machine.
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if os.path.isdir("/packages"):
        sys.path.append("/packages")
    channel = Channel(source, target)
    channel.send({"ready": True})
    if role == "script":
        program = channel.receive()
        channel.source.close()
        os.close(target)
        sys.argv[:] = ["solution.py"]
        run_script(program)
        return
    # Standard input is empty here, and what a program prints is dropped.
    if role == "tester":
        serve_tests(channel)
    else:
        serve(channel)


if __name__ == "__main__":
    main()
