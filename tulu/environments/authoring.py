"""What a user writes: a class with `reset`, tools, and `get_reward` if it scores. This file reads it, inside a worker.

    class Shop:
        def reset(self, **row) -> str | None:   # called before the first turn; a text is appended to the user's last message
            ...
        def buy(self, item: str, count: int = 1) -> str:
            '''Buys something.

            Args:
                item: What is bought.
                count: How many.
            '''
        def get_reward(self) -> float | None:   # may be left out; None leaves the episode unscored, which is not 0
            ...

Every other public method is a tool, a static one and one of the class too, by its type hints and docstring. The protocol is that
of TRL's `environment_factory`.
"""

import asyncio
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any

from tulu.config.tasksets import VERIFIERS
from tulu.environments.answers import Stopped, as_text, told
from tulu.environments.openenv import OpenEnv, served_at
from tulu.environments.tasksets import TasksetPlay, played
from tulu.errors import RecipeError
from tulu.user_code import import_file

BUILT_IN = {"python": "tulu.environments.python_sandbox"}
"""Environments that have a name, and where their class stands."""
NOT_TOOLS = ("reset", "get_reward")
_HINTS = (str, int, float, bool, type(None), list, dict, tuple, object, Any, Ellipsis)
"""What arguments may be hinted as, and may hold: the values of JSON. A TypedDict is a dict."""


@dataclass(frozen=True)
class Description:
    """What is known of a class before anything is sampled."""

    tools: tuple[Mapping[str, Any], ...]
    """Schemas of its tools, as chat templates take them."""
    scores: bool
    """Whether it has a `get_reward`; else verifiers score the last turn."""
    drives: bool = False
    """Whether it holds the conversation itself, so that it reads every turn and says what follows."""
    speaks: bool = False
    """Whether users may speak behind a turn that calls no tool."""


def load_class(source: str) -> type:
    """The class that `FILE.py`, `FILE.py:CLASS`, `openenv:URL`, `verifiers:NAME` or a built-in name stands for.

    Raises RecipeError.
    """
    place, _, name = source.partition(":")
    if place == VERIFIERS:
        return played(name)
    if place == "openenv":
        return served_at(name)
    if place in BUILT_IN:
        module: Any = importlib.import_module(BUILT_IN[place])
    else:
        path = Path(place).expanduser()
        if not path.is_file():
            raise RecipeError(f"env: {path} is no Python file; write FILE.py, FILE.py:CLASS, or one of {', '.join(BUILT_IN)}")
        module = import_file(path, "env")
    found = {key: value for key, value in vars(module).items() if _is_environment(value)}
    if name:
        if name not in found:
            raise RecipeError(f"env: {place} has no class {name} with a method reset; it has {_listed(found)}")
        return found[name]
    # What a file imports is often only the base of what it defines, so that imported classes count where it defines none.
    own = {key: value for key, value in found.items() if value.__module__ == module.__name__} or found
    if not own:
        raise RecipeError(f"env: {place} has no class with a method reset; write one, as in docs/environments.md")
    if len(set(own.values())) != 1:
        raise RecipeError(f"env: {place} has {_listed(own)} with a method reset; name one, as {place}:CLASS")
    return next(iter(own.values()))


def _is_environment(value: Any) -> bool:
    return inspect.isclass(value) and callable(getattr(value, "reset", None))


def _listed(classes: Mapping[str, type]) -> str:
    return f"the classes {', '.join(classes)}" if classes else "no class"


def tool_names(environment: type) -> list[str]:
    """The public methods of a class that are tools: plain, static and class methods, those of its bases, and decorated ones."""
    names = [name for name in dir(environment) if not name.startswith("_") and name not in NOT_TOOLS]
    return [name for name in names if _is_method(inspect.getattr_static(environment, name))]


def _is_method(value: Any) -> bool:
    """Whether something that stands in a class was written as a method; data, properties and classes were not."""
    if inspect.isfunction(value) or isinstance(value, staticmethod | classmethod | partialmethod):
        return True
    # functools.cache and its kin leave an object that is no function and binds as one. What a base written in C has does neither.
    return callable(value) and hasattr(value, "__get__") and inspect.isfunction(inspect.unwrap(value))


def check_options(environment: type, options: Mapping[str, Any]) -> None:
    """Raise RecipeError where a class cannot be called with the options of the recipe."""
    try:
        signature = inspect.signature(environment)
    except ValueError:
        # A class written in C may have none.
        return
    try:
        signature.bind(**options)
    except TypeError as fault:
        raise RecipeError(
            f"env.options: {environment.__name__} cannot be made of {dict(options) or 'no options'}: {fault}; "
            f"its arguments are {signature}, and options are what they are called with"
        ) from fault


def describe(environment: type) -> Description:
    """The tools of a class, and whether it scores. Raises RecipeError where a tool lacks type hints or a docstring."""
    if issubclass(environment, TasksetPlay):
        return Description(tuple(environment.schemas()), True, True, environment.speaks())
    if issubclass(environment, OpenEnv):
        return Description(tuple(environment._schemas()), True)
    # It imports torch, which no episode needs.
    from transformers.utils.chat_template_utils import get_json_schema

    tools = []
    for name in tool_names(environment):
        # The schema of a bound method leaves `self` out, and no environment has to be made for it. A static one has none.
        method: Any = inspect.getattr_static(environment, name).__get__(object(), environment)
        try:
            tools.append(get_json_schema(method))
            problem = _uncallable(method)
        # transformers raises several kinds, each with what is missing.
        except Exception as fault:
            cure = "a tool has type hints, and a docstring with `Args:`; what is no tool has a name that begins with _"
            raise RecipeError(f"env: {environment.__name__}.{name}: {fault}; {cure}") from fault
        if problem:
            raise RecipeError(f"env: {environment.__name__}.{name}: {problem}; what is no tool has a name that begins with _")
    return Description(tuple(tools), _scores(environment))


