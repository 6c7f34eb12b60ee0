"""Imports point down one ladder, stages never import each other, and nothing outgrows its size."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LADDER: tuple[tuple[str, ...], ...] = (
    ("errors", "types", "files", "intervals", "progress", "spans", "templates", "track", "yaml_text"),
    ("losses", "advantages", "verifiers.*"),
    ("recipe_parts", "recipe", "mistakes", "chat", "sums", "fields"),
    (
        *("names", "verify_files", "checks", "resolve", "plan", "plan_report", "manifest", "energy", "workers", "worker"),
        *("sources", "rows", "trees", "groups", "encode_rows", "report", "mixing", "problems", "data"),
        *("batch", "attention", "last_layer", "logprobs", "parallel"),
    ),
    ("trunk", "policy", "run"),
    (
        *("train", "actor_critic", "reference", "rollout.*", "grading", "reward_models.model"),
        # What a reward model needs to score answers, which RLVR, evaluation and sampling ask it for.
        *(f"reward_models.{name}" for name in ("ties", "sections", "items", "encoding", "scoring", "plain_scoring")),
        *("reward_models.families", "reward_models.best_of", "reward_models.answers", "reward_models.picking"),
    ),
    ("base", "sft", "dpo", "rlvr", "evaluate", "data_report", "decontaminate", "verify", "sample", "reward_models.*"),
    ("pipeline", "summary", "cluster"),
    ("cli", "cli_tools", "__main__"),
)
"""Rungs from the bottom; a module may import its own rung and those below. `x.*` is what else the folder holds."""
STAGES = 6
"""The rung whose members do not import each other; what serves one command counts as part of it."""
SERVES = {"decontaminate": "data_report"}
MAX_LINES = 330
MAX_FUNCTION_LINES = 60


def module_of(path: Path) -> str:
    """`tulu/rollout/engine.py` -> `rollout.engine`; the linked folders are read where they lie."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in (parts[1:] if parts[0] == "tulu" else parts) if part != "__init__")


@cache
def sources() -> dict[str, Path]:
    files = [*(ROOT / "tulu").glob("*.py"), *(ROOT / "tulu" / "rollout").rglob("*.py")]
    files += [path for name in ("verifiers", "reward_models") for path in (ROOT / name).rglob("*.py")]
    return {module_of(path): path for path in files}


def rung(module: str) -> int:
    exact = {name: level for level, names in enumerate(LADDER) for name in names}
    folder = module.partition(".")[0]
    assert module in exact or f"{folder}.*" in exact, f"tulu.{module} is on no rung: add it to LADDER in {Path(__file__).name}"
    return exact.get(module, exact.get(f"{folder}.*", 0))


def imports_of(path: Path) -> Iterator[str]:
    """Modules of the project that a file imports, anywhere but for types alone."""
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.removeprefix("tulu.") for name in node.names if name.name.startswith("tulu."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            if node.module == "tulu" or (node.module or "").startswith("tulu."):
                base = (node.module or "").removeprefix("tulu").removeprefix(".")
                for name in node.names:
                    inner = f"{base}.{name.name}".removeprefix(".")
                    yield inner if inner in sources() else base


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from runtime_nodes(child)


def member(module: str) -> str:
    return "reward_models" if module.startswith("reward_models.") else SERVES.get(module, module)


@pytest.mark.parametrize("module", sorted(sources()))
def test_imports_point_down(module: str) -> None:
    if not module:
        assert list(imports_of(sources()[module])) == []
        return
    for imported in imports_of(sources()[module]):
        if not imported:
            continue
        assert rung(imported) <= rung(module), f"{module} imports {imported}, which is above it"
        if rung(module) == rung(imported) == STAGES:
            assert member(module) == member(imported), f"the stage {module} imports the stage {imported}"


@pytest.mark.parametrize("name", ["verifiers", "reward_models"])
def test_linked_folders_are_imported_by_their_name_in_the_package(name: str) -> None:
    for module, path in sources().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] != name, f"{module}: import tulu.{name}, not {name}"


def test_no_file_outgrows_its_subject() -> None:
    files = [*sources().values(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_function_outgrows_a_screen() -> None:
    long = {}
    for module, path in sources().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{module}.{node.name}"] = lines
    assert long == {}
