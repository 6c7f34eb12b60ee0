"""The tasks of a task set of the package `verifiers` as rows: what a policy is asked, and what the package makes a task of again.

A process of its own reads them, because the package and a task set are the code of others, which has no place in the process
that trains. An episode begins with the row, so that no process but this one reads the data of a task set.
"""

import importlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tulu.config.tasksets import VERIFIERS, module_at, taskset_problem
from tulu.errors import DataError, RecipeError

if TYPE_CHECKING:
    from tulu.config.parts import Source

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from tulu.data.tasksets import main; main()"
OPENS = "(the environment speaks first)"
"""What stands for the words of a user who opens a conversation, until the environment has said them."""
_LOAD_SECONDS = 1800.0
"""Most seconds that reading the tasks may take; a task set may fetch data first."""


def package(module: str) -> Any:
    """A module of the package `verifiers`; the caller's process is not the one that trains."""
    return importlib.import_module(f"{VERIFIERS}.v1{'.' if module else ''}{module}")


def import_taskset(name: str) -> str:
    """Make a task set importable in this process and in those that it starts, and return its module. Raises RecipeError."""
    if problem := taskset_problem(name):
        raise RecipeError(f"verifiers:{name}: {problem}")
    module, folder = module_at(name)
    if folder is not None:
        sys.path.insert(0, str(folder))
        # Servers of tools are started as `python -m MODULE`.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    try:
        package("utils.loaders").taskset_class(module)
    # A task set may raise anything, and what it raises is told.
    except (Exception, SystemExit) as fault:
        raise RecipeError(f"verifiers:{name}: cannot be used as a task set: {type(fault).__name__}: {fault}") from fault
    return module


def taskset_rows(source: "Source") -> list[bytes]:
    """The tasks of a source as JSON, a row each: {messages, task}. Raises DataError where the task set cannot be read."""
    order = json.dumps({"name": source.name.partition(":")[2], "options": source.options, "most": source.count})
    reading, writing = os.pipe()
    with open(reading, "rb") as answers:
        command = [sys.executable, "-c", _BOOT, json.dumps(sys.path), order, str(writing)]
        with subprocess.Popen(command, pass_fds=[writing], stdin=subprocess.DEVNULL) as process:
            os.close(writing)
            watch = threading.Timer(_LOAD_SECONDS, process.kill)
            watch.start()
            lines = answers.read().splitlines()
            watch.cancel()
    try:
        last = json.loads(lines[-1]) if lines else {}
    except ValueError:
        # It was killed in the middle of a line.
        last = {}
    if "error" in last:
        raise DataError(f"{source.name}: {last['error']}")
    if last != {"end": len(lines) - 1}:
        raise DataError(f"{source.name}: the process that reads its tasks ended; see its message above")
    return lines[:-1]


def main() -> None:
    """Write the tasks that the second argument asks for to the descriptor in the third."""
    order = json.loads(sys.argv[2])
    # What a task set prints is for people.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with open(int(sys.argv[3]), "w", encoding="utf-8") as out:
        count = 0
        try:
            for row in _rows(import_taskset(order["name"]), order["options"], order["most"]):
                out.write(json.dumps(row) + "\n")
                count += 1
        except RecipeError as error:
            out.write(json.dumps({"error": str(error)}) + "\n")
        # A task set may raise anything, and what it raises is told.
        except (Exception, SystemExit) as fault:  # noqa: BLE001
            out.write(json.dumps({"error": f"its tasks cannot be read: {type(fault).__name__}: {fault}"}) + "\n")
        else:
            out.write(json.dumps({"end": count}) + "\n")
    # The package may have started threads that never end.
    sys.stderr.flush()
    os._exit(0)


def _rows(module: str, options: Mapping[str, Any], most: int | None) -> Iterator[dict[str, Any]]:
    loaders = package("utils.loaders")
    taskset = loaders.load_taskset(loaders.taskset_config_type(module).model_validate({"id": module, **options}))
    if not taskset.bounded and most is None:
        raise RecipeError("it has tasks without end; give a count in place of a fraction")
    for task in taskset if taskset.bounded else itertools.islice(taskset, most):
        yield {"messages": asked(task.data), "task": task.data.model_dump(mode="json")}


def asked(data: Any) -> list[dict[str, str]]:
    """What a chat program asks a policy at the start of a task: system prompt and prompt. Raises RecipeError for images.

    A task without a prompt has a user whose words only its environment knows.
    """
    prompt = data.prompt
    messages = [] if data.system_prompt is None else [{"role": "system", "content": data.system_prompt}]
    if prompt is None or isinstance(prompt, str):
        return [*messages, {"role": "user", "content": OPENS if prompt is None else prompt}]
    return [*messages, *(spelled(message) for message in prompt)]


def spelled(message: Any) -> dict[str, str]:
    """A message of the package as this project spells it. Raises RecipeError where it is more than text."""
    content = message.content if message.content is not None else ""
    parts = [content] if isinstance(content, str) else [getattr(part, "text", None) for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise RecipeError(f"a message of the {message.role} holds an image; only text can be trained on")
    if getattr(message, "tool_calls", None):
        raise RecipeError("a prompt holds calls of tools; a conversation that is under way cannot be taken up")
    return {"role": message.role, "content": "\n".join(texts)}