def _uncallable(method: Callable[..., Any]) -> str | None:
    """Why the calls of a policy, which name every argument and bring the values of JSON, would not fit a method."""
    parameters, hints = inspect.signature(method).parameters, typing.get_type_hints(method)
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return f"{parameter} takes any arguments, and a call names each; write them out, or take a list or a dict"
        if parameter.kind == parameter.POSITIONAL_ONLY:
            return f"{name} stands before / and has no name in a call; remove the /"
    for name, hint in hints.items():
        if name != "return" and name not in parameters:
            return f"{name} is its first argument, which is the environment itself; put self before it"
        if name != "return" and (odd := _no_json(hint)) is not None:
            kind = getattr(odd, "__name__", odd)
            return f"{name} is a {kind}, and calls bring JSON; take str, int, float, bool, list, dict or Literal, and convert it"
    return None


def _no_json(hint: Any) -> Any | None:
    """What stands in a type hint and is no value of JSON; None where all is."""
    if typing.get_origin(hint) is typing.Literal or typing.is_typeddict(hint) or hint in _HINTS:
        return None
    within = typing.get_args(hint)
    return next((odd for one in within if (odd := _no_json(one)) is not None), None) if within else hint


def _scores(environment: type) -> bool:
    """Whether a class has a `get_reward`. Raises RecipeError where it could not be called."""
    member: Any = inspect.getattr_static(environment, "get_reward", None)
    if member is None:
        return False
    name = f"env: {environment.__name__}.get_reward"
    if not _is_method(member):
        raise RecipeError(f"{name} is no method; write `def get_reward(self) -> float | None`, or remove it")
    try:
        inspect.signature(member.__get__(object(), environment)).bind()
    except TypeError as fault:
        raise RecipeError(f"{name} is called without arguments: {fault}; let tools and reset keep what it needs") from fault
    return True


class Acting:
    """One environment of one episode."""

    def __init__(self, environment: type, options: Mapping[str, Any], call_seconds: float) -> None:
        self.environment = environment(**options)
        self.tools = tool_names(environment)
        self.call_seconds = call_seconds

    def reset(self, row: Mapping[str, Any]) -> str | None:
        """Begin with a row. Raises what the environment raises, and TypeError for what is no text."""
        try:
            text = _settled(self.environment.reset(**row))
        except TypeError as fault:
            # Only a call that does not fit is raised in this frame.
            if fault.__traceback__ is None or fault.__traceback__.tb_next is not None:
                raise
            cure = "name the column otherwise" if "self" in row else "take them, or write reset(self, **row)"
            raise TypeError(f"{fault}; reset is called with the row's columns, {', '.join(row)}: {cure}") from fault
        if text is not None and not isinstance(text, str):
            raise TypeError(f"reset returned a {type(text).__name__}; return a text, or None")
        return text if text is None else as_text(text)

    def call(self, calls: Sequence[tuple[str, Mapping[str, Any]]], tell: Callable[[int, str], None]) -> None:
        """Do the calls of one turn and tell each result by its number; one after the other, or together if all are async.

        What a tool raises is its result: the policy may do better in its next turn.
        """
        methods = [getattr(self.environment, name) if name in self.tools else None for name, _ in calls]
        if len(calls) > 1 and all(inspect.iscoroutinefunction(method) for method in methods):
            asyncio.run(self._together(calls, tell))
            return
        for number, ((name, arguments), method) in enumerate(zip(calls, methods, strict=True)):
            if method is None:
                tell(number, f"error: no tool {name}; the tools are {', '.join(self.tools) or 'none'}")
                continue
            try:
                tell(number, as_text(_settled(method(**arguments))))
            # A tool may raise anything; what parses arguments ends a program that got wrong ones.
            except BaseException as fault:  # noqa: BLE001
                tell(number, f"error: {told(fault)}")

    async def _together(self, calls: Sequence[tuple[str, Mapping[str, Any]]], tell: Callable[[int, str], None]) -> None:
        async def one(number: int, name: str, arguments: Mapping[str, Any]) -> None:
            try:
                result = await asyncio.wait_for(_awaited(getattr(self.environment, name)(**arguments)), self.call_seconds)
                tell(number, as_text(result))
            except TimeoutError:
                tell(number, f"error: no result within {self.call_seconds:g} s")
            except BaseException as fault:  # noqa: BLE001 - a tool may raise anything
                tell(number, f"error: {told(fault)}")

        await asyncio.gather(*(one(number, name, arguments) for number, (name, arguments) in enumerate(calls)))

    def reward(self) -> Any:
        """What the environment says that the episode is worth."""
        return _settled(self.environment.get_reward())


def _settled(value: Any) -> Any:
    """The result of a call, which an async method gives only when it is awaited."""
    return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value


async def _awaited(value: Any) -> Any:
    try:
        return await value
    except (SystemExit, KeyboardInterrupt) as fault:
        # An event loop ends with these, and so would the other calls of the turn.
        raise Stopped from fault
