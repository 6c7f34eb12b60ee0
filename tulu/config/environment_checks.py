"""What a recipe says of an environment that cannot be played, as far as reading tells, so that no earlier stage runs in vain."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tulu.config.locate import source_problem
from tulu.config.mistakes import Mistake
from tulu.config.tasksets import REASONING_GYM, VERIFIERS, taskset_problem
from tulu.config.values import Values


def _file_problem(file: Path, wanted: str) -> str:
    """Why a file holds no environment; empty where it may."""
    if not file.is_file():
        return "no such file; write FILE.py, FILE.py:CLASS, verifiers:NAME, openenv:ws://HOST:PORT/ws, or python (a sandbox)"
    if file.suffix != ".py":
        return "is no Python file; write FILE.py with a class that has a method reset"
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        return f"cannot be read as Python ({error}); correct it"
    names = {name for node in ast.walk(tree) for name in _bound(node)}
    if "*" in names or (wanted in names if wanted else names):
        return ""
    listed = ", ".join(sorted(names)) or "none"
    return f"defines no class {wanted}; it has {listed}" if wanted else "defines no class; write one with a method reset"


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement may give a class: only running the file tells what a call makes, and which branch is taken."""
    if isinstance(node, ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and isinstance(node.value, _MAY_BE_A_CLASS):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


_MAY_BE_A_CLASS = (ast.Call, ast.Name, ast.Attribute, ast.Subscript, ast.IfExp, ast.BoolOp, ast.Tuple)


def _data_problem(stage: Values) -> Iterator[Mistake]:
    """An environment that brings its own rows, beside other rows."""
    [env, sources] = stage.env, stage.data
    if [(one.name, one.options) for one in sources or ()] != [(env.path, env.options)]:
        also = ", with the same options" if env.options else ""
        text = f"the environment {env.path} plays its own rows; remove data, or set it to that name{also}"
        yield stage.mistake("data", text, [one.name for one in sources or ()])


def environment_checks(stage: Values) -> Iterator[Mistake]:
    """Mistakes about the environment of RLVR."""
    if stage.env is None:
        return
    name, _, kind = stage.env.path.partition(":")
    problem: str | None = None
    if name in (REASONING_GYM, VERIFIERS):
        problem = taskset_problem(kind) if name == VERIFIERS else source_problem(stage.env.path)
        yield from _data_problem(stage)
    elif name == "openenv":
        problem = None if kind.startswith(("ws://", "wss://")) else "write openenv:ws://HOST:PORT/ws, the address of a server"
    elif name == "python":
        problem = f"the environment python has no class {kind}; write python" if kind else None
    else:
        problem = _file_problem(Path(name).expanduser(), kind) or None
    if problem:
        yield stage.mistake("env.path", problem, stage.env.path)
    if stage.name.partition(".")[0] != "rlvr":
        return
    if stage.stop:
        text = "a turn of an episode ends with the token that the template writes there; remove it"
        yield stage.mistake("stop", text, list(stage.stop))
    if stage.reward_model is not None:
        text = "a reward model reads no turns of tools yet; remove it, and let the environment or verifiers score"
        yield stage.mistake("reward_model", text, "set")
